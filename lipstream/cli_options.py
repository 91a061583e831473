"""Options that several commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Show messages of libraries, and tracebacks of errors."),
]
# Text: a path would lose one of the slashes of a URL.
_TARGET = typer.Argument(metavar="TARGET", help="NAME.target, made by calibrate; or its URL.")
TargetArgument = Annotated[str, _TARGET]
TargetOrNone = Annotated[str | None, _TARGET]
Profile = Annotated[str, typer.Option(help="low, live or studio: 40, 120 or 400 ms of delay.")]
FileProfile = Annotated[
    str,
    typer.Option(
        help="file: the lips are computed from the whole sound; low, live, studio: as in a call "
        "with 40, 120 or 400 ms of delay."
    ),
]
Renderer = Annotated[
    str,
    typer.Option(
        help="The model that refines mouths: auto (if it can run here), network (always), none."
    ),
]
CropResolution = Annotated[
    int,
    typer.Option(help="Size of the refined crop, px: 256; 384 or 512 for large, sharp faces."),
]
VideoOutput = Annotated[
    Path, typer.Option("--output", "-o", help="Video to write: NAME.mp4, .mov, .mkv or .webm.")
]
Backend = Annotated[
    str,
    typer.Option(
        help="What runs the models: auto (on the CPU), openvino, native, numpy; on an NVIDIA card "
        "tensorrt, cuda (our kernels), torch (also on the CPU)."
    ),
]
Label = Annotated[
    str,
    typer.Option(
        metavar="corner|bar|off:REASON",
        help='The visible label: "AI" in the upper right corner, a bar, or none for a REASON.',
    ),
]
NoWatermark = Annotated[
    str | None,
    typer.Option(
        "--no-watermark",
        metavar="REASON",
        help="Leave out the invisible watermark. A file's manifest records the reason.",
    ),
]
Sign = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        "--sign",
        metavar="CERT KEY",
        help="Sign the file's C2PA manifest with this certificate chain and key, PEM. Default: a "
        "key that is made on first use and kept.",
    ),
]
