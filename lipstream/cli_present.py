"""`lipstream present`: microphone to window or virtual camera."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipstream.cli_bench import Json, Verbose
from lipstream.console import own_console

if TYPE_CHECKING:
    from lipstream.console import Console
    from lipstream.streaming.screens import Screen

DEVICE_HELP = "number, name, part of a name, or default."


def present(
    target: Annotated[
        Path | None, typer.Argument(metavar="TARGET", help="NAME.target, made by calibrate.")
    ] = None,
    microphone: Annotated[
        str, typer.Option("--input", help=f"Microphone: {DEVICE_HELP}")
    ] = "default",
    loudspeaker: Annotated[
        str | None,
        typer.Option("--output", help=f"Play the voice in time with the picture: {DEVICE_HELP}"),
    ] = None,
    camera: Annotated[
        bool, typer.Option("--camera", help="Show on a virtual camera; with --window on both.")
    ] = False,
    camera_device: Annotated[
        str | None, typer.Option(help="Which virtual camera, as /dev/video2.")
    ] = None,
    window: Annotated[
        bool, typer.Option("--window", help="Show in a window, as without --camera.")
    ] = False,
    fullscreen: Annotated[bool, typer.Option("--fullscreen", help="Fill the screen.")] = False,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", help="Tell which devices there are, and leave.")
    ] = False,
    seconds: Annotated[float | None, typer.Option(help="Leave after so long.", min=0.1)] = None,
    profile: Annotated[
        str, typer.Option(help="low, live or studio: 40, 120 or 400 ms of delay.")
    ] = "live",
    backend: Annotated[
        str, typer.Option(help="What runs the networks: auto, openvino, numpy, torch, tensorrt.")
    ] = "auto",
    renderer: Annotated[
        str, typer.Option(help="Mend mouths by the network: auto, network, none.")
    ] = "auto",
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Speak as a target: microphone in, window or virtual camera out."""
    with own_console(verbose) as console, ExitStack() as stack:
        if list_devices:
            return _list(console, json)
        if target is None:
            raise typer.BadParameter("expected NAME.target (or --list-devices)")

        from lipstream.engine.pipeline import Engine
        from lipstream.engine.target import load_target
        from lipstream.streaming.present import PresentOptions
        from lipstream.streaming.present import present as go
        from lipstream.streaming.screens import Camera, Window

        loaded = load_target(target)
        screens: list[Screen] = []
        size = (loaded.width, loaded.height)
        if camera or camera_device is not None:
            virtual = Camera(*size, float(loaded.fps), camera_device)
            stack.callback(virtual.close)
            screens.append(virtual)
            console.note(f"on the camera {virtual.name!r}")
        if window or fullscreen or not screens:
            shown = Window(f"{target.stem} — synthetic picture", *size, fullscreen)
            stack.callback(shown.close)
            screens.append(shown)
            console.note("Esc closes, F fills the screen, M mutes, space drops what is being said")
        engine = Engine(loaded, profile, backend, "matched", renderer)
        options = PresentOptions(microphone, loudspeaker, seconds, console.note)
        report = {
            "target": target.stem,
            "profile": profile,
            "backend": engine.backend,
            **go(engine, screens, options),
        }
        sentence = (
            f"{report['frames']} frames in {report['seconds']:.0f} s ({report['fps']:.2f} fps), "
            f"{report['delay_ms']:.0f} ms behind the voice"
        )
        console.result(report, json, sentence)


def _list(console: Console, json: bool) -> None:
    from lipstream.streaming.sound_card import devices

    listed = devices()
    lines = [
        f"{d.index:3}  {d.inputs:2} in {d.outputs:2} out  {d.rate_hz:6.0f} Hz  {d.name} ({d.api})"
        + (", default input" if d.default_input else "")
        + (", default output" if d.default_output else "")
        for d in listed
    ]
    told = "\n".join(lines) or "no sound device at all"
    console.result({"devices": [asdict(device) for device in listed]}, json, told)
    return None
