"""Paints the eyes of a photo: a lid that slides over the eye, and an iris that moves within it.

The lid is made of the photo's own pixels. The strip of lashes at the upper margin slides down as it
is; what opens between it and the crease is the skin above the crease, run together with the skin
below the eye. Only the opening between the lids moves with the gaze: lids and lashes stay.
Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lipstream.calibration.media.color import LUMA
from lipstream.engine.face.mesh import smoothstep
from lipstream.engine.face.model import LEFT_EYE, RIGHT_EYE
from lipstream.engine.types import F32, U8
from lipstream.kernels.mesh import remap

# Upper lid, lower lid, crease and lower edge of the brow, from the eye's one corner to the other,
# and the five landmarks of the iris; of the eye on the image's left and on its right.
_UPPER: Final = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133),
    (362, 398, 384, 385, 386, 387, 388, 466, 263),
)
_LOWER: Final = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133),
    (362, 382, 381, 380, 374, 373, 390, 249, 263),
)
_CREASE: Final = ((247, 30, 29, 27, 28, 56, 190), (414, 286, 258, 257, 259, 260, 467))
_BROW: Final = ((46, 53, 52, 65, 55), (285, 295, 282, 283, 276))
_IRIS: Final = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))
_IRIS_RADIUS: Final = 0.21  # of the width of the eye, where the iris is not tracked
_LASHES: Final = (0.45, 0.95)  # of the way to the crease: they slide whole, and not at all
_EDGE_PX: Final = 0.9  # half the width of the soft edge of a lid
_SHADOW: Final = 0.3  # of the lid on the eyeball
_SKIN_ABOVE: Final = (-0.05, 0.05, 0.15, 0.25)  # of the way from the crease to the brow
_SKIN_BELOW: Final = (0.10, 0.13, 0.16)  # eye widths below the lower lid


@dataclass(frozen=True, slots=True)
class _Eye:
    """One eye in a box of the photo; curves are rows of the box, one for each column."""

    left: int  # of the box in the photo, px
    top: int
    rgb: U8  # u8 [h, w, 3], the box
    upper: F32  # f32 [w], margin of the upper lid, px
    lower: F32  # f32 [w], of the lower lid
    crease: F32  # f32 [w]
    skin: F32  # f32 [h, w, 3], of the lowered lid
    beyond: np.float32  # px that a closed lid reaches over the lower margin
    lash_line: float  # px that the darkest line of the lashes lies above `upper`
    ends: F32  # f32 [w], 1 between the corners, 0 at and beyond them
    follow: F32  # f32 [w], 1 at the iris and 0 at the corners: how far a column moves with the gaze
    room: float  # px that the iris can move to either side


class EyePainter:
    """The eyes of one photo; what it paints depends on nothing but its arguments."""

    def __init__(self, photo: U8, landmarks: F32) -> None:
        """`photo` u8 [h, w, 3]; `landmarks` f32 [≥468, 3], px: with 478 the irises are known."""
        left, right = (landmarks[list(eye), :2].mean(0) for eye in (LEFT_EYE, RIGHT_EYE))
        self._scale = float(np.linalg.norm(right - left))
        self._eyes = [e for side in (0, 1) if (e := _eye(photo, landmarks, side, self._scale))]
        self._recent: dict[tuple[float, float, float], list[U8]] = {}

    def paint(self, onto: U8, closed: float, gaze: tuple[float, float]) -> None:
        """Paint both eyes into `onto`, a copy of the photo.

        closed: 0 as in the photo, 1 shut. gaze: how far the irises move to the right and down,
        inter-ocular distances.
        """
        state = (round(closed, 3), round(gaze[0], 4), round(gaze[1], 4))
        if state not in self._recent:  # it stays for many frames, and both eyes rest most often
            shift = (state[1] * self._scale, state[2] * self._scale)
            self._recent = {state: [_painted(eye, state[0], shift) for eye in self._eyes]}
        for eye, box in zip(self._eyes, self._recent[state], strict=True):
            onto[eye.top : eye.top + box.shape[0], eye.left : eye.left + box.shape[1]] = box


def _eye(photo: U8, landmarks: F32, side: int, scale: float) -> _Eye | None:
    """One eye of the photo; None if it is too narrow to paint, as in a profile."""
    points = landmarks[:, :2].astype(np.float64)
    upper, lower, crease, brow = (
        points[list(curve[side])] for curve in (_UPPER, _LOWER, _CREASE, _BROW)
    )
    first, last = upper[0, 0], upper[-1, 0]
    width = last - first
    if width < 0.2 * scale or min(np.diff(upper[:, 0]).min(), np.diff(lower[:, 0]).min()) <= 0:
        return None
    margin = 0.1 * scale
    every = np.concatenate([upper, lower, crease])
    low = np.floor(every.min(0) - margin).astype(int)
    high = np.ceil(every.max(0) + margin).astype(int)
    low, high = np.maximum(low, 0), np.minimum(high, (photo.shape[1], photo.shape[0]))
    rgb = photo[low[1] : high[1], low[0] : high[0]].copy()
    columns = np.arange(low[0], high[0]) + 0.5
    rows = [_curve(columns, curve) - low[1] for curve in (upper, lower, crease, brow)]
    rows[1] = np.maximum(rows[0], rows[1])
    rows[2] = np.minimum(rows[2], rows[0])
    iris = list(_IRIS[side])
    if len(landmarks) > iris[-1]:
        middle, radius = points[iris[0], 0], float(np.ptp(points[iris[1:], 0])) / 2
    else:
        middle, radius = (first + last) / 2, _IRIS_RADIUS * width
    kept = 1.2 * radius
    to_corner = np.where(columns < middle, middle - kept - first, last - middle - kept)
    beyond = np.abs(columns - middle) - kept
    follow = 1 - np.clip(beyond / np.maximum(to_corner, 1), 0, 1)
    room = max(0.0, 0.5 * min(middle - kept - first, last - middle - kept))
    skin = _lid_skin(photo, (columns, low[1], rgb.shape[0]), rows, width)
    return _Eye(
        int(low[0]), int(low[1]), rgb,
        rows[0].astype(np.float32), rows[1].astype(np.float32), rows[2].astype(np.float32),
        skin, np.float32(0.015 * scale), _lash_line(rgb, rows, 0.04 * scale),
        smoothstep(np.minimum(columns - first, last - columns) / (0.1 * width)),
        follow.astype(np.float32), room,
    )  # fmt: skip


def _lash_line(rgb: U8, rows: list[np.ndarray], reach: float) -> float:
    """How far above the upper lid's landmarks, px, the photo is darkest, up to `reach` px."""
    upper, lower = rows[:2]
    open_columns = np.flatnonzero(lower - upper > 0.5 * (lower - upper).max())
    heights = np.linspace(0, reach, 9)
    x, up = np.meshgrid(open_columns + 0.5, heights)
    place = np.stack([x, upper[open_columns] - up], -1).astype(np.float32)
    luma = remap(rgb, np.ascontiguousarray(place)).astype(np.float32) @ LUMA
    return float(heights[int(luma.mean(1).argmin())])


def _curve(columns: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Rows of a curve through points f64 [n, 2], smooth, level beyond its ends."""
    from scipy.interpolate import PchipInterpolator

    order = np.argsort(points[:, 0])
    points = points[order]
    rows: np.ndarray = PchipInterpolator(points[:, 0], points[:, 1])(
        np.clip(columns, points[0, 0], points[-1, 0])
    )
    return rows


def _lid_skin(
    photo: U8, box: tuple[np.ndarray, int, int], rows: list[np.ndarray], width: float
) -> F32:
    """Skin of the lowered lid f32 [h, w, 3]: from that above the crease to that below the eye."""
    from scipy.ndimage import gaussian_filter, gaussian_filter1d

    columns, top, height = box
    upper, lower, crease, brow = rows

    def along(line: np.ndarray) -> np.ndarray:
        place = np.stack([columns, line + top], -1)[None].astype(np.float32)
        return remap(photo, np.ascontiguousarray(place))[0].astype(np.float64)

    above = np.stack([along(crease + share * (brow - crease)) for share in _SKIN_ABOVE])
    below = np.stack([along(lower + share * width) for share in _SKIN_BELOW])
    # Hair, rims of glasses and shadows are outliers, of which a median along the lid knows nothing.
    ends = [
        gaussian_filter1d(np.median(colors, axis=0), 0.07 * width, axis=0, mode="nearest")
        for colors in (above, below)
    ]
    row = np.arange(height)[:, None] + 0.5
    down = np.clip((row - crease) / np.maximum(lower - crease, 1), 0, 1)[..., None]
    skin = ends[0] + 0.7 * smoothstep(down) * (ends[1] - ends[0])
    # The lid is round: it catches light above its middle, and turns away towards the lashes.
    skin = skin * (0.98 - 0.16 * (down - 0.25) ** 2)
    x, y = np.meshgrid(columns, lower.max() + top + np.linspace(0.1, 0.4, height) * width)
    cheek = remap(photo, np.stack([x, y], -1).astype(np.float32)).astype(np.float64)
    fine = cheek - gaussian_filter(cheek, (1.5, 1.5, 0))
    grain = np.random.default_rng(0).standard_normal((height, len(columns), 1))
    grain = gaussian_filter(grain, (0.5, 0.5, 0))
    return (skin + grain / grain.std() * 1.48 * np.median(np.abs(fine))).astype(np.float32)


def _painted(eye: _Eye, closed: float, shift: tuple[float, float]) -> U8:
    """The box with the lid lowered and the iris moved, u8 [h, w, 3]."""
    height, width = eye.rgb.shape[:2]
    row = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
    opening = eye.lower - eye.upper
    rgb = _looking(eye, shift) if any(shift) else eye.rgb
    if closed <= 0:
        return rgb
    # Beyond the lower margin by a little: no white remains.
    margin = eye.upper + np.float32(closed) * (opening * np.float32(1.04) + eye.beyond)
    fall = margin - eye.upper
    above = margin - row  # px above the margin
    reach = np.maximum(eye.upper - eye.crease, 1)
    # Open lashes point up, closed ones down: below the margin they are seen mirrored.
    turned = float(smoothstep((closed - 0.4) / 0.5))
    origin = eye.upper - eye.lash_line - np.abs(above)
    place = np.stack(np.broadcast_arrays(np.arange(width) + 0.5, origin), -1)
    lashes = remap(eye.rgb, np.ascontiguousarray(place, np.float32)).astype(np.float32)
    whole, none = (share * (1 - 0.5 * turned) for share in _LASHES)
    slid = 1 - smoothstep((above / reach - whole) / (none - whole))
    lid = eye.skin + slid[..., None] * (lashes - eye.skin)
    dark = np.clip((lashes @ LUMA) / np.maximum(eye.skin @ LUMA, 1), 0.2, 1)
    hanging = 0.6 * turned * eye.ends * (1 - smoothstep(-above / (0.8 * reach)))
    hanging *= above < _EDGE_PX
    cover = np.clip(0.5 + above / (2 * _EDGE_PX), 0, 1)
    # Above the open margin the lid appears with the first movement, and ends in the crease.
    start = smoothstep(fall / np.maximum(0.3 * reach, 1))
    fold = smoothstep((row - eye.crease) / (0.7 * reach))
    cover *= np.where(row < eye.upper, start * fold, 1)
    cover *= eye.ends
    shade = 1 - _SHADOW * np.exp(np.minimum(above, 0) / (0.25 * reach)) * (
        (row > eye.upper) & (row < eye.lower)
    )
    below = rgb * (shade * (1 + hanging * (dark - 1)))[..., None]
    return np.clip(below + cover[..., None] * (lid - below) + 0.5, 0, 255).astype(np.uint8)


def _looking(eye: _Eye, shift: tuple[float, float]) -> U8:
    """The box with the iris moved by px to the right and down, u8 [h, w, 3]."""
    height, width = eye.rgb.shape[:2]
    row = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
    column = np.arange(width, dtype=np.float32)[None] + np.float32(0.5)
    inside = np.minimum(row - eye.upper, eye.lower - row)
    moves = eye.follow * np.clip(inside / 1.5, 0, 1)
    x = column - np.float32(np.clip(shift[0], -eye.room, eye.room)) * moves
    y = row - np.float32(shift[1]) * moves
    low, high = (np.interp(x, column[0], curve) for curve in (eye.upper + 0.5, eye.lower - 0.5))
    y = np.where(moves > 0, np.clip(y, low, np.maximum(low, high)), row)
    return remap(eye.rgb, np.ascontiguousarray(np.stack([x, y], -1), np.float32))
