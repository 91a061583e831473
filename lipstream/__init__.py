"""A real-time streaming lip-sync engine.

Calibrate a person's footage once; then any live voice drives their lips, with a bounded and
stated delay.

    engine = lipstream.Engine(lipstream.load_target("me.target"), profile="live")
    session = engine.session()
    for chunk in microphone:
        for frame in session.push(chunk):
            show(frame)

The names below are imported on first use: `import lipstream` loads no library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lipstream.engine.errors import (
        AssetError,
        BackendUnavailable,
        CalibrationError,
        LipstreamError,
        MediaError,
        TargetError,
        UsageError,
    )
    from lipstream.engine.pipeline import Engine, Session
    from lipstream.engine.target.bundle import Target, load_target
    from lipstream.engine.types import (
        AudioChunk,
        Expression,
        Lips,
        VideoFrame,
    )

__version__ = "0.1.0"

_HOMES = {
    "AssetError": "lipstream.engine.errors",
    "BackendUnavailable": "lipstream.engine.errors",
    "CalibrationError": "lipstream.engine.errors",
    "LipstreamError": "lipstream.engine.errors",
    "MediaError": "lipstream.engine.errors",
    "TargetError": "lipstream.engine.errors",
    "UsageError": "lipstream.engine.errors",
    "Engine": "lipstream.engine.pipeline",
    "Session": "lipstream.engine.pipeline",
    "Target": "lipstream.engine.target.bundle",
    "load_target": "lipstream.engine.target.bundle",
    "AudioChunk": "lipstream.engine.types",
    "Expression": "lipstream.engine.types",
    "Lips": "lipstream.engine.types",
    "VideoFrame": "lipstream.engine.types",
}

__all__ = [
    "AssetError",
    "AudioChunk",
    "BackendUnavailable",
    "CalibrationError",
    "Engine",
    "Expression",
    "Lips",
    "LipstreamError",
    "MediaError",
    "Session",
    "Target",
    "TargetError",
    "UsageError",
    "VideoFrame",
    "__version__",
    "load_target",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lipstream' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
