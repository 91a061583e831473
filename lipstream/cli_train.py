"""The commands that rebuild the shipped weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipstream.cli_options import Json, Verbose
from lipstream.console import own_console
from lipstream.engine.output_paths import refuse_to_overwrite

train_app = typer.Typer(help="Rebuild the shipped weights.", no_args_is_help=True)


@train_app.command("encoder")
def train_encoder(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", exists=True, file_okay=False, help="Folder of clips and of speech."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for encoder.safetensors and .onnx.")
    ],
    teacher: Annotated[
        Path,
        typer.Option(
            help="The wheel that holds the teacher: pip download --no-deps pipecat-ai==1.14.0",
        ),
    ],
    listener: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="encoder.safetensors whose listener is trained further; with 0 steps it stays.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of the listener.")] = 1100,
    seed: Annotated[int, typer.Option(help="Seed of every random generator.")] = 0,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train the encoder: a teacher, tracked lips and phone times."""
    with own_console(verbose) as console:
        from lipstream.calibration.training.encoder.train import TrainingOptions, main
        from lipstream.streaming.files.partial_file import PartialFile

        # Fails ahead of hours of training when the folder cannot be written to.
        refuse_to_overwrite(output / "encoder.safetensors", listener, teacher)
        output.mkdir(parents=True, exist_ok=True)
        PartialFile(output / "encoder.onnx").discard()
        options = TrainingOptions(seed=seed, steps=steps)
        with console.progress("reading the data") as progress:
            report = main(
                output, data, teacher, options=options, report=progress, listener=listener
            )
        sentence = f"{output}: {report['clips']} clips, {report['sentences']} aligned sentences"
        console.result(report, json, sentence)


@train_app.command("renderer")
def train_renderer(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", exists=True, file_okay=False, help="Folder of clips of people."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for renderer.safetensors and .onnx.")
    ],
    steps: Annotated[int, typer.Option(help="Steps of the optimiser.")] = 1500,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 6e-4,
    continue_from: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="renderer.safetensors to train further."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random generator.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train the renderer by self-reenactment of clips."""
    with own_console(verbose) as console:
        from lipstream.calibration.training.renderer.train import RendererTraining, main
        from lipstream.streaming.files.partial_file import PartialFile

        refuse_to_overwrite(output / "renderer.safetensors", continue_from)
        output.mkdir(parents=True, exist_ok=True)
        PartialFile(output / "renderer.onnx").discard()
        options = RendererTraining(seed=seed, steps=steps, rate=rate, device=device)
        with console.progress("reading the data") as progress:
            report = main(output, data, options=options, report=progress, continued=continue_from)
        sentence = f"{output}: {report['people']} people, {report['steps']} steps"
        console.result(report, json, sentence)
