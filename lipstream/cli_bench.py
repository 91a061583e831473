"""`lipstream bench …`: figures of this version on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lipstream.cli_options import Json, Verbose
from lipstream.console import Console, own_console
from lipstream.engine.errors import LipstreamError, UsageError

if TYPE_CHECKING:
    from lipstream.bench.machine import Load

bench_app = typer.Typer(help="Measurements that can be repeated.", no_args_is_help=True)

ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--report", help="Folder for report.html and report.json; other commands' parts stay."
    ),
]
TargetBundle = Annotated[
    Path | None, typer.Option("--target", help="Bundle to measure; the demo if none is named.")
]
Seconds = Annotated[float, typer.Option(help="Measured time of each run, after the warm-up.")]
Profiles = Annotated[str, typer.Option(help="Comma-separated: low, live, studio.")]
Backends = Annotated[
    str,
    typer.Option(
        help="Comma-separated: auto, native, openvino, torch, numpy, tensorrt; or all there are."
    ),
]
Renderers = Annotated[
    str, typer.Option(help="Comma-separated: none, network, auto (network if it can run).")
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


@bench_app.command("all")
def bench_all(
    report_folder: Annotated[
        Path, typer.Option("--report", help="Folder for report.html and report.json.")
    ],
    target: TargetBundle = None,
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="LIPSTREAM_TEST_DATA", exists=True, file_okay=False,
            help="Clips of people talking, and labelled speech; without them, no quality.",
        ),
    ] = None,
    seconds: Seconds = 10.0,
    json: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Everything that this machine can measure, into one report: about a quarter of an hour.

    The report grows part by part; what cannot be measured here is said and left out.
    """
    with own_console(verbose) as console:
        from lipstream.bench.machine import Load, describe
        from lipstream.bench.report.page import section, write_report
        from lipstream.bench.suite import everything

        left_out: dict[str, str] = {}
        measured: dict[str, str] = {}
        with console.progress() as progress:
            for name, measure in everything(target, data, seconds).items():
                load = Load()
                try:
                    sections, text = measure(progress)
                except LipstreamError as error:
                    left_out[name] = str(error)
                    console.note(f"{name} left out: {error}")
                    continue
                machine = describe(load)
                write_report(
                    report_folder, {kind: section(machine, part) for kind, part in sections.items()}
                )
                measured[name] = text
        page = report_folder / "report.html"
        values = {"report": str(page), "measured": list(measured), "left_out": left_out}
        told = [f"{name}\n{text}\n" for name, text in measured.items()]
        console.result(values, json, "\n".join([*told, f"report: {page}"]))


@bench_app.command("quality")
def bench_quality(
    data: Data,
    backend: Annotated[str, typer.Option(help="What runs the networks.")] = "auto",
    part: Annotated[
        str, typer.Option(help="lips (the encoder), mouths (the renderer) or both.")
    ] = "both",
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Adapt to each clip too: a minute a clip.")
    ] = False,
    report_folder: ReportFolder = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """How well lips follow the voice, and how real mouths look, on people never seen.

    With --report, mouths.html shows real and painted mouths side by side.
    """
    with own_console(verbose) as console, _load() as load:
        from lipstream.bench.measure.mouths import MouthsOptions, measure_mouths, mouths_summary
        from lipstream.bench.measure.speech import measure_quality, summary

        if part not in ("lips", "mouths", "both"):
            raise UsageError(f"--part {part!r}: expected lips, mouths or both")
        found: dict[str, Any] = {}
        lines = []
        with console.progress() as progress:
            if part != "mouths":
                found["quality"] = measure_quality(data, backend=backend, report=progress)
                lines.append(summary(found["quality"]))
            if part != "lips":
                options = MouthsOptions(backend, adapt)
                found["mouths"], page = measure_mouths(data, options, progress)
                lines.append(mouths_summary(found["mouths"]))
        _tell(console, load, found, report_folder, json, "\n".join(lines))
        if report_folder is not None and part != "lips":
            (report_folder / "mouths.html").write_text(page, "utf8")
            console.note(f"mouths: {report_folder / 'mouths.html'}")


@bench_app.command("matcher")
def bench_matcher(
    report_folder: ReportFolder = None, json: Json = False, verbose: Verbose = False
) -> None:
    """What the frame matcher costs, and how far a short lag is from the best path."""
    with own_console(verbose) as console, _load() as load:
        from lipstream.bench.measure.matcher import matcher_bench, matcher_text

        report = matcher_bench()
        _tell(console, load, {"matcher": report}, report_folder, json, matcher_text(report))


@bench_app.command("kernels")
def bench_kernels(
    report_folder: ReportFolder = None, json: Json = False, verbose: Verbose = False
) -> None:
    """The compiled kernels against their NumPy twins."""
    with own_console(verbose) as console, _load() as load:
        from lipstream.bench.measure.kernels import kernel_timings, kernels_text

        report = {"kernels": kernel_timings()}
        _tell(console, load, {"kernels": report}, report_folder, json, kernels_text(report))


@bench_app.command("latency")
def bench_latency(
    target: TargetBundle = None,
    profiles: Profiles = "low,live,studio",
    backends: Backends = "all",
    renderers: Renderers = "auto,none",
    seconds: Seconds = 20.0,
    report_folder: ReportFolder = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Sound in to frame out, stage by stage: as fast as it goes, and on the clock."""
    with own_console(verbose) as console, _load() as load:
        from lipstream.bench.suite import Configurations, latency_sections, latency_text

        ways = Configurations(_words(profiles), _words(backends), _words(renderers))
        with console.progress() as progress:
            sections = latency_sections(target, ways, seconds, progress)
        _tell(console, load, sections, report_folder, json, latency_text(sections))


@bench_app.command("capacity")
def bench_capacity(
    target: TargetBundle = None,
    backends: Backends = "auto",
    renderers: Renderers = "auto,none",
    seconds: Seconds = 10.0,
    growth: Annotated[
        bool, typer.Option("--growth", help="By cores, frame size and length of track, too.")
    ] = False,
    processes: Annotated[int, typer.Option(help="Processes that compute; 0: this one.", min=0)] = 0,
    report_folder: ReportFolder = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """How many conversations at once keep every frame inside its interval."""
    with own_console(verbose) as console, _load() as load:
        from lipstream.bench.suite import Configurations, capacity_sections, capacity_text

        ways = Configurations(("live",), _words(backends), _words(renderers))
        with console.progress() as progress:
            sections = capacity_sections(target, ways, seconds, progress, growth, processes)
        _tell(console, load, sections, report_folder, json, capacity_text(sections))


@bench_app.command("throughput")
def bench_throughput(
    target: TargetBundle = None,
    backend: Annotated[str, typer.Option(help="What runs the networks.")] = "auto",
    renderer: Annotated[str, typer.Option(help="auto, network or none.")] = "auto",
    seconds: Seconds = 5.0,
    report_folder: ReportFolder = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Frames a second, by sessions, processes, cores, frame size and length of track."""
    with own_console(verbose) as console, _load() as load:
        from lipstream.bench.measure.latency import Setting
        from lipstream.bench.measure.throughput import measure_throughput, throughput_text
        from lipstream.engine.cores import usable_cores

        setting, cores = Setting("live", backend, renderer), usable_cores()
        with console.progress() as progress:
            report = measure_throughput(target, setting, cores, seconds, progress)
        text = throughput_text(report)
        _tell(console, load, {"throughput": report}, report_folder, json, text)


@bench_app.command("webrtc")
def bench_webrtc(
    delays: Annotated[str, typer.Option(help="Engine delays in ms, comma-separated.")] = "40,120",
    seconds: Seconds = 60.0,
    report_folder: ReportFolder = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Microphone to picture through Chromium, and sound against picture over time."""
    with own_console(verbose) as console, _load() as load:
        from lipstream.bench.measure.webrtc import measure_webrtc, webrtc_text

        wanted = tuple(float(word) for word in _words(delays))
        with console.progress() as progress:
            report = measure_webrtc(wanted, seconds, progress)
        _tell(console, load, {"webrtc": report}, report_folder, json, webrtc_text(report))


@bench_app.command("compare")
def bench_compare(
    before: Annotated[Path, typer.Argument(help="A report.json, or its folder.")],
    after: Annotated[Path, typer.Argument(help="Another, of the same measurements.")],
    least_percent: Annotated[
        float, typer.Option(help="Smaller changes of a p50 count as noise.")
    ] = 5.0,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """What got better or worse from one report to another; exits 1 on a regression."""
    with own_console(verbose) as console:
        from dataclasses import asdict

        from lipstream.bench.report.compare import compare, text
        from lipstream.bench.report.page import read_report

        old, new = read_report(before), read_report(after)
        changes = compare(old, new, least_percent)
        values = {"changes": [asdict(one) for one in changes]}
        console.result(values, json, text(changes, old, new))
        worse = any(one.verdict == "worse" for one in changes)
    if worse:
        raise typer.Exit(1)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


@contextmanager
def _load() -> Iterator[Load]:
    """What others do to the machine from here on."""
    from lipstream.bench.machine import Load

    yield Load()


def _tell(  # noqa: PLR0913 - the ends of every command, in one place
    console: Console,
    load: Load,
    data: dict[str, Any],
    folder: Path | None,
    json: bool,
    text: str,
) -> None:
    """Figures with the machine beside them: to the reader, and into the report."""
    from lipstream.bench.machine import describe
    from lipstream.bench.report.page import section, write_report

    machine = describe(load)
    if folder is not None:
        page = write_report(folder, {kind: section(machine, part) for kind, part in data.items()})
        console.note(f"report: {page}")
    (values,) = data.values() if len(data) == 1 else (data,)
    noise = "" if machine["quiet"] else ": not quiet, figures may be worse than they are"
    head = f"{machine['processor']}, {machine['cores']} cores, commit {machine['commit']}, "
    head += f"others kept {machine['others_cores']} cores busy{noise}"
    console.result({**values, "machine": machine}, json, f"{head}\n{text}")
