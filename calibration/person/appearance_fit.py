"""Learns what a mouth of this person looks like; `engine.target.appearance` tells it.

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

from lipstream.engine.face.mesh import FaceMesh, inner_grid, mouth_triangles
from lipstream.engine.face.retarget import Placement
from lipstream.engine.target.appearance import (
    TEXTURE_SHAPE,
    Appearance,
    canonical_uv,
    matern,
)
from lipstream.engine.target.similarity import MouthSimilarity
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, I32, U8
from lipstream.kernels import color
from lipstream.kernels.mesh import warp_mesh

F64 = NDArray[np.float64]
Frames = NDArray[np.intp]
_COMPONENTS: Final = 24  # principal ones
_MOST_FRAMES: Final = 1000  # that are learned from, spread over the footage
_FRAMES_PER_COMPONENT: Final = 16  # at least
_LEAST_FRAMES: Final = 50  # fewer say nothing of what follows from what
_NEARLY_ALL: Final = 95  # percent
_STRETCHES: Final = 8  # each foretold from the others
_REACHES: Final = (1.0, 2.0, 4.0)  # in mean distances between two frames
_NOISES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # variance, against that of the direction


@dataclass(frozen=True, slots=True)
class MouthTextures:
    """The lips of N frames of one track in one shape, and what is known of each frame."""

    frames: Frames  # i64 [N], in order
    seen: U8  # u8 [N, *LOOK_SHAPE, 3]
    features: F32  # f32 [N, F]
    sources: U8  # u8 [S, *LOOK_SHAPE, 3], of the frames that may lend their mouth

    @classmethod
    def of(
        cls,
        track: Track,
        picture: Callable[[int], U8],
        similarity: MouthSimilarity,
        mesh: FaceMesh,
        sources: I32,
        report: Callable[[float], None] = lambda share: None,
    ) -> MouthTextures:
        """Of all frames that are usable and paintable, or as many as are learned from.

        picture: of a frame's number, u8 [h*3/2, w] I420. sources: i32 [S], the frames that may
        lend their mouth. `report` hears the share of them done.
        """
        frames = np.flatnonzero(track.usable & track.paintable)
        if len(frames) > _MOST_FRAMES:
            frames = frames[np.linspace(0, len(frames) - 1, _MOST_FRAMES).astype(int)]
        where, triangles = canonical_uv(mesh), mouth_triangles(mesh)
        needed = np.union1d(frames, sources)
        seen = np.zeros((len(needed), *TEXTURE_SHAPE, 3), np.uint8)
        for done, frame in enumerate(needed.tolist()):
            seen[done] = _texture(picture(frame), track.placement(frame), where, triangles)
            report((done + 1) / len(needed))
        kept, lent = np.searchsorted(needed, frames), np.searchsorted(needed, sources)
        return cls(
            frames, seen[kept], similarity.features(track.expression[frames], frames), seen[lent]
        )

    def of_frames(self, chosen: NDArray[np.bool_], most: int) -> MouthTextures:
        """Those of the chosen frames, bool [N], or as many of them, spread."""
        kept = np.flatnonzero(chosen)
        if len(kept) > most:
            kept = kept[np.linspace(0, len(kept) - 1, most).astype(int)]
        return replace(
            self, frames=self.frames[kept], seen=self.seen[kept], features=self.features[kept]
        )


class Learned(NamedTuple):
    """An appearance, and what it was made of."""

    appearance: Appearance
    pca_coefficients: F64  # f64 [N, P], of each principal look in each frame, of variance 1
    noise: F64  # f64 [P], variance of a share that readings do not tell


def learn(textures: MouthTextures, apart: float, relevance: F32 | None = None) -> Learned | None:
    """What follows from readings; None if there are too few frames to tell.

    apart: frames from which on another is of another moment. counts: f32 [F], how much each
    reading counts, 1 without.
    """
    count = len(textures.frames)
    if count < _LEAST_FRAMES:
        return None
    flat = textures.seen.reshape(count, -1).astype(np.float32)
    mean = flat.mean(0)
    flat -= mean
    # The principal directions by way of the frames, of which there are fewer than of levels.
    _, mixtures = np.linalg.eigh((flat @ flat.T).astype(np.float64))
    kept = min(_COMPONENTS, count // _FRAMES_PER_COMPONENT)
    axes = mixtures[:, : -1 - kept : -1].T.astype(np.float32) @ flat
    axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), np.float32(1e-6))
    pca_coefficients = (flat @ axes.T).astype(np.float64)
    offered = (textures.sources.reshape(len(textures.sources), -1) - mean) @ axes.T
    spread = np.maximum(pca_coefficients.std(0), 1e-6)
    pca_coefficients /= spread
    if relevance is None:
        relevance = np.ones(textures.features.shape[1], np.float32)
    distance = distances(textures.features * relevance)
    unit = float(distance[~np.eye(count, dtype=bool)].mean()) or 1.0
    length_scale, noise = _fit_process(distance / unit, pca_coefficients)
    weights = np.zeros_like(pca_coefficients)
    for felt, kernel in _kernel_matrix(distance, length_scale * unit, noise):
        weights[:, felt] = np.linalg.solve(kernel, pca_coefficients[:, felt])
    levels = np.concatenate([mean[None], axes * spread[:, None].astype(np.float32)])
    found = Appearance(
        relevance,
        np.ascontiguousarray((textures.features * relevance).T, np.float32),
        (length_scale * unit).astype(np.float32),
        weights.astype(np.float32),
        levels.reshape(-1, *TEXTURE_SHAPE, 3),
        (offered / spread).astype(np.float32),
        _reference_distance(distance, textures.frames, apart),
    )
    return Learned(found, pca_coefficients, noise)


def _reference_distance(distance: F64, frames: Frames, apart: float) -> float:
    """How far nearly every frame is from the nearest one of another moment."""
    others = np.abs(frames[:, None] - frames) >= apart
    if not others.any():
        return float(distance.mean()) or 1.0
    nearest = np.where(others, distance, np.inf).min(1)
    return max(float(np.percentile(nearest[np.isfinite(nearest)], _NEARLY_ALL)), 1e-3)


def _kernel_matrix(
    distance: F64, length_scale: F64, noise: F64
) -> Iterator[tuple[NDArray[np.bool_], F64]]:
    """Which directions bool [P] share a kernel f64 [N, N], noise and all, and that kernel."""
    for far, loud in sorted({*zip(length_scale.tolist(), noise.tolist(), strict=True)}):
        if np.isfinite(loud):
            kernel = matern(distance / far) + loud * np.eye(len(distance))
            yield (length_scale == far) & (noise == loud), kernel


def _fit_process(distance: F64, pca_coefficients: F64) -> tuple[F64, F64]:
    """The reach and noise, f64 [P] each, by which shares f64 [N, P] of stretches of frames are
    foretold best from the others; a noise without end where their mean does as well."""
    count = len(pca_coefficients)
    bounds = np.linspace(0, count, _STRETCHES + 1).astype(int)
    stretches = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]
    least, chosen = (
        (pca_coefficients**2).sum(0),
        np.tile([[_REACHES[0]], [np.inf]], pca_coefficients.shape[1]),
    )
    for length_scale in _REACHES:
        values, vectors = np.linalg.eigh(matern(distance / length_scale))
        turned = vectors.T @ pca_coefficients
        for noise in _NOISES:
            inverse = 1 / (np.maximum(values, 0) + noise)
            outcome = vectors @ (inverse[:, None] * turned)
            missed = np.zeros(pca_coefficients.shape[1])
            for own in stretches:
                within = (vectors[own] * inverse) @ vectors[own].T
                missed += (np.linalg.solve(within, outcome[own]) ** 2).sum(0)
            better = missed < least
            least = np.where(better, missed, least)
            chosen[:, better] = [[length_scale], [noise]]
    return chosen[0], chosen[1]


def _texture(picture: U8, placement: Placement, where: F32, triangles: NDArray[np.int32]) -> U8:
    points = np.concatenate(
        [
            placement.project(placement.canonical_vertices),
            placement.project(inner_grid(placement.canonical_vertices)),
        ]
    )
    used = points[np.unique(triangles)]
    size = np.array([picture.shape[1], picture.shape[0] * 2 // 3])
    low = np.clip(np.floor(used.min(0)).astype(int) - 2, 0, size - 2) & ~1
    high = np.clip(np.ceil(used.max(0)).astype(int) + 3, low + 2, size)
    width, height = (int(side) & ~1 for side in high - low)
    rgb = color.i420_region_to_rgb(picture, int(low[0]), int(low[1]), width, height)
    return warp_mesh(rgb, (points - low).astype(np.float32), where, triangles, TEXTURE_SHAPE)[0]


def distances(features: F32) -> F64:
    """Of each two frames with readings f32 [N, F], f64 [N, N]."""
    exact = features.astype(np.float64)
    squares = (exact**2).sum(1)
    between = squares[:, None] + squares - 2 * (exact @ exact.T)
    np.fill_diagonal(between, 0)
    return np.sqrt(np.maximum(between, 0))
