"""Learns what a mouth of this person looks like; `engine.appearance` tells it.

Every frame's lips are brought to one shape. The principal directions in which they differ are kept,
and of each it is learned how it follows from the readings of a frame. How far a direction is felt
and how noisy it is, is not known beforehand: what foretells each stretch of the footage from the
others best is taken (Rasmussen and Williams, 2006, §5.4.2). Directions that nothing foretells are
left out of what is expected, and the mean stands in for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.appearance import (
    LOOK_SHAPE,
    Appearance,
    Expected,
    Foretold,
    look_points,
    matern,
)
from lipstream.engine.footage import random_pair_cost
from lipstream.engine.resemblance import Resemblance
from lipstream.engine.target import Target, Track
from lipstream.engine.types import F32, I32, U8
from lipstream.engine.warp import FaceMesh, Placement, inner_grid, mouth_triangles
from lipstream.kernels import color
from lipstream.kernels.mesh import warp_mesh

F64 = NDArray[np.float64]
Frames = NDArray[np.intp]

MOMENT_S: Final = 0.5  # what is nearer in time to a frame is the same moment
_LOOKS: Final = 24  # principal ones
_MOST_FRAMES: Final = 1000  # that are learned from, spread over the footage
_FRAMES_PER_LOOK: Final = 16  # at least
_LEAST_FRAMES: Final = 50  # fewer say nothing of what follows from what
_NEARLY_ALL: Final = 95  # percent
_STRETCHES: Final = 8  # each foretold from the others
_REACHES: Final = (1.0, 2.0, 4.0)  # in mean distances between two frames
_NOISES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # variance, against that of the direction


@dataclass(frozen=True, slots=True)
class Looks:
    """The lips of N frames of one track in one shape, and what is known of each frame."""

    frames: Frames  # i64 [N], in order
    seen: U8  # u8 [N, *LOOK_SHAPE, 3]
    readings: F32  # f32 [N, F]
    sources: U8  # u8 [S, *LOOK_SHAPE, 3], of the frames that may lend their mouth

    @classmethod
    def of(
        cls,
        track: Track,
        picture: Callable[[int], U8],
        alike: Resemblance,
        mesh: FaceMesh,
        sources: I32,
        report: Callable[[float], None] = lambda share: None,
    ) -> Looks:
        """Of all frames that are usable and paintable, or as many as are learned from.

        picture: of a frame's number, u8 [h*3/2, w] I420. sources: i32 [S], the frames that may
        lend their mouth. `report` hears the share of them done.
        """
        frames = np.flatnonzero(track.usable & track.paintable)
        if len(frames) > _MOST_FRAMES:
            frames = frames[np.linspace(0, len(frames) - 1, _MOST_FRAMES).astype(int)]
        where, triangles = look_points(mesh), mouth_triangles(mesh)
        needed = np.union1d(frames, sources)
        seen = np.zeros((len(needed), *LOOK_SHAPE, 3), np.uint8)
        for done, frame in enumerate(needed.tolist()):
            seen[done] = _look(picture(frame), track.placement(frame), where, triangles)
            report((done + 1) / len(needed))
        kept, lent = np.searchsorted(needed, frames), np.searchsorted(needed, sources)
        return cls(frames, seen[kept], alike.read(track.expression[frames], frames), seen[lent])

    def of_frames(self, chosen: NDArray[np.bool_], most: int) -> Looks:
        """Those of the chosen frames, bool [N], or as many of them, spread."""
        kept = np.flatnonzero(chosen)
        if len(kept) > most:
            kept = kept[np.linspace(0, len(kept) - 1, most).astype(int)]
        return replace(
            self, frames=self.frames[kept], seen=self.seen[kept], readings=self.readings[kept]
        )


class Learned(NamedTuple):
    """An appearance, and what it was made of."""

    appearance: Appearance
    shares: F64  # f64 [N, P], of each principal look in each frame, of variance 1
    noise: F64  # f64 [P], variance of a share that readings do not tell


def learn(looks: Looks, apart: float, counts: F32 | None = None) -> Learned | None:
    """What follows from readings; None if there are too few frames to tell.

    apart: frames from which on another is of another moment. counts: f32 [F], how much each
    reading counts, 1 without.
    """
    count = len(looks.frames)
    if count < _LEAST_FRAMES:
        return None
    flat = looks.seen.reshape(count, -1).astype(np.float32)
    mean = flat.mean(0)
    flat -= mean
    # The principal directions by way of the frames, of which there are fewer than of levels.
    _, mixtures = np.linalg.eigh((flat @ flat.T).astype(np.float64))
    kept = min(_LOOKS, count // _FRAMES_PER_LOOK)
    axes = mixtures[:, : -1 - kept : -1].T.astype(np.float32) @ flat
    axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), np.float32(1e-6))
    shares = (flat @ axes.T).astype(np.float64)
    offered = (looks.sources.reshape(len(looks.sources), -1) - mean) @ axes.T
    spread = np.maximum(shares.std(0), 1e-6)
    shares /= spread
    if counts is None:
        counts = np.ones(looks.readings.shape[1], np.float32)
    distance = distances(looks.readings * counts)
    unit = float(distance[~np.eye(count, dtype=bool)].mean()) or 1.0
    reach, noise = _foretelling(distance / unit, shares)
    weights = np.zeros_like(shares)
    for felt, kernel in _kernels(distance, reach * unit, noise):
        weights[:, felt] = np.linalg.solve(kernel, shares[:, felt])
    levels = np.concatenate([mean[None], axes * spread[:, None].astype(np.float32)])
    found = Appearance(
        counts,
        np.ascontiguousarray((looks.readings * counts).T, np.float32),
        (reach * unit).astype(np.float32),
        weights.astype(np.float32),
        levels.reshape(-1, *LOOK_SHAPE, 3),
        (offered / spread).astype(np.float32),
        _usual(distance, looks.frames, apart),
    )
    return Learned(found, shares, noise)


def _usual(distance: F64, frames: Frames, apart: float) -> float:
    """How far nearly every frame is from the nearest one of another moment."""
    others = np.abs(frames[:, None] - frames) >= apart
    if not others.any():
        return float(distance.mean()) or 1.0
    nearest = np.where(others, distance, np.inf).min(1)
    return max(float(np.percentile(nearest[np.isfinite(nearest)], _NEARLY_ALL)), 1e-3)


def _kernels(distance: F64, reach: F64, noise: F64) -> Iterator[tuple[NDArray[np.bool_], F64]]:
    """Which directions bool [P] share a kernel f64 [N, N], noise and all, and that kernel."""
    for far, loud in sorted({*zip(reach.tolist(), noise.tolist(), strict=True)}):
        if np.isfinite(loud):
            kernel = matern(distance / far) + loud * np.eye(len(distance))
            yield (reach == far) & (noise == loud), kernel


def _foretelling(distance: F64, shares: F64) -> tuple[F64, F64]:
    """The reach and noise, f64 [P] each, by which shares f64 [N, P] of stretches of frames are
    foretold best from the others; a noise without end where their mean does as well."""
    count = len(shares)
    bounds = np.linspace(0, count, _STRETCHES + 1).astype(int)
    stretches = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]
    least, chosen = (shares**2).sum(0), np.tile([[_REACHES[0]], [np.inf]], shares.shape[1])
    for reach in _REACHES:
        values, vectors = np.linalg.eigh(matern(distance / reach))
        turned = vectors.T @ shares
        for noise in _NOISES:
            inverse = 1 / (np.maximum(values, 0) + noise)
            outcome = vectors @ (inverse[:, None] * turned)
            missed = np.zeros(shares.shape[1])
            for own in stretches:
                within = (vectors[own] * inverse) @ vectors[own].T
                missed += (np.linalg.solve(within, outcome[own]) ** 2).sum(0)
            better = missed < least
            least = np.where(better, missed, least)
            chosen[:, better] = [[reach], [noise]]
    return chosen[0], chosen[1]


class Elsewhen:
    """What would be expected at each moment of a clip, had just that moment not been filmed."""

    def __init__(self, clip: Target, mesh: FaceMesh, apart_s: float = MOMENT_S) -> None:
        """What is nearer than `apart_s` to a frame is the same moment."""
        self._apart, self._alike, self._learned = apart_s * float(clip.fps), clip.alike, None
        self._opening = mesh.model.lip_rows()[0]
        if clip.alike is None:
            return
        looks = Looks.of(
            clip.track, clip.frames.decoder().read, clip.alike, mesh, clip.source_frames
        )
        counts = None if clip.appearance is None else clip.appearance.counts
        found = learn(looks, self._apart, counts)
        if found is None:
            return
        learned = self._learned = found.appearance
        self._frames, self._spread = looks.frames, learned.spread()
        self._levels = (found.shares * self._spread).astype(np.float32)
        self._usual = random_pair_cost(self._levels)
        kernels = _kernels(distances(learned.readings.T), learned.reach.astype(float), found.noise)
        self._inverse = [(felt, np.linalg.inv(kernel)) for felt, kernel in kernels]

    def foretell(self, frame: int, expression: F32) -> Foretold | None:
        """Of an expression f32 [K] over a frame's pose and light; None if the clip is too short
        to tell. Leaving a moment out is a matter of block matrices."""
        if self._learned is None or self._alike is None:
            return None
        near = np.abs(self._frames - frame) < self._apart
        if near.all():
            return None
        own = np.flatnonzero(near)
        weights = self._learned.weights.copy()
        for felt, inverse in self._inverse:
            share = np.linalg.solve(inverse[np.ix_(own, own)], weights[np.ix_(own, felt)])
            weights[:, felt] -= (inverse[:, own] @ share).astype(np.float32)
        others = replace(
            self._learned,
            weights=weights[~near],
            readings=np.ascontiguousarray(self._learned.readings[:, ~near]),
        )
        return others.foretell(self._alike.read(expression, frame))

    def unlike(self, foretold: Foretold | None, others: Frames) -> F32 | None:
        """How unlike the looks of frames i64 [n] are to what was foretold, f32 [n]; two random
        frames are so by 1. Of a frame that was not learned from, the next is."""
        if foretold is None:
            return None
        row = np.minimum(np.searchsorted(self._frames, others), len(self._frames) - 1)
        off = self._levels[row] - foretold.shares * self._spread
        unlike: F32 = (off**2).sum(1) / self._usual
        return unlike

    def picture(self, foretold: Foretold | None, expression: F32) -> Expected | None:
        """What was foretold of an expression f32 [K], as a picture."""
        if self._learned is None or foretold is None:
            return None
        return self._learned.picture(foretold, float(self._opening @ expression))


def _look(picture: U8, placement: Placement, where: F32, triangles: NDArray[np.int32]) -> U8:
    points = np.concatenate(
        [placement.project(placement.free), placement.project(inner_grid(placement.free))]
    )
    used = points[np.unique(triangles)]
    size = np.array([picture.shape[1], picture.shape[0] * 2 // 3])
    low = np.clip(np.floor(used.min(0)).astype(int) - 2, 0, size - 2) & ~1
    high = np.clip(np.ceil(used.max(0)).astype(int) + 3, low + 2, size)
    width, height = (int(side) & ~1 for side in high - low)
    rgb = color.i420_region_to_rgb(picture, int(low[0]), int(low[1]), width, height)
    return warp_mesh(rgb, (points - low).astype(np.float32), where, triangles, LOOK_SHAPE)[0]


def distances(readings: F32) -> F64:
    """Of each two frames with readings f32 [N, F], f64 [N, N]."""
    exact = readings.astype(np.float64)
    squares = (exact**2).sum(1)
    between = squares[:, None] + squares - 2 * (exact @ exact.T)
    np.fill_diagonal(between, 0)
    return np.sqrt(np.maximum(between, 0))
