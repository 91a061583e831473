"""Which models ship, which backends there are, and which of them `auto` takes.

Recurrent state is an ordinary tensor that the caller keeps, so one loaded model serves every
session. A model ships twice: as ONNX for the runtimes, and as safetensors for the backends that
build it from code.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Final

from lipstream.engine.errors import AssetError, BackendUnavailable, UsageError
from lipstream.engine.extras import pip_install
from lipstream.engine.networks.base import FAST, Model, Network

log = logging.getLogger(__name__)

# (backend, architecture) -> "module:function" that builds the network from its safetensors.
_BUILDERS: Final[dict[tuple[str, str], str]] = {
    ("native", "lipstream-encoder"): "lipstream.engine.networks.encoder_native:load_network",
    ("native", "lipstream-renderer"): "lipstream.engine.networks.renderer_native:load_network",
    ("torch", "lipstream-encoder"): "lipstream.engine.networks.encoder_torch:load_network",
    ("torch", "lipstream-renderer"): "lipstream.engine.networks.renderer_torch:load_network",
    ("numpy", "lipstream-encoder"): "lipstream.engine.networks.encoder_numpy:load_network",
}


def shipped(name: str) -> Model:
    """The weights inside the package: "encoder" or "renderer".

    Raises: AssetError where the package lacks one of the two files.
    """
    folder = Path(str(files("lipstream.engine.weights")))
    model = Model(folder / f"{name}.onnx", folder / f"{name}.safetensors")
    for path in (model.onnx, model.safetensors):
        if not path.is_file():
            raise AssetError(f"{path.name} is missing from the package; reinstall lipstream")
    return model


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
    build: Callable[[Model], Network] = getattr(importlib.import_module(module), function)
    return build(model)


def _openvino(model: Model, precision: str) -> Network:
    from lipstream.engine.networks.openvino import load

    return load(model.onnx, precision, model.ranges())


def _native(model: Model, precision: str) -> Network:
    network = build_from_code("native", model)
    if precision not in (network.precision, FAST):
        raise BackendUnavailable(
            f"the native backend computes {model.safetensors.stem} in {network.precision}, "
            f"not {precision!r}"
        )
    return network


def _native_where_fastest(model: Model, precision: str) -> Network:
    # By name it runs on any CPU with AVX2. With AVX-512 OpenVINO's int8 and bfloat16 are faster
    # wherever the precision may be reduced.
    from lipstream.kernels.convolution import has_wider_simd
    from lipstream.kernels.dispatch import use_native

    if precision == FAST and use_native() and has_wider_simd():
        raise BackendUnavailable("this processor has AVX-512, which our kernels do not use")
    return _native(model, precision)


def _torch(model: Model, precision: str) -> Network:
    if importlib.util.find_spec("torch") is None:
        raise BackendUnavailable(
            "backend 'torch' was asked for but torch is not installed; "
            f"{pip_install('torch')}, or use openvino"
        )
    import torch

    network = build_from_code("torch", model)
    network.move("cuda" if torch.cuda.is_available() else "cpu", precision)  # type: ignore[attr-defined]
    return network


def _numpy(model: Model, precision: str) -> Network:
    if precision not in ("f32", FAST):
        raise BackendUnavailable(f"the numpy backend computes in f32, not {precision!r}")
    return build_from_code("numpy", model)


def _tensorrt(model: Model, precision: str) -> Network:
    from lipstream.engine.networks.tensorrt import load

    network: Network = load(model, precision=precision)
    return network


_LOADERS: Final[dict[str, Callable[[Model, str], Network]]] = {
    "openvino": _openvino,
    "native": _native,
    "numpy": _numpy,
    "torch": _torch,
    "tensorrt": _tensorrt,
}
BACKENDS: Final = ("auto", *_LOADERS)
# In this order; the text is the reason that the log gives.
_AUTO: Final[dict[str, tuple[Callable[[Model, str], Network], str]]] = {
    "native": (_native_where_fastest, "our kernels are written for these models"),
    "openvino": (_openvino, "in bf16 where the CPU has it, else in int8, else in f32"),
    "numpy": (_numpy, "runs anywhere"),
}


def select_backend(name: str, model: Model, precision: str = "f32") -> Network:
    """Load `model` on the backend `name`; "auto" takes our kernels, else OpenVINO, else NumPy.

    Raises:
        UsageError: no backend has this name.
        BackendUnavailable: the named backend cannot run here; with cause and remedy.
    """
    if name != "auto":
        loader = _LOADERS.get(name)
        if loader is None:
            raise UsageError(f"got backend {name!r}, expected one of {', '.join(BACKENDS)}")
        return loader(model, precision)
    reasons: list[str] = []
    for load, why in _AUTO.values():
        try:
            network = load(model, precision)
        except BackendUnavailable as error:
            reasons.append(str(error))
        else:
            reasons.insert(0, why)
            break
    else:
        raise BackendUnavailable("; ".join(reasons))
    log.info(
        "backend chosen",
        extra={
            "model": model.onnx.name,
            "backend": network.name,
            "device": network.device,
            "precision": network.precision,
            "reason": "; ".join(reasons),
        },
    )
    return network
