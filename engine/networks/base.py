"""A loaded model behind named tensors, and the files it is loaded from."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from lipstream.engine.types import F32

FAST: Final = "fast"  # the precision that a backend is fastest in without a visible difference


class Described(Protocol):
    """What computes, as it is shown to people."""

    @property
    def name(self) -> str:
        """Backend, such as "openvino"."""
        ...

    @property
    def device(self) -> str:
        """What it runs on, such as "CPU" or the name of a card."""
        ...

    @property
    def precision(self) -> str:
        """What the model computes in, such as "f32"."""
        ...


class Network(Described, Protocol):
    """A model that is loaded and ready. Safe to call from several threads."""

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Every input of the model by name to every output by name."""
        ...


@dataclass(frozen=True, slots=True)
class Model:
    """The two files of one model."""

    onnx: Path
    safetensors: Path

    def metadata(self) -> dict[str, str]:
        """The metadata of the safetensors header; reads a few kB and no weights."""
        with self.safetensors.open("rb") as source:
            (length,) = struct.unpack("<Q", source.read(8))
            header = json.loads(source.read(length))
        return dict(header.get("__metadata__", {}))

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Least and largest input of each convolution, by the name of its weights, for int8.

        Measured on real examples when the model was exported; empty for a model without them.
        """
        ranges = json.loads(self.metadata().get("ranges", "{}"))
        return {name: (low, high) for name, (low, high) in ranges.items()}
