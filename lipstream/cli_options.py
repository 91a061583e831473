"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show what libraries say, and where errors arise.")
]
Profile = Annotated[str, typer.Option(help="low, live or studio: 40, 120 or 400 ms of delay.")]
Renderer = Annotated[
    str, typer.Option(help="Mend mouths by the network: auto (where it can run), network, none.")
]
CropResolution = Annotated[
    int, typer.Option(help="Of the renderer's crop, px: 256; 384 or 512 for large, sharp faces.")
]
Backend = Annotated[
    str,
    typer.Option(help="What runs the networks: auto, openvino, native, numpy, torch, tensorrt."),
]
