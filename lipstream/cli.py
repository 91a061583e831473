"""The command line. Each command calls one function of the packages and prints its result.

Libraries are imported inside the commands, so that `lipstream --help` needs none of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lipstream.cli_batch import (
    VIDEO_ENDINGS,
    Batch,
    BatchOptions,
    Jobs,
    Ray,
    Retries,
    is_many,
    refuse_folder,
    required,
    run_many,
)
from lipstream.cli_bench import bench_app
from lipstream.cli_errors import run_app
from lipstream.cli_live import present, publish, serve
from lipstream.cli_options import (
    Backend,
    CropResolution,
    FileProfile,
    Json,
    Label,
    NoWatermark,
    Renderer,
    Sign,
    TargetOrNone,
    Verbose,
    VideoOutput,
)
from lipstream.cli_train import train_app
from lipstream.cli_trust import ask_for_consent, consent, verify
from lipstream.console import Console, own_console

if TYPE_CHECKING:
    from lipstream.streaming.files.dub import DubOptions

app = typer.Typer(
    name="lipstream",
    no_args_is_help=True,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
assets_app = typer.Typer(help="Model files that are downloaded, not shipped.", no_args_is_help=True)
app.add_typer(assets_app, name="assets")
app.add_typer(bench_app, name="bench")
app.add_typer(train_app, name="train")


@app.callback()
def lipstream(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Calibrate a person's footage once, then any live voice drives their lips."""
    if version:
        from lipstream import __version__

        typer.echo(f"lipstream {__version__}")
        raise typer.Exit


@app.command()
def demo(
    output: VideoOutput = Path("demo.mp4"),
    profile: FileProfile = "file",
    backend: Backend = "auto",
    label: Label = "corner",
    no_watermark: NoWatermark = None,
    sign: Sign = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make demo.mp4: the built-in target speaks the built-in speech."""
    import tempfile

    with own_console(verbose) as console:
        from lipstream.engine.extras import require

        require("calibrate", "demo")
        from lipstream.calibration.demo import build_demo_target, demo_speech
        from lipstream.streaming.files.dub import DubOptions
        from lipstream.streaming.files.mp4_writer import container_of
        from lipstream.streaming.files.partial_file import PartialFile
        from lipstream.streaming.marking.marker import Marking

        options = DubOptions(
            profile, backend, marking=Marking.parse(label, no_watermark), sign=sign
        )
        # Both fail at once when the output cannot be written.
        container_of(output)
        PartialFile(output).discard()
        with tempfile.TemporaryDirectory(prefix="lipstream-demo-") as folder:
            target = build_demo_target(Path(folder))
            speech = demo_speech(Path(folder))
            _dub(console, (target, speech, output), options, json)


@app.command()
def calibrate(
    footage: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOOTAGE", help="A video or a photo of one person; or a folder of them."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Target to write, NAME.target; of a folder or list: where to."
        ),
    ] = None,
    start: Annotated[
        float | None, typer.Option(help="Leave out the video before this time, s.")
    ] = None,
    end: Annotated[
        float | None, typer.Option(help="Leave out the video after this time, s.")
    ] = None,
    consent: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help='Who agreed to this use of the face: "WHO; WHEN; FOR WHAT"; stored in the target.',
        ),
    ] = None,
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt",
            help="Adapt to this person's appearance; about a minute more, needs the extra torch.",
        ),
    ] = False,
    person: Annotated[
        int | None,
        typer.Option(help="If several people are seen: follow this one, 1 for the first."),
    ] = None,
    still: Annotated[
        bool, typer.Option("--still", help="From a photo: head, brows and eyes do not move.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="From a photo: seed of its random motion. Default: 0.")
    ] = None,
    batch: Batch = None,
    jobs: Jobs = None,
    retries: Retries = 2,
    ray: Ray = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Turn footage of a person into a target."""
    with own_console(verbose) as console:
        from lipstream.engine.extras import require

        require("calibrate", "calibrate")
        many = BatchOptions(batch, jobs, retries, ray)
        if is_many(many, footage, output, ".target"):
            told = {
                "start": start, "end": end, "consent": consent, "adapt": adapt or None,
                "person": person, "still": still or None, "seed": seed,
            }  # fmt: skip
            return run_many(console, "calibrate", (footage, output), told, many, json)
        many.refuse_for_one()
        footage = required(footage, "argument 'FOOTAGE'", "calibrate")
        output = required(output, "option '--output' / '-o'", "calibrate")
        refuse_folder(footage, output, "calibrate FOOTAGE -o NAME.target")
        from lipstream.calibration.build import calibrate as build
        from lipstream.calibration.consent import earlier_consent
        from lipstream.calibration.options import CalibrationOptions

        if consent is None and footage.is_file() and earlier_consent(output) is None:
            consent = ask_for_consent(console)
        with console.progress("opening the footage") as progress:
            options = CalibrationOptions(start, end, consent, progress, adapt, person, seed, still)
            report = build(footage, output, options)
        sentence = (
            f"{output}: {report['frames']} frames at {report['fps']:g} fps, "
            f"{report['tracked_ratio']:.1%} usable, {len(report['rejected'])} rejected; "
            f"report: {output / 'report.html'}\n{_verdict_text(report['verdict'])}"
        )
        notes = [*report["notes"], *([report["adapted"]["summary"]] if adapt else [])]
        if report["consent_kept"]:
            notes.append(f"consent as stated before: {report['consent']!r} (--consent changes it)")
        if report["consent"] is None:
            notes.append(
                "no consent is recorded, so serve, present and publish refuse this target: "
                f'lipstream consent {output} "WHO; WHEN; FOR WHAT"'
            )
        for note in () if json else notes:
            console.note(note)
        console.result(report, json, sentence)


def _verdict_text(verdict: dict[str, Any]) -> str:
    """The verdict for people: the grade with its reasons, and a line for each piece of advice."""
    lines = [f"{verdict['grade'].capitalize()}: {' '.join(verdict['reasons'])}"]
    lines += [f"  to improve it: {advice}" for advice in verdict["advice"]]
    return "\n".join(lines)


@app.command()
def dub(
    target: TargetOrNone = None,
    audio: Annotated[
        Path | None,
        typer.Argument(
            metavar="AUDIO", help="Speech: any audio or video file; or a folder of them."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Video to write: NAME.mp4, .mov, .mkv or .webm; of a folder or list: where to.",
        ),
    ] = None,
    background: Annotated[
        str,
        typer.Option(
            help="matched: frames chosen to fit the speech; sequential: the order of the footage."
        ),
    ] = "matched",
    profile: FileProfile = "file",
    backend: Backend = "auto",
    renderer: Renderer = "auto",
    crop_resolution: CropResolution = 256,
    label: Label = "corner",
    no_watermark: NoWatermark = None,
    sign: Sign = None,
    batch: Batch = None,
    jobs: Jobs = None,
    retries: Retries = 2,
    ray: Ray = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make a video in which a target speaks a sound file."""
    with own_console(verbose) as console:
        many = BatchOptions(batch, jobs, retries, ray)
        if is_many(many, audio, output, VIDEO_ENDINGS):
            told = {
                "target": target, "background": background, "profile": profile,
                "backend": backend, "renderer": renderer, "crop_resolution": crop_resolution,
                "label": label, "no_watermark": no_watermark, "sign": sign and [*map(str, sign)],
            }  # fmt: skip
            return run_many(console, "dub", (audio, output), told, many, json)
        many.refuse_for_one()
        target = required(target, "argument 'TARGET'", "dub")
        audio = required(audio, "argument 'AUDIO'", "dub")
        output = required(output, "option '--output' / '-o'", "dub")
        refuse_folder(audio, output, "dub TARGET AUDIO -o OUT.mp4")
        from lipstream.streaming.files.dub import DubOptions
        from lipstream.streaming.marking.marker import Marking
        from lipstream.streaming.remote.targets import local_target

        options = DubOptions(
            profile, backend, background, renderer, None, crop_resolution,
            Marking.parse(label, no_watermark), sign,
        )  # fmt: skip
        _dub(console, (local_target(target), audio, output), options, json)


def _dub(console: Console, paths: tuple[Path, Path, Path], options: DubOptions, json: bool) -> None:
    from dataclasses import replace

    from lipstream.streaming.files.dub import dub as write

    target, audio, output = paths
    with console.progress("loading the target") as progress:
        report = write(target, audio, output, replace(options, progress=progress))
    provenance = report["provenance"]
    if not json and provenance is not None and provenance["sidecar"] is not None:
        console.note(
            f"{output.suffix} files have no C2PA binding: the signed manifest is "
            f"{provenance['sidecar']}; keep it beside the video"
        )
    sentence = (
        f"{output}: {report['frames']} frames, {report['duration_s']:.1f} s long, made in "
        f"{report['seconds']:.1f} s ({report['realtime_factor']:.1f} times real time)"
    )
    console.result(report, json, sentence)


@app.command()
def express(
    audio: Annotated[
        Path, typer.Argument(metavar="AUDIO", help="Speech: any audio or video file.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the JSON lines to this file.")
    ] = None,
    profile: FileProfile = "file",
    backend: Backend = "auto",
    verbose: Verbose = False,
) -> None:
    """Print the motion of the lips, one JSON object for every 20 ms."""
    with own_console(verbose) as console:
        from lipstream.engine.output_paths import refuse_to_overwrite
        from lipstream.streaming.files.expression_stream import express_lines
        from lipstream.streaming.files.partial_file import PartialFile, write_error

        if output is None:
            return console.lines(express_lines(audio, profile, backend))
        refuse_to_overwrite(output, audio)
        with PartialFile(output) as part:
            try:
                with part.temporary.open("w", encoding="utf-8") as file:
                    for line in express_lines(audio, profile, backend):
                        file.write(line + "\n")
            except OSError as error:
                raise write_error(output, error) from error
            part.commit()


# In the order in which `lipstream -h` lists them.
for command in (serve, present, publish, verify, consent):
    app.command()(command)


@app.command()
def doctor(
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test", help="Run ten generated inputs through the commands; under 60 s."
        ),
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what this machine has, and how to install what is missing."""
    with own_console(verbose) as console:
        if self_test:
            return _self_test(console, json)
        from lipstream.doctor import as_json, as_text, examine

        checks = examine()
        console.result(as_json(checks), json, as_text(checks))


def _self_test(console: Console, json: bool) -> None:
    """One line for each input as it ends; exit code 1 if one gives a wrong result."""
    from lipstream import self_test

    results = []
    for result in self_test.run_self_test():
        results.append(result)
        if not json:
            console.lines([self_test.as_line(result)])
    whole = self_test.as_json(results)
    if json:
        console.result(whole, json, "")
    if not whole["ok"]:
        raise typer.Exit(1)


@app.command("help")
def show_help(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]", help="Such as: calibrate, bench all.")
    ] = None,
) -> None:
    """Show the options of a command: the same as COMMAND -h."""
    app([*(command or ()), "--help"], prog_name="lipstream", standalone_mode=False)


@assets_app.command("fetch")
def assets_fetch(json: Json = False, verbose: Verbose = False) -> None:
    """Download the face landmarker; calibrate does so when it is missing."""
    with own_console(verbose) as console:
        from lipstream.calibration.assets import FACE_LANDMARKER, fetch

        with console.progress("looking for the face landmarker") as progress:
            path = fetch(report=progress)
        console.result({"path": path, "sha256": FACE_LANDMARKER.sha256}, json, str(path))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command. An error becomes one line on standard error and an exit code."""
    return run_app(app, arguments)
