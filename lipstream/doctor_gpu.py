"""What `lipstream doctor` says of GPUs: "ok" is what would run, not what is installed."""

from __future__ import annotations

import importlib
import importlib.util
from importlib import metadata
from typing import Final

from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.networks.gpus import Gpus, find_gpus
from lipstream.engine.networks.tensorrt_plan import library

RTX_CAPABILITIES: Final = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))  # of RTX 1.7

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
    """pycuda: its import loads the driver, so that it fails where there is none."""
    remedy = "pip install 'lipstream[cuda]', which needs NVIDIA's CUDA toolkit"
    try:
        name = f"pycuda {metadata.version('pycuda')}"
    except metadata.PackageNotFoundError:
        return False, "not installed", remedy
    try:
        importlib.import_module("pycuda.driver").init()
    except Exception as error:  # ImportError without a driver, pycuda's own without a card
        return False, f"{name}: {error}", "install NVIDIA's driver where there is a card"
    return True, name, ""


def _gpus() -> tuple[Gpus | None, str]:
    try:
        return find_gpus(), ""
    except BackendUnavailable as error:
        return None, str(error)


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
