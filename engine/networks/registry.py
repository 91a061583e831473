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
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, cast

from lipstream.engine.errors import AssetError, BackendUnavailable, UsageError
from lipstream.engine.extras import pip_install
from lipstream.engine.networks.base import FAST, Model, Network
from lipstream.engine.networks.gpus import find_gpus
from lipstream.engine.networks.stage import StageExecutor
from lipstream.engine.networks.stage_cpu import CpuStage

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
    return _torch_network(
        model, precision, "cuda" if _torch_module("torch").cuda.is_available() else "cpu"
    )


def _torch_module(backend: str) -> Any:
    if importlib.util.find_spec("torch") is None:
        raise BackendUnavailable(
            f"backend {backend!r} was asked for but torch is not installed; "
            f"{pip_install('torch')}, or use openvino"
        )
    return importlib.import_module("torch")


def _torch_network(model: Model, precision: str, device: str) -> Any:
    network: Any = build_from_code("torch", model)
    network.move(device, precision)
    return network


def _numpy(model: Model, precision: str) -> Network:
    if precision not in ("f32", FAST):
        raise BackendUnavailable(f"the numpy backend computes in f32, not {precision!r}")
    return build_from_code("numpy", model)


def _tensorrt(model: Model, precision: str) -> Network:
    from lipstream.engine.networks.tensorrt import load

    network: Network = load(model, precision=precision)
    return network


def _cuda(model: Model, precision: str) -> Network:
    from lipstream.kernels.cuda import loader

    if not _torch_module("cuda").cuda.is_available():
        raise BackendUnavailable(
            "backend 'cuda' needs an NVIDIA GPU that torch can see; `lipstream doctor` says what "
            "is there"
        )
    loader.load()  # raises, with the reason, where the kernels would not run
    if model.metadata().get("architecture") == "lipstream-encoder":
        # A step is one row: its launches alone would take longer than our kernels do.
        network, reason = auto_backend(model, precision)
        log.info("the encoder stays on the CPU", extra={"backend": network.name, "reason": reason})
        return network
    on_card = _torch_network(model, precision, "cuda")
    on_card.name = "cuda"
    return cast(Network, on_card)


_LOADERS: Final[dict[str, Callable[[Model, str], Network]]] = {
    "openvino": _openvino,
    "native": _native,
    "numpy": _numpy,
    "torch": _torch,
    "cuda": _cuda,
    "tensorrt": _tensorrt,
}
BACKENDS: Final = ("auto", *_LOADERS)
IN_BATCHES: Final = ("torch", "cuda", "tensorrt")  # for NVIDIA cards; torch for the CPU too
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
    network, reason = auto_backend(model, precision)
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


def auto_backend(model: Model, precision: str = "f32") -> tuple[Network, str]:
    """What "auto" takes, and why. Raises: BackendUnavailable where nothing runs."""
    reasons: list[str] = []
    for load, why in _AUTO.values():
        try:
            network = load(model, precision)
        except BackendUnavailable as error:
            reasons.append(str(error))
        else:
            return network, "; ".join([why, *reasons, *_cards_left_alone()])
    raise BackendUnavailable("; ".join(reasons))


@cache
def _cards_left_alone() -> tuple[str, ...]:
    """Why "auto" leaves the card of this machine alone, where there is one."""
    try:
        card = find_gpus().cards[0].name
    except BackendUnavailable:
        return ()
    return (
        f"{card} is left alone until frames were measured on a card: {', '.join(IN_BATCHES)} "
        "take it when they are asked for",
    )


def load_stage(network: Network, crop_shape: tuple[int, int]) -> StageExecutor | None:
    """What refines rows of several sessions with this network; None for the CPU's backends.

    Raises: BackendUnavailable when the device cannot run it.
    """
    if network.name not in IN_BATCHES:
        return None
    if network.device == "cpu":  # torch's
        return CpuStage(network, crop_shape)
    from lipstream.engine.networks.stage_device import DeviceNetwork, load

    return load(cast(DeviceNetwork, network), crop_shape)
