"""Finds the mark in video, whatever was done to it since.

The pattern stands still, so the frames are averaged: what moves blurs, the pattern stays. The mean
picture loses its coarse structure and is evened out, so that no edge outvotes the skin. Then, for
each scale that the picture may have been given, its spectrum at the pattern's waves is compared
with the waves for synchronisation at all shifts at once. Where they agree, the other waves are read
at that scale and shift, and the code is decoded.

The chance of a false find is bounded for any picture, whatever its statistics, because the phases
of the pattern are random and independent of it. A score is z = sum(a cos f) / sqrt(sum(a^2) / 2),
with a the strength of a wave in the picture and f its angle to the pattern. Over random signs z has
a sub-Gaussian tail, P(z > t) <= exp(-t^2 / 2) (Hoeffding, 1963), and the best of n places exceeds t
with at most n times that. The id has a check that a word of noise passes once in 2^15.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import UsageError
from lipstream.engine.types import F32, U8
from lipstream.engine.watermark import code
from lipstream.engine.watermark.pattern import C64, LONGEST, PERIOD, Waves, unit_px, waves

MARKED_BELOW: Final = 1e-6  # a `p_value` that says: marked

_WINDOW_FRAMES: Final = 300  # that are averaged; 10 s at 30 fps
_MOST_WINDOWS: Final = 6
_SMALLEST, _LARGEST = 0.5, 1.6  # of the scales; a 10 % crop on each side is 1.25
_SCALE_STEP: Final = 1.006
_SEARCHED: Final = 8.0  # units: shorter waves are left out of the search
_SHIFTS: Final = 128  # each way, 2 units apart
_CERTAIN: Final = 1e-9  # no further scale or window is tried
_CANDIDATES: Final = 4  # of the search, that are looked at closely
_FLOOR: Final = 1.0  # luma levels, below which a picture is flat
_NEAR: Final = 3  # waves each way, that a wave's strength is compared with
_EXTREME: Final = 3.0  # local deviations


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found."""

    session: int | None  # None: no mark, or an id that cannot be read
    p_value: float  # at most this is the chance of such a find in video without a mark
    frames: int  # that were looked at
    scale: float = 1.0  # of the pattern, against a picture that was not scaled or cropped

    @property
    def marked(self) -> bool:
        """Whether there is a mark."""
        return self.p_value < MARKED_BELOW


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the pattern may lie."""

    score: float
    down: float  # scale
    across: float
    y: float  # units
    x: float


def detect(lumas: Iterable[U8]) -> Detection:
    """Look for a mark in the luma of successive frames, u8 [h, w] each, all of one size.

    Ten seconds are enough; of more, windows are taken as they come, and the clearest is reported.

    Raises: UsageError without a frame, and for frames of several sizes.
    """
    best, frames, windows = Detection(None, 1.0, 0), 0, 0
    for mean, count in _means(lumas):
        frames, windows = frames + count, windows + 1
        found = detect_in_mean(mean)
        if (found.p_value, found.session is None) < (best.p_value, best.session is None):
            best = found
        if best.p_value < _CERTAIN and best.session is not None:
            break
    if not windows:
        raise UsageError("no frame to look for a mark in; expected at least one")
    return replace(best, p_value=min(1.0, best.p_value * windows), frames=frames)


def _means(lumas: Iterable[U8]) -> Iterator[tuple[F32, int]]:
    """The mean of each window, f32 [h, w], and how many frames it is of."""
    total: NDArray[np.uint32] | None = None
    count = windows = 0
    for luma in lumas:
        if total is None:
            if luma.ndim != 2 or min(luma.shape) < 16:
                raise UsageError(f"luma of {list(luma.shape)}; expected [h, w], at least 16 px")
            total = np.zeros(luma.shape, np.uint32)
        if luma.shape != total.shape:
            raise UsageError(f"a frame of {luma.shape} after {total.shape}; expected one size")
        total += luma
        count += 1
        if count == _WINDOW_FRAMES:
            yield (total / count).astype(np.float32), count
            windows += 1
            total[:] = 0
            count = 0
            if windows == _MOST_WINDOWS:
                return
    if total is not None and (count > _WINDOW_FRAMES // 5 or (count and not windows)):
        yield (total / count).astype(np.float32), count


def scales() -> list[float]:
    """That are searched: of the pattern, against a picture that was not scaled or cropped."""
    first, last = (round(math.log(end) / math.log(_SCALE_STEP)) for end in (_SMALLEST, _LARGEST))
    return [_SCALE_STEP**step for step in range(first, last + 1)]


def search_scores(mean: F32) -> Iterator[F32]:
    """The scores of the search in the mean of frames, f32 [128, 128] for each scale."""
    picture = _Picture(mean)
    return (picture.scores(scale) for scale in scales())


def detect_in_mean(mean: F32) -> Detection:
    """Look for a mark in the mean of frames, f32 [h, w]."""
    picture = _Picture(mean)
    others = [scale for scale in scales() if scale != 1.0]
    tried = (1 + len(others)) * _SHIFTS**2
    # Most pictures were scaled as a whole or not at all: there every wave is asked.
    found = [picture.best_shift(1.0, fine=True)]
    best = _look(picture, found[0], tried)
    if best.p_value < _CERTAIN and best.session is not None:
        return best
    found += [picture.best_shift(scale) for scale in others]
    for place in sorted(found, key=lambda one: -one.score)[:_CANDIDATES]:
        one = _look(picture, place, tried * _CANDIDATES)
        if (one.p_value, one.session is None) < (best.p_value, best.session is None):
            best = one
    return best


def _look(picture: _Picture, place: _Place, tried: int) -> Detection:
    """A place more precisely, and the id that stands there."""
    place, refined = picture.refine(place)
    session = code.decode(picture.readings(place))
    p = (tried + refined) * math.exp(-place.score * abs(place.score) / 2)
    if session is not None:
        p /= 1 << code.CHECK_BITS
    p = min(1.0, p)
    return Detection(session if p < MARKED_BELOW else None, p, 0, place.across)


class _Picture:
    """A mean picture, evened out, and its spectrum at the pattern's waves."""

    def __init__(self, mean: F32) -> None:
        unit = unit_px(*mean.shape)
        h, w = mean.shape
        even = _evened(_reduced(_reduced(mean, unit).T, unit).T)
        self._fine = _Plane(even, h / unit, w / unit)
        self._coarse = _Plane(_reduced(_reduced(even, 2).T, 2).T, h / unit, w / unit)

    def scores(self, scale: float, fine: bool = False) -> F32:
        """Of every shift, f32 [128, 128], 2 units apart, by the longer waves or (`fine`) by all."""
        found, plane = (_sync(), self._fine) if fine else (_long_sync(), self._coarse)
        turned, deviation = _turned(plane.spectrum(found, scale, scale), found)
        spread = np.zeros((_SHIFTS, _SHIFTS), np.complex64)
        spread[found.down, found.across % _SHIFTS] = turned
        return (np.fft.ifft2(spread, norm="forward").real / deviation).astype(np.float32)

    def best_shift(self, scale: float, fine: bool = False) -> _Place:
        """The shift at which the waves for synchronisation agree best."""
        scores = self.scores(scale, fine)
        y, x = np.unravel_index(scores.argmax(), scores.shape)
        step = PERIOD / _SHIFTS
        return _Place(float(scores[y, x]), scale, scale, float(y) * step, float(x) * step)

    def refine(self, place: _Place) -> tuple[_Place, int]:
        """The best place near this one, and how many were tried."""
        tried = 0
        best = place
        for step in (0.002, 0.001, 0.0005):
            centre = best
            for down, across in ((0, 0), (1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)):
                one, count = self._best_near(
                    replace(
                        centre,
                        down=centre.down * (1 + down * step),
                        across=centre.across * (1 + across * step),
                    )
                )
                tried += count
                if one.score > best.score:
                    best = one
        return best, tried

    def _best_near(self, place: _Place) -> tuple[_Place, int]:
        """The best shift within 2 units, at this place's scales."""
        found = _sync()
        turned, deviation = _turned(self._fine.spectrum(found, place.down, place.across), found)
        near = np.arange(-8, 9) / 4
        turns = 2j * np.pi / PERIOD
        y = np.exp(turns * np.outer(place.y + near, found.down)).astype(np.complex64)
        x = np.exp(turns * np.outer(place.x + near, found.across)).astype(np.complex64)
        scores = ((y * turned) @ x.T).real / deviation
        row, column = np.unravel_index(scores.argmax(), scores.shape)
        moved = replace(
            place,
            score=float(scores[row, column]),
            y=place.y + float(near[row]),
            x=place.x + float(near[column]),
        )
        return moved, scores.size

    def readings(self, place: _Place) -> F32:
        """Of each place of the code word, f32 [255], above 0 for a 1."""
        found = _data()
        shift = place.y * found.down + place.x * found.across
        own = self._fine.spectrum(found, place.down, place.across)
        own = own * np.exp(2j * np.pi / PERIOD * shift)
        phase = found.phase
        signs = np.stack([own.real * np.sign(phase.real), own.imag * np.sign(phase.imag)], -1)
        total = np.bincount(found.places.ravel(), signs.ravel(), code.LENGTH)
        return total.astype(np.float32)


class _Plane:
    """An evened picture, and where its rows and columns lie."""

    def __init__(self, even: F32, height: float, width: float) -> None:
        """`height`, `width`: in units."""
        self._even = np.ascontiguousarray(even)
        rows, columns = even.shape
        # Of the centre of each, in units from the picture's corner.
        self._y = (np.arange(rows) + 0.5) * (height / rows)
        self._x = (np.arange(columns) + 0.5) * (width / columns)

    def spectrum(self, found: Waves, down: float, across: float) -> C64:
        """Of some waves at these scales, c64 [waves], each over the strength of those around it."""
        turns = -2 * np.pi / PERIOD
        highest = int(max(found.down.max(), np.abs(found.across).max()))
        y = np.outer(np.arange(highest + 1), self._y * (turns / down))
        x = np.outer(self._x * (turns / across), np.arange(highest + 1))
        rows = np.concatenate([np.cos(y), np.sin(y)]).astype(np.float32) @ self._even
        parts = rows @ np.concatenate([np.cos(x), np.sin(x)], axis=1).astype(np.float32)
        (cc, cs), (sc, ss) = (np.split(half, 2, axis=1) for half in np.split(parts, 2))
        right, left = cc - ss + 1j * (sc + cs), cc + ss + 1j * (sc - cs)
        whole = np.concatenate([left[:, :0:-1], right], axis=1)
        power = _power_nearby(np.abs(whole) ** 2)
        at = found.down, found.across + highest
        own = whole[at] / np.sqrt(power[at] + 1e-20)
        # One wave that is in the picture itself (a fence, a blind) must not decide.
        return (own / np.maximum(np.abs(own) / 2, 1)).astype(np.complex64)


def _power_nearby(power: NDArray[np.floating[Any]]) -> F32:
    """The mean of the waves in a square of 7x7, f32 [H + 1, 2 H + 1], all of it for -H to H."""
    inside = _is_used(len(power) - 1)

    def summed(plane: NDArray[np.floating[Any]]) -> F32:
        # The half that is not there mirrors the one that is.
        plane = np.concatenate([plane[_NEAR:0:-1, ::-1], plane])
        for _ in range(2):
            padded = np.pad(plane, ((_NEAR + 1, _NEAR), (0, 0)))
            sums = padded.cumsum(0, dtype=np.float64)
            plane = (sums[2 * _NEAR + 1 :] - sums[: -2 * _NEAR - 1]).T
        return plane[_NEAR:].astype(np.float32)

    return (summed(power * inside) / np.maximum(summed(inside), 1)).astype(np.float32)


@cache
def _is_used(highest: int) -> F32:
    """1 for the waves of the pattern up to a highest one, f32 [H + 1, 2 H + 1]."""
    radius = np.hypot(*np.mgrid[0 : highest + 1, -highest : highest + 1])
    return ((radius >= PERIOD / LONGEST) & (radius <= highest + 0.5)).astype(np.float32)


def _turned(spectrum: C64, found: Waves) -> tuple[C64, float]:
    """Waves turned back by the pattern, and the deviation of the real part of their sum."""
    turned = spectrum * found.phase.conj()
    return turned, float(np.sqrt((np.abs(turned) ** 2).sum() / 2)) + 1e-20


@cache
def _sync() -> Waves:
    return _chosen(waves().is_sync)


@cache
def _long_sync() -> Waves:
    found = waves()
    return _chosen(found.is_sync & (np.hypot(found.down, found.across) <= PERIOD / _SEARCHED))


@cache
def _data() -> Waves:
    return _chosen(~waves().is_sync)._replace(places=waves().places)


def _chosen(which: NDArray[np.bool_]) -> Waves:
    found = waves()
    return Waves(
        found.down[which], found.across[which], which[which], found.phase[which], found.places[:0]
    )


def _reduced(plane: F32, unit: float) -> F32:
    """Rows to one a unit; as they are where they are fewer."""
    rows = len(plane)
    if unit <= 1:
        return plane
    count = round(rows / unit)
    centre = (np.arange(count) + 0.5) * (rows / count)
    distance = np.abs(np.arange(rows) + 0.5 - centre[:, None]) * (count / rows)
    weights = np.maximum(0, 1 - distance).astype(np.float32)
    return weights / weights.sum(1, keepdims=True) @ plane


def _evened(picture: F32) -> F32:
    """Fine structure over its own strength nearby; more where it is weak."""
    fine = picture - _blurred(_blurred(picture, 3), 3)
    variance = _blurred(_blurred(fine * fine, 4), 4) + _FLOOR**2
    deviation = np.sqrt(variance)
    fine = np.clip(fine, -_EXTREME * deviation, _EXTREME * deviation)
    return (fine / variance**0.75).astype(np.float32)


def _blurred(picture: F32, radius: int) -> F32:
    """The mean of a square of 2 radius + 1 pixels."""
    for _ in range(2):
        padded = np.pad(picture, ((radius + 1, radius), (0, 0)), mode="edge")
        sums = padded.cumsum(0, dtype=np.float64)
        length = 2 * radius + 1
        picture = ((sums[length:] - sums[:-length]) / length).T.astype(np.float32)
    return picture
