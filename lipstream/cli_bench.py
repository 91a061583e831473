"""`lipstream bench …` and `lipstream train …`: figures of this version, and its weights anew."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lipstream.console import own_console

bench_app = typer.Typer(help="Measurements that can be repeated.", no_args_is_help=True)
train_app = typer.Typer(help="Rebuild the shipped weights.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show what libraries say, and where errors arise.")
]


@bench_app.command("matcher")
def bench_matcher(json: Json = False, verbose: Verbose = False) -> None:
    """What the frame matcher costs, and how far a short lag is from the best path."""
    with own_console(verbose) as console:
        from lipstream.bench.matcher_bench import matcher_bench

        report = matcher_bench()
        console.result(report, json, _matcher_text(report))


@bench_app.command("kernels")
def bench_kernels(json: Json = False, verbose: Verbose = False) -> None:
    """The compiled kernels against their NumPy twins."""
    with own_console(verbose) as console:
        from lipstream.bench.kernels_bench import kernel_timings

        report = kernel_timings()
        lines = [
            f"{name:<32} {row['compiled_ms']:8.3f} ms  {row['ratio']:6.1f}x NumPy"
            for name, row in report.items()
        ]
        console.result(report, json, "\n".join(lines))


def _matcher_text(report: dict[str, Any]) -> str:
    lines = [f"{report['machine']}, kernels: {report['kernels']}", "", "above the best path:"]
    for row in report["gap"]:
        lines.append(f"  lag {row['lag_ms']:4d} ms  {row['gap_percent']:6.2f} % in cost")
    lines += ["", "time per output frame:"]
    for row in report["time"]:
        lines.append(
            f"  {row['frames']:6d} track frames  p50 {row['p50_ms']:.3f}  "
            f"p95 {row['p95_ms']:.3f}  p99 {row['p99_ms']:.3f} ms"
        )
    return "\n".join(lines)
