"""The twin of `kernels.oral_cavity`, and the tables that both draw from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

GRAIN = 32  # a power of two
_f = np.float32


class Cavity(NamedTuple):
    """The oral cavity of one target, in canonical coordinates."""

    teeth: F32  # f32 [2, h, w, 4], upper and lower teeth: RGB in their light, 0 to 255, coverage
    colours: F32  # f32 [5, 3]: tongue, dark, upper and lower lip; loss of light in shadow
    grain: F32  # f32 [GRAIN, GRAIN], of the camera: what it adds to all colours
    # f32 [11]: half the width of the tables, their upper ends (jaw at rest), step between samples;
    # z of the arches in the middle, and how fast it grows with the square of the distance from
    # there; y of the edges of upper and lower teeth; how much brighter it is 0.4 to the right; how
    # far two grains are apart; how much the corners of a wide mouth are rounded off, 0 to 1.
    shape: F32


def paint(cavity: Cavity, motion: F32, points: F32, lips: F32) -> F32:
    """See `oral_cavity.paint`."""
    teeth, colours, grain, shape = cavity
    half, upper_top, lower_top, step, arch_z, curve, upper_edge, lower_edge = shape[:8]
    gradient, apart, corners = shape[8:]
    middle, jaw, light, raised, ray_x, ray_y = motion
    tongue, dark, upper_lip, lower_lip, loss = colours
    x, y = points[:, 0] - middle, points[:, 1]
    roof, floor = lips[:, 0], lips[:, 1]

    # Where the line of sight through a point between the lips meets the arch behind it.
    behind = np.maximum(arch_z + curve * x * x - points[:, 2], _f(0))
    at_x = x + ray_x * behind
    behind = np.maximum(arch_z + curve * at_x * at_x - points[:, 2], _f(0))
    at_x, at_y = x + ray_x * behind, y + ray_y * behind

    # The cavity: dark at the back, cheeks at the sides; the tongue in front, which falls off
    # towards both.
    inner = _f(0.55) + _f(0.45) * light
    side = _smooth((np.abs(at_x) - _f(0.12)) / _f(0.20))
    cheek = tongue * _f(0.55)
    color = _over(np.tile(dark, (len(x), 1)), cheek, side) * inner
    top = lower_edge + jaw - (_f(0.13) + _f(0.09) * raised) + _f(0.5) * (at_x * at_x)
    front = at_y - top
    lit = _f(0.5) + _f(0.6) * _smooth(front / _f(0.24))
    lit *= _f(1) - _f(0.05) * _smooth(_f(1) - np.abs(at_x) / _f(0.05))
    lit *= _f(0.65) + _f(0.35) * _smooth((at_y - upper_edge) / _f(0.10))
    there = _smooth(front / _f(0.08)) * _smooth((_f(0.36) - np.abs(at_x)) / _f(0.16))
    color = _over(color, tongue * (lit * inner)[:, None], there)

    below = _sample(teeth[1], half + at_x, at_y - jaw - lower_top, step)
    outer = _f(0.7) + _f(0.3) * light
    reached = outer * (_f(0.82) + _f(0.22) * _smooth((at_y - upper_edge) / _f(0.08)))
    color = _over(color, below[:, :3] * reached[:, None], below[:, 3])
    above = _sample(teeth[0], half + at_x, at_y - upper_top, step)
    color = _over(color, above[:, :3] * outer, above[:, 3])

    tall = floor - roof
    shade = lip_shade(y, roof, floor)
    color = color * (shade[:, None] * (_f(1) - (_f(1) - shade)[:, None] * loss))

    # The wet inside of the lips, which turns away into the mouth: a gap ends in it, in no line.
    # Lips that almost touch light one another.
    rim = _f(1) - _smooth((y - roof) / np.minimum(_f(0.018), _f(0.3) * tall + _f(1e-4)))
    thin = _f(1) - _smooth(tall / _f(0.10))
    color = _over(color, upper_lip * _f(0.66), _f(0.8) * np.maximum(rim, thin))
    rim = _f(1) - _smooth((floor - y) / np.minimum(_f(0.045), _f(0.4) * tall + _f(1e-4)))
    wet = _f(0.7) + _f(0.25) * _smooth(tall / _f(0.12))
    wet *= _f(1) - _f(0.3) * side
    color = _over(color, lower_lip * wet[:, None], _f(0.9) * rim)

    # In the corners of a wide mouth the flesh that joins the lips rounds the gap off.
    off = (_f(2) * y - roof - floor) / np.maximum(tall, _f(1e-4))
    joined = _f(1) - _smooth((tall * (_f(1) - _f(0.4) * (off * off)) - _f(0.025)) / _f(0.075))
    flesh = _f(0.31) - _f(0.055) * _smooth(tall / _f(0.09))
    web = (upper_lip + lower_lip) * flesh[:, None]
    color = _over(color, web, corners * light * joined)
    aside = np.clip(at_x / _f(0.4), _f(-1), _f(1))
    color = color * (_f(1) + gradient * aside)[:, None]
    column, row = (np.floor(a / apart).astype(np.int32) % GRAIN for a in (at_x, at_y))
    return np.asarray(color + grain[row, column][:, None], np.float32)


def lip_shade(y: F32, roof: F32, floor: F32) -> F32:
    """See `oral_cavity.lip_shade`."""
    shade = (_f(0.5) + _f(0.5) * _smooth((y - roof) / _f(0.08))) * (
        _f(0.88) + _f(0.12) * _smooth((floor - y) / _f(0.03))
    )
    return np.asarray(
        shade * (_f(0.65) + _f(0.35) * _smooth((floor - roof) / _f(0.08))), np.float32
    )


def _smooth(x: F32) -> F32:
    t = np.clip(x, _f(0), _f(1))
    return np.asarray(t * t * (_f(3) - _f(2) * t), np.float32)


def _over(below: F32, color: F32, alpha: F32) -> F32:
    return below + alpha[:, None] * (color - below)


def _sample(table: F32, across: F32, down: F32, step: np.float32) -> F32:
    """Bilinear, f32 [n, 4]; beyond the border of f32 [h, w, 4] it repeats."""
    rows, columns = table.shape[:2]
    u = np.clip(across / step, _f(0), _f(columns - 1))
    v = np.clip(down / step, _f(0), _f(rows - 1))
    left, top = (
        np.minimum(u.astype(np.int32), columns - 2),
        np.minimum(v.astype(np.int32), rows - 2),
    )
    a, b = (u - left.astype(np.float32))[:, None], (v - top.astype(np.float32))[:, None]
    first = table[top, left] + a * (table[top, left + 1] - table[top, left])
    second = table[top + 1, left] + a * (table[top + 1, left + 1] - table[top + 1, left])
    return first + b * (second - first)
