"""`lipstream bench …` and `lipstream train …`: figures of this version, and its weights anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lipstream.console import own_console

bench_app = typer.Typer(help="Measurements that can be repeated.", no_args_is_help=True)
train_app = typer.Typer(help="Rebuild the shipped weights.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show what libraries say, and where errors arise.")
]


Data = Annotated[
    Path,
    typer.Option(
        envvar="LIPSTREAM_TEST_DATA",
        exists=True,
        file_okay=False,
        help="Folder of clips of people talking, and of labelled speech (docs/models.md).",
    ),
]


@bench_app.command("quality")
def bench_quality(
    data: Data,
    backend: Annotated[str, typer.Option(help="What runs the networks.")] = "auto",
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """How well the lips follow the voice, on people the encoder never saw."""
    with own_console(verbose) as console:
        from lipstream.bench.quality import measure_quality, summary

        with console.progress() as progress:
            report = measure_quality(data, backend=backend, report=progress)
        console.result(report, json, summary(report))


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


@train_app.command("encoder")
def train_encoder(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for encoder.safetensors and .onnx.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder of clips of people talking; without it, synthetic speech only.",
        ),
    ] = None,
    hours: Annotated[float, typer.Option(help="Of synthetic speech.")] = 17.0,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn at random.")] = 0,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Synthesise speech, train the encoder on it and on real lips, and write its weights."""
    with own_console(verbose) as console:
        from lipstream.calibration.pretrain.train_encoder import TrainingOptions, main
        from lipstream.streaming.partial_file import PartialFile

        # Two hours of training must not end at a folder that cannot be written to.
        output.mkdir(parents=True, exist_ok=True)
        PartialFile(output / "encoder.onnx").discard()
        options = TrainingOptions(seed=seed, hours=hours)
        with console.progress() as progress:
            report = main(output, data, options=options, report=progress)
        accuracy = report["phone_accuracy"]
        sentence = (
            f"{output}: {report['clips']} clips, phones right in {accuracy[-1]:.1%} of frames"
        )
        console.result(report, json, sentence)
