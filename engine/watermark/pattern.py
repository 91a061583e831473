"""The pattern: a sum of waves whose phases the key and the session id choose.

A picture is measured in units of the root of its area over 512, so the pattern scales with the
picture. It repeats every 256 units. Its waves are 6 to 16 units long (11 to 30 px at 1280x720):
shorter ones die in a codec at low rates, longer ones drown in the picture. A quarter of the waves
is for synchronisation, the same in every mark; each of the others carries two signs of the code.

The key is public: this mark is for disclosure, and whoever has this package may look for it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.types import F32
from lipstream.engine.watermark import code

C64 = NDArray[np.complex64]

KEY: Final = b"lipstream watermark 1"
PERIOD: Final = 256  # units
SHORTEST: Final = 6.0  # units
LONGEST: Final = 16.0
_UNITS: Final = 512  # that a square picture measures
_ONE: Final = 2.0**16  # of cosines as whole numbers
_SMALLEST_UNIT_PX: Final = 0.5  # a wave of 6 units has at least 3 px


class Waves(NamedTuple):
    """The waves of every mark, in the order of their lengths, mixed by the key."""

    down: NDArray[np.int64]  # i64 [waves], periods in 256 units, 0 to `HIGHEST`
    across: NDArray[np.int64]  # i64 [waves], the same, -HIGHEST to HIGHEST
    is_sync: NDArray[np.bool_]  # bool [waves]
    phase: C64  # c64 [waves], of the mark whose code word is all ones; magnitude 1
    places: NDArray[np.int64]  # i64 [waves not sync, 2], of the code word, for real and imaginary


HIGHEST: Final = int(PERIOD / SHORTEST)


def unit_px(h: int, w: int) -> float:
    """Pixels in a unit of a picture."""
    return max(float(np.sqrt(h * w)) / _UNITS, _SMALLEST_UNIT_PX)


@cache
def waves() -> Waves:
    """Made once; the arrays are not to be changed."""
    down, across = np.mgrid[0 : HIGHEST + 1, -HIGHEST : HIGHEST + 1].reshape(2, -1)
    radius = np.hypot(down, across)
    half = (down > 0) | (across > 0)  # a real pattern has the other half mirrored
    inside = half & (radius >= PERIOD / LONGEST) & (radius <= PERIOD / SHORTEST)
    order = np.flatnonzero(inside)[np.argsort(radius[inside], kind="stable")]
    order = order[: len(order) // 4 * 4]
    count = len(order)
    # One of each four waves of about the same length.
    is_sync = (_random("sync", count).reshape(-1, 4).argsort(axis=1, kind="stable") == 0).ravel()
    signs = 1.0 - 2.0 * (_random("signs", 2 * count).reshape(-1, 2) & 1)
    phase = (signs[:, 0] + 1j * signs[:, 1]) / np.sqrt(2)
    slots = 2 * int((~is_sync).sum())
    places = np.arange(slots) % code.LENGTH
    for first in range(0, slots, code.LENGTH):  # each round through the places in another order
        part = places[first : first + code.LENGTH]
        part[:] = part[_random(f"places {first}", len(part)).argsort(kind="stable")]
    return Waves(
        down[order], across[order], is_sync, phase.astype(np.complex64), places.reshape(-1, 2)
    )  # fmt: skip


def _random(name: str, count: int) -> NDArray[np.int64]:
    """Numbers of 32 bits that the key gives for this purpose, i64 [count]."""
    digest = hashlib.shake_256(KEY + b"/" + name.encode()).digest(4 * count)
    return np.frombuffer(digest, ">u4").astype(np.int64)


def coefficients(session: int) -> C64:
    """Phases of the session's waves, c64 [waves], magnitude 1."""
    found = waves()
    signs = 2.0 * code.encode(session)[found.places] - 1
    phase = found.phase.copy()
    own = phase[~found.is_sync]
    phase[~found.is_sync] = own.real * signs[:, 0] + 1j * own.imag * signs[:, 1]
    return phase


def plane(session: int, h: int, w: int) -> F32:
    """The session's pattern for a picture of this size, f32 [h, w]; its root mean square is 1.

    The same to the bit whatever adds the waves up, on however many threads: all sums are of whole
    numbers that double precision holds exactly.
    """
    found, unit = waves(), unit_px(h, w)
    spectrum = np.zeros((HIGHEST + 1, 2 * HIGHEST + 1), np.complex128)
    signs = np.rint(coefficients(session) * np.sqrt(2))  # ±1 ± i
    spectrum[found.down, found.across + HIGHEST] = signs
    turns = 2 * np.pi / PERIOD / unit
    x = np.outer(np.arange(-HIGHEST, HIGHEST + 1), np.arange(w) + 0.5) * turns
    y = np.outer(np.arange(h) + 0.5, np.arange(HIGHEST + 1)) * turns
    rows = spectrum @ np.rint(_ONE * np.exp(1j * x))
    made = np.rint(_ONE * np.cos(y)) @ rows.real - np.rint(_ONE * np.sin(y)) @ rows.imag
    return (made / (_ONE * _ONE * np.sqrt(len(found.down)))).astype(np.float32)
