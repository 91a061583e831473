"""What `lipstream doctor` says of GPUs: "ok" is what would run, not what is installed."""

from __future__ import annotations

import importlib
import importlib.util
from importlib import metadata
from typing import Final

from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.networks.gpus import Gpus, find_gpus
from lipstream.engine.networks.tensorrt_plan import library
from lipstream.kernels.cuda import loader

ON_A_CARD: Final = ("tensorrt", "cuda", "torch")
# Of RTX 1.7, less 7.5: the encoder is in f32, and there are no products of f32 there.
RTX_CAPABILITIES: Final = ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1))

# Whether it would run, what was found, and what to do.
Finding = tuple[bool, str, str]


def driver() -> Finding:
    """The driver and its cards."""
    try:
        gpus = find_gpus()
    except BackendUnavailable as error:
        return False, str(error), "install NVIDIA's driver where there is a card"
    cards = ", ".join(f"{card.name} ({_dotted(card.capability)})" for card in gpus.cards)
    return True, f"{cards}; the driver serves CUDA {_dotted(gpus.cuda)}", ""


def tensorrt() -> Finding:
    """TensorRT, or TensorRT for RTX: imported, and asked whether it knows the first card."""
    try:
        found = library()
    except BackendUnavailable as error:
        return False, "not installed", str(error).partition("; ")[2]
    name = f"{found.__name__} {found.__version__}"
    gpus, why = _gpus()
    if gpus is None:
        return False, f"{name}: {why}", "nothing: plans can be built here, but not run"
    capability = gpus.cards[0].capability
    if found.__name__ == "tensorrt_rtx" and capability not in RTX_CAPABILITIES:
        cause = f"{name} does not run on capability {_dotted(capability)}"
        return False, cause, "pip install 'lipstream[gpu]', or --backend torch"
    return True, f"{name} on {gpus.cards[0].name}", ""


def torch() -> Finding:
    """torch: on the first card where it sees one, else on the CPU."""
    if importlib.util.find_spec("torch") is None:
        return False, "not installed", "pip install 'lipstream[torch]'"
    import torch as module

    name = f"torch {module.__version__}"
    if module.cuda.is_available():
        return True, f"{name} on {module.cuda.get_device_name()}", ""
    built = f"built for CUDA {module.version.cuda}" if module.version.cuda else "built for the CPU"
    return True, f"{name} on the CPU ({built})", ""


def pycuda() -> Finding:
    """pycuda: its import loads the driver, and our kernels are loaded as `--backend cuda` does."""
    remedy = "pip install 'lipstream[cuda]', which needs NVIDIA's CUDA toolkit"
    try:
        name = f"pycuda {metadata.version('pycuda')}"
    except metadata.PackageNotFoundError:
        return False, "not installed", remedy
    try:
        loader.load()
    except BackendUnavailable as error:
        return False, f"{name}: {error}", "install NVIDIA's driver where there is a card"
    return True, f"{name}, with our kernels", ""


def backends() -> Finding:
    """Which `--backend` would paint on the first card, and why the others would not."""
    gpus, why = _gpus()
    if gpus is None:
        return False, f"none runs on a card: {why}", "nothing: auto runs on the CPU"
    runs, fails = [], []
    for name in ON_A_CARD:
        cause = _why_not(name)
        if cause:
            fails.append(f"not {name}: {cause}")
        else:
            runs.append(name)
    card = gpus.cards[0].name
    found = f"--backend {' or '.join(runs)} on {card}" if runs else f"none runs on {card}"
    remedy = "" if runs else "pip install 'lipstream[torch]', with torch's CUDA wheels"
    return bool(runs), "; ".join([found, *fails]), remedy


def _why_not(backend: str) -> str:
    """Why a backend would not run on the first card; empty where it would."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch as module

    if not module.cuda.is_available():
        return f"torch {module.__version__} sees no card"
    if backend == "torch":
        return ""
    runs, found, _ = {"tensorrt": tensorrt, "cuda": pycuda}[backend]()
    return "" if runs else found


def _gpus() -> tuple[Gpus | None, str]:
    try:
        return find_gpus(), ""
    except BackendUnavailable as error:
        return None, str(error)


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
