"""TensorRT. Placeholder until the engine cache lands: always says what is missing."""

from __future__ import annotations

from pathlib import Path

from lipstream.engine.backends.base import Network
from lipstream.engine.errors import BackendUnavailable


def load(onnx: Path, precision: str = "f32") -> Network:
    """Raises: BackendUnavailable."""
    raise BackendUnavailable("backend 'tensorrt' is not built yet; use openvino")
