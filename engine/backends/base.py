"""The backend protocol: named tensors in, named tensors out.

Recurrent state is an ordinary tensor that the caller keeps, so one loaded network serves every
session. A model ships twice, as ONNX for the runtimes and as safetensors for torch and NumPy,
which build the same network from code.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.types import F32

log = logging.getLogger(__name__)

# (backend, architecture) -> "module:function" that builds the network from its safetensors.
_BUILDERS: Final[dict[tuple[str, str], str]] = {
    ("torch", "lipstream-encoder"): "lipstream.engine.encoder_torch:load_network",
    ("numpy", "lipstream-encoder"): "lipstream.engine.encoder_numpy:load_network",
}


class Network(Protocol):
    """A network that is loaded and ready. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """Backend, such as "openvino"."""
        ...

    @property
    def device(self) -> str:
        """What it runs on, such as "CPU"."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in, such as "f32"."""
        ...

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Every input of the model by name to every output by name."""
        ...


@dataclass(frozen=True, slots=True)
class Model:
    """The two files of one model."""

    onnx: Path
    safetensors: Path

    def metadata(self) -> dict[str, str]:
        """The safetensors header's own words; reads a few kB and no weights."""
        with self.safetensors.open("rb") as source:
            (length,) = struct.unpack("<Q", source.read(8))
            header = json.loads(source.read(length))
        return dict(header.get("__metadata__", {}))


def build_from_code(backend: str, model: Model) -> Network:
    """The network that Python code builds from the safetensors.

    Raises: BackendUnavailable when this backend has no code for the model's architecture.
    """
    architecture = model.metadata().get("architecture", "unknown")
    where = _BUILDERS.get((backend, architecture))
    if where is None:
        raise BackendUnavailable(
            f"backend {backend!r} has no code for the architecture {architecture!r} of "
            f"{model.safetensors.name}; use openvino"
        )
    module, function = where.split(":")
    build: Callable[[Path], Network] = getattr(importlib.import_module(module), function)
    return build(model.safetensors)


def _openvino(model: Model, precision: str, threads: int) -> Network:
    from lipstream.engine.backends.openvino import load

    return load(model.onnx, precision=precision, threads=threads)


def _torch(model: Model, precision: str, threads: int) -> Network:
    if precision != "f32":
        raise BackendUnavailable(f"the torch backend computes in f32, not {precision!r}")
    if importlib.util.find_spec("torch") is None:
        raise BackendUnavailable(
            "backend 'torch' was asked for but torch is not installed; "
            "pip install 'lipstream[torch]', or use openvino"
        )
    return build_from_code("torch", model)


def _numpy(model: Model, precision: str, threads: int) -> Network:
    if precision != "f32":
        raise BackendUnavailable(f"the numpy backend computes in f32, not {precision!r}")
    return build_from_code("numpy", model)


def _tensorrt(model: Model, precision: str, threads: int) -> Network:
    from lipstream.engine.backends.tensorrt import load

    network: Network = load(model.onnx, precision=precision)
    return network


_LOADERS: Final[dict[str, Callable[[Model, str, int], Network]]] = {
    "openvino": _openvino,
    "numpy": _numpy,
    "torch": _torch,
    "tensorrt": _tensorrt,
}
BACKENDS: Final = ("auto", *_LOADERS)


def select_backend(name: str, model: Model, precision: str = "f32", threads: int = 1) -> Network:
    """Load `model` on the backend `name`; "auto" takes OpenVINO, else the NumPy twin.

    Raises: BackendUnavailable when the named backend cannot run here, with cause and remedy.
    """
    if name != "auto":
        loader = _LOADERS.get(name)
        if loader is None:
            raise BackendUnavailable(f"got backend {name!r}, expected one of {', '.join(BACKENDS)}")
        return loader(model, precision, threads)
    try:
        network = _openvino(model, precision, threads)
        reason = "fastest on a CPU; a step this small gains nothing from a GPU"
    except BackendUnavailable as error:
        network = _numpy(model, "f32", threads)
        reason = f"openvino is not there: {error}"
    log.info(
        "backend chosen",
        extra={
            "model": model.onnx.name,
            "backend": network.name,
            "device": network.device,
            "precision": network.precision,
            "reason": reason,
        },
    )
    return network
