"""Writes a trained encoder as safetensors, and as an ONNX graph whose weights lie in that file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.training.encoder.onnx_graph import encoder_onnx
from lipstream.engine.networks.signatures import LOOK_AHEADS_MS
from lipstream.engine.types import F32

if TYPE_CHECKING:
    from lipstream.engine.networks.encoder_torch import EncoderNet

_LEVELS: Final = 127  # of an 8-bit weight on either side of 0


def save_encoder(net: EncoderNet, folder: Path, notes: Mapping[str, str]) -> None:
    """Write encoder.safetensors and encoder.onnx into `folder`; `notes` go into the header."""
    from safetensors.numpy import save_file

    weights = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    metadata = {
        "architecture": "lipstream-encoder",
        "state_widths": str(net.size.head),
        "coefficients": str(net.size.coefficients),
        "phones": str(net.size.phones),
        **notes,
    }
    path = folder / "encoder.safetensors"
    save_file(stored(weights), str(path), metadata=metadata)
    path.chmod(0o644)
    (folder / "encoder.onnx").write_bytes(encoder_onnx(path).SerializeToString())


def stored(weights: Mapping[str, F32]) -> dict[str, NDArray[Any]]:
    """EncoderNet's parameters by name in the form that ships.

    Matrices of the listener are integers of 8 bits with one scale a row, what else it has is f32,
    and the heads are halves; those for whole files are named "file.…".
    """
    tensors: dict[str, NDArray[Any]] = {"look_aheads_ms": np.array(LOOK_AHEADS_MS, np.int32)}
    for name, value in weights.items():
        if name.startswith("listener."):
            name = name.removeprefix("listener.")
            if value.ndim == 2:
                scale, rows = quantised(value)
                tensors[name.removesuffix("weight") + "scale"], tensors[name] = scale, rows
            else:
                tensors[name] = np.ascontiguousarray(value, np.float32)
        else:
            name = name.replace("taps.", "tap").replace("file_", "file.")
            tensors[name] = np.ascontiguousarray(value, np.float16)
    return tensors


def quantised(weight: F32) -> tuple[F32, NDArray[np.int8]]:
    """f32 [outputs, inputs] as a scale f32 [outputs] and integers i8 [outputs, inputs]."""
    scale = (np.abs(weight).max(1) / _LEVELS + 1e-12).astype(np.float32)
    return scale, np.rint(weight / scale[:, None]).astype(np.int8)
