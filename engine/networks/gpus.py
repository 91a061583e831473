"""NVIDIA GPUs, by the driver itself: no other library is needed, or believed."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Final

from lipstream.engine.errors import BackendUnavailable

_DRIVER: Final = "libcuda.so.1"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card."""

    name: str
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Gpus:
    """What the driver tells."""

    cards: tuple[Gpu, ...]
    cuda: tuple[int, int]  # the newest CUDA that the driver serves


def find_gpus(driver: Any = None) -> Gpus:
    """The cards of this machine. `driver`: the driver API's library; None: the system's.

    Raises: BackendUnavailable without a driver or a card; with the driver's own error number.
    """
    if driver is None:
        try:
            driver = ctypes.CDLL(_DRIVER)
        except OSError as error:
            raise BackendUnavailable("there is no NVIDIA driver") from error
    number, version = ctypes.c_int(), ctypes.c_int()
    failure = driver.cuInit(0) or driver.cuDriverGetVersion(ctypes.byref(version))
    failure = failure or driver.cuDeviceGetCount(ctypes.byref(number))
    if failure:
        raise BackendUnavailable(f"the NVIDIA driver finds no GPU (CUDA error {failure})")
    cards = tuple(_card(driver, index) for index in range(number.value))
    if not cards:
        raise BackendUnavailable("the NVIDIA driver finds no GPU")
    return Gpus(cards, (version.value // 1000, version.value % 1000 // 10))


def _card(driver: Any, index: int) -> Gpu:
    name = ctypes.create_string_buffer(128)
    driver.cuDeviceGetName(name, len(name), index)
    sides = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, index)
        sides.append(value.value)
    return Gpu(name.value.decode(errors="replace"), (sides[0], sides[1]))
