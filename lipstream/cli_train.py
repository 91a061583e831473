"""The commands that rebuild the shipped weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipstream.cli_options import Json, Verbose
from lipstream.console import own_console

train_app = typer.Typer(help="Rebuild the shipped weights.", no_args_is_help=True)


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
            help="Folder of clips of people talking; without it, only synthetic speech.",
        ),
    ] = None,
    hours: Annotated[float, typer.Option(help="Hours of synthetic speech.")] = 17.0,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Steps of the recogniser on real speech; 1050, or 600 with --continue-from."
        ),
    ] = None,
    continue_from: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="encoder.safetensors whose recogniser is trained further.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random generator.")] = 0,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train the encoder on synthetic speech and on real lips."""
    with own_console(verbose) as console:
        from lipstream.calibration.training.encoder.train import TrainingOptions, main
        from lipstream.streaming.files.partial_file import PartialFile

        # Fails ahead of hours of training when the folder cannot be written to.
        output.mkdir(parents=True, exist_ok=True)
        PartialFile(output / "encoder.onnx").discard()
        steps = steps if steps is not None else (1050 if continue_from is None else 600)
        options = TrainingOptions(seed=seed, hours=hours, more_steps=steps)
        with console.progress() as progress:
            report = main(output, data, options=options, report=progress, continued=continue_from)
        accuracy = report["phone_accuracy"]
        sentence = f"{output}: {report['clips']} clips, phone accuracy {accuracy[-1]:.1%} of frames"
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
    """Train the renderer by self-reconstruction of clips."""
    with own_console(verbose) as console:
        from lipstream.calibration.training.renderer.train import RendererTraining, main
        from lipstream.streaming.files.partial_file import PartialFile

        output.mkdir(parents=True, exist_ok=True)
        PartialFile(output / "renderer.onnx").discard()
        options = RendererTraining(seed=seed, steps=steps, rate=rate, device=device)
        with console.progress() as progress:
            report = main(output, data, options=options, report=progress, continued=continue_from)
        sentence = f"{output}: {report['people']} people, {report['steps']} steps"
        console.result(report, json, sentence)
