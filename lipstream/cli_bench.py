"""`lipstream bench …`: measurements of this version on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lipstream.cli_options import Json, Verbose
from lipstream.console import Console, own_console
from lipstream.engine.errors import LipstreamError, UsageError
from lipstream.engine.output_paths import refuse_to_overwrite

if TYPE_CHECKING:
    from lipstream.bench.machine import Load

bench_app = typer.Typer(help="Measure this version on this machine.", no_args_is_help=True)

ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="Folder for report.html and report.json; sections of other commands are kept.",
    ),
]
TargetBundle = Annotated[
    Path | None, typer.Option("--target", help="Bundle to measure; default: the demo.")
]
Seconds = Annotated[float, typer.Option(help="Time measured in each run, after the warm-up, s.")]
Profiles = Annotated[str, typer.Option(help="Comma-separated: low, live, studio.")]
Backends = Annotated[
    str,
    typer.Option(
        help="Comma-separated: auto, native, openvino, torch, numpy, tensorrt, cuda; or all."
    ),
]
Renderers = Annotated[
    str,
    typer.Option(
        help="Comma-separated: none, network (the renderer), auto (network where it can run)."
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        envvar="LIPSTREAM_TEST_DATA",
        exists=True,
        file_okay=False,
        help="Folder of clips of people talking and labelled speech.",
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
            help="Folder of clips of people talking and labelled speech; quality needs it.",
        ),
    ] = None,
    seconds: Seconds = 10.0,
    json: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Run all measurements into one report: about 20 minutes.

    The report is written after each measurement. A measurement that this machine cannot run is
    left out, with a note.
    """
    with own_console(verbose) as console:
        from lipstream.bench.machine import Load, describe
        from lipstream.bench.report.page import section, write_report
        from lipstream.bench.suite import everything

        refuse_to_overwrite(report_folder / "report.html", target)
        left_out: dict[str, str] = {}
        measured: dict[str, str] = {}
        with console.progress("preparing") as progress:
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
        texts = [f"{name}\n{text}\n" for name, text in measured.items()]
        console.result(values, json, "\n".join([*texts, f"report: {page}"]))


@bench_app.command("quality")
def bench_quality(
    data: Data,
    backend: Annotated[str, typer.Option(help="What runs the models.")] = "auto",
    part: Annotated[
        str,
        typer.Option(help="lips (encoder), mouths (renderer), both, or photo (photos that speak)."),
    ] = "both",
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Also adapt to each clip: a minute a clip, needs torch.")
    ] = False,
    report_folder: ReportFolder = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Accuracy of lips and realism of mouths, on unseen people.

    People of the training data are not measured. With --report, mouths.html shows real and
    synthesised mouths side by side.
    """
    with own_console(verbose) as console, _load() as load:
        from lipstream.bench.measure.mouths import MouthsOptions, measure_mouths, mouths_summary
        from lipstream.bench.measure.photos import measure_photos, photos_summary
        from lipstream.bench.measure.speech import measure_quality, summary
        from lipstream.bench.report.mouths_page import mouths_page
        from lipstream.bench.report.page import write_text

        if part not in ("lips", "mouths", "both", "photo"):
            raise UsageError(f"--part {part!r}: expected lips, mouths, both or photo")
        found: dict[str, Any] = {}
        lines = []
        with console.progress("preparing") as progress:
            if part == "photo":
                found["photos"] = measure_photos(data, progress)
                lines.append(photos_summary(found["photos"]))
            if part in ("lips", "both"):
                found["quality"] = measure_quality(data, backend=backend, report=progress)
                lines.append(summary(found["quality"]))
            if part in ("mouths", "both"):
                options = MouthsOptions(backend, adapt)
                found["mouths"], clips = measure_mouths(data, options, progress)
                lines.append(mouths_summary(found["mouths"]))
        _finish(console, load, found, report_folder, json, "\n".join(lines))
        if report_folder is not None and part in ("mouths", "both"):
            page = report_folder / "mouths.html"
            write_text(page, mouths_page(clips, found["mouths"]["summary"]))
            console.note(f"mouths: {page}")


@bench_app.command("watermark")
def bench_watermark(
    data: Data, report_folder: ReportFolder = None, json: Json = False, verbose: Verbose = False
) -> None:
    """The watermark after attacks, false finds, PSNR and time."""
    with own_console(verbose) as console, _load() as load:
        from lipstream.bench.measure.watermark import measure_watermark, watermark_text

        with console.progress("preparing") as progress:
            found = measure_watermark(data, progress)
        _finish(console, load, {"watermark": found}, report_folder, json, watermark_text(found))


@bench_app.command("matcher")
def bench_matcher(
    report_folder: ReportFolder = None, json: Json = False, verbose: Verbose = False
) -> None:
    """Frame matcher: time per frame, and cost above the optimum."""
    with own_console(verbose) as console, _load() as load:
        from lipstream.bench.measure.matcher import matcher_bench, matcher_text

        report = matcher_bench()
        _finish(console, load, {"matcher": report}, report_folder, json, matcher_text(report))


@bench_app.command("kernels")
def bench_kernels(
    report_folder: ReportFolder = None, json: Json = False, verbose: Verbose = False
) -> None:
    """Compiled kernels against their NumPy twins."""
    with own_console(verbose) as console, _load() as load:
        from lipstream.bench.measure.kernels import kernel_timings, kernels_text

        report = {"kernels": kernel_timings()}
        _finish(console, load, {"kernels": report}, report_folder, json, kernels_text(report))


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
    """Latency by stage, free-running and in real time."""
    with own_console(verbose) as console, _load(report_folder, target) as load:
        from lipstream.bench.suite import Configurations, latency_sections, latency_text

        configurations = Configurations(_words(profiles), _words(backends), _words(renderers))
        with console.progress("preparing") as progress:
            sections = latency_sections(target, configurations, seconds, progress)
        _finish(console, load, sections, report_folder, json, latency_text(sections))


@bench_app.command("capacity")
def bench_capacity(
    target: TargetBundle = None,
    backends: Backends = "auto",
    renderers: Renderers = "auto,none",
    seconds: Seconds = 10.0,
    growth: Annotated[
        bool, typer.Option("--growth", help="Also by cores, picture size and track length.")
    ] = False,
    processes: Annotated[
        str, typer.Option(help="Worker processes; 0: this process. Several, by comma, in one run.")
    ] = "0",
    report_folder: ReportFolder = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """How many conversations at once this machine sustains."""
    with own_console(verbose) as console, _load(report_folder, target) as load:
        from lipstream.bench.suite import Configurations, capacity_sections, capacity_text

        configurations = Configurations(("live",), _words(backends), _words(renderers))
        with console.progress("preparing") as progress:
            sections = capacity_sections(
                target, configurations, seconds, progress, growth, _counts(processes)
            )
        _finish(console, load, sections, report_folder, json, capacity_text(sections))


@bench_app.command("throughput")
def bench_throughput(
    target: TargetBundle = None,
    backend: Annotated[str, typer.Option(help="What runs the models.")] = "auto",
    renderer: Annotated[str, typer.Option(help="auto, network or none.")] = "auto",
    seconds: Seconds = 5.0,
    report_folder: ReportFolder = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Frames per second by sessions, cores, picture and track."""
    with own_console(verbose) as console, _load(report_folder, target) as load:
        from lipstream.bench.measure.latency import Setting
        from lipstream.bench.measure.throughput import measure_throughput, throughput_text
        from lipstream.engine.cores import usable_cores

        setting, cores = Setting("live", backend, renderer), usable_cores()
        with console.progress("preparing") as progress:
            report = measure_throughput(target, setting, cores, seconds, progress)
        text = throughput_text(report)
        _finish(console, load, {"throughput": report}, report_folder, json, text)


@bench_app.command("webrtc")
def bench_webrtc(
    delays: Annotated[str, typer.Option(help="Engine delays in ms, comma-separated.")] = "40,120",
    seconds: Seconds = 60.0,
    report_folder: ReportFolder = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Delay from microphone to picture in Chromium, and A/V offset."""
    with own_console(verbose) as console, _load() as load:
        from lipstream.bench.measure.webrtc import measure_webrtc, webrtc_text

        wanted = tuple(float(word) for word in _words(delays))
        with console.progress("preparing") as progress:
            report = measure_webrtc(wanted, seconds, progress)
        _finish(console, load, {"webrtc": report}, report_folder, json, webrtc_text(report))


@bench_app.command("compare")
def bench_compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A report.json, or its folder.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Another one.")],
    least_percent: Annotated[
        float, typer.Option(help="Smaller changes of a p50 count as noise.")
    ] = 5.0,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare two reports; exits 1 on a regression."""
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


def _counts(text: str) -> tuple[int, ...]:
    words = _words(text)
    if not words or not all(word.isdecimal() for word in words):
        raise typer.BadParameter(f"--processes {text!r}: expected numbers, such as 1,2")
    return tuple(map(int, words))


@contextmanager
def _load(report_folder: Path | None = None, target: Path | None = None) -> Iterator[Load]:
    """The load by other processes from here on.

    Raises: UsageError for a report that would be written over the target.
    """
    from lipstream.bench.machine import Load

    if report_folder is not None:
        refuse_to_overwrite(report_folder / "report.html", target)
    yield Load()


def _finish(
    console: Console,
    load: Load,
    data: dict[str, Any],
    folder: Path | None,
    json: bool,
    text: str,
) -> None:
    """Print the figures with their machine, and add them to the report in `folder`."""
    from lipstream.bench.machine import describe
    from lipstream.bench.report.page import section, write_report

    machine = describe(load)
    if folder is not None:
        page = write_report(folder, {kind: section(machine, part) for kind, part in data.items()})
        console.note(f"report: {page}")
    (values,) = data.values() if len(data) == 1 else (data,)
    noise = "" if machine["quiet"] else ": not a quiet machine, figures may be too high"
    head = f"{machine['processor']}, {machine['cores']} cores, commit {machine['commit']}, "
    head += f"other processes used {machine['others_cores']} cores{noise}"
    console.result({**values, "machine": machine}, json, f"{head}\n{text}")
