"""Fits the appearance of one person's mouth, which `engine.target.appearance` evaluates.

The mouth texture of every frame is warped to one shape. The principal components of these textures
are kept, and a Gaussian process learns how each component follows from the features of a frame. Its
length scale and noise are those that predict each part of the footage best from the other parts
(Rasmussen and Williams, 2006, §5.4.2). A component that no setting predicts better than its mean is
left at the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.footage.subset import spread_over
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
_COMPONENTS: Final = 24
_MAX_FRAMES: Final = 1000  # fitted to, spread over the footage
_FRAMES_PER_COMPONENT: Final = 16  # at least
_MIN_FRAMES: Final = 50
_REFERENCE_PERCENTILE: Final = 95
_FOLDS: Final = 8  # consecutive parts of the footage, each predicted from the others
_LENGTH_SCALES: Final = (1.0, 2.0, 4.0)  # in mean distances between two frames
_NOISES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # variance, relative to that of the component


@dataclass(frozen=True, slots=True)
class MouthTextures:
    """The mouth textures of N frames of one track, and the features of each frame."""

    frames: Frames  # i64 [N], in order
    pixels: U8  # u8 [N, *TEXTURE_SHAPE, 3]
    features: F32  # f32 [N, F]
    sources: U8  # u8 [S, *TEXTURE_SHAPE, 3], of the mouth sources

    @classmethod
    def of(
        cls,
        track: Track,
        read_i420: Callable[[int], U8],
        similarity: MouthSimilarity,
        mesh: FaceMesh,
        sources: I32,
        report: Callable[[float], None] = lambda fraction: None,
    ) -> MouthTextures:
        """Of all usable and paintable frames, at most 1000 of them, spread.

        read_i420: frame number to u8 [h*3/2, w]. sources: i32 [S], frames of the mouth sources.
        report: takes the fraction of frames done.
        """
        frames = spread_over(np.flatnonzero(track.usable & track.paintable), _MAX_FRAMES)
        uv, triangles = canonical_uv(mesh), mouth_triangles(mesh)
        needed = np.union1d(frames, sources)
        pixels = np.zeros((len(needed), *TEXTURE_SHAPE, 3), np.uint8)
        for done, frame in enumerate(needed.tolist()):
            pixels[done] = _texture(read_i420(frame), track.placement(frame), uv, triangles)
            report((done + 1) / len(needed))
        of_frames, of_sources = np.searchsorted(needed, frames), np.searchsorted(needed, sources)
        features = similarity.features(track.expression[frames], frames)
        return cls(frames, pixels[of_frames], features, pixels[of_sources])

    def of_frames(self, chosen: NDArray[np.bool_], most: int) -> MouthTextures:
        """Those of the chosen frames, bool [N], at most `most` of them, spread."""
        kept = spread_over(np.flatnonzero(chosen), most)
        return replace(
            self,
            frames=self.frames[kept],
            pixels=self.pixels[kept],
            features=self.features[kept],
        )


class AppearanceFit(NamedTuple):
    """An appearance, and the data that it was fitted to."""

    appearance: Appearance
    pca_coefficients: F64  # f64 [N, P], of each component in each frame, of variance 1
    noise: F64  # f64 [P], variance that the features do not explain; infinite for the mean


def fit_appearance(
    textures: MouthTextures, window_frames: float, relevance: F32 | None = None
) -> AppearanceFit | None:
    """Fit how textures follow from features; None for fewer than 50 frames.

    window_frames: half-width of the exclusion window. relevance: f32 [F], the weight of each
    feature; None for 1.
    """
    count = len(textures.frames)
    if count < _MIN_FRAMES:
        return None
    mean, axes, pca_coefficients = _components(textures.pixels)
    source_coefficients = (textures.sources.reshape(len(textures.sources), -1) - mean) @ axes.T
    spread = np.maximum(pca_coefficients.std(0), 1e-6)
    pca_coefficients /= spread
    if relevance is None:
        relevance = np.ones(textures.features.shape[1], np.float32)
    distance = distances(textures.features * relevance)
    unit = float(distance[~np.eye(count, dtype=bool)].mean()) or 1.0
    length_scale, noise = _fit_process(distance / unit, pca_coefficients)
    weights = np.zeros_like(pca_coefficients)
    for members, kernel in kernel_matrices(distance, length_scale * unit, noise):
        weights[:, members] = np.linalg.solve(kernel, pca_coefficients[:, members])
    levels = np.concatenate([mean[None], axes * spread[:, None].astype(np.float32)])
    appearance = Appearance(
        relevance,
        np.ascontiguousarray((textures.features * relevance).T, np.float32),
        (length_scale * unit).astype(np.float32),
        weights.astype(np.float32),
        levels.reshape(-1, *TEXTURE_SHAPE, 3),
        (source_coefficients / spread).astype(np.float32),
        _reference_distance(distance, textures.frames, window_frames),
    )
    return AppearanceFit(appearance, pca_coefficients, noise)


def _components(pixels: U8) -> tuple[F32, F32, F64]:
    """Mean f32 [levels], principal axes f32 [P, levels] and coefficients f64 [N, P] of textures.

    The axes come from the N × N matrix: there are fewer frames than levels.
    """
    count = len(pixels)
    flat = pixels.reshape(count, -1).astype(np.float32)
    mean = flat.mean(0)
    flat -= mean
    _, vectors = np.linalg.eigh((flat @ flat.T).astype(np.float64))
    kept = min(_COMPONENTS, count // _FRAMES_PER_COMPONENT)
    axes = vectors[:, : -1 - kept : -1].T.astype(np.float32) @ flat
    axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), np.float32(1e-6))
    return mean, axes, (flat @ axes.T).astype(np.float64)


def _reference_distance(distance: F64, frames: Frames, window_frames: float) -> float:
    """Distance within which nearly every frame has another outside its exclusion window."""
    outside = np.abs(frames[:, None] - frames) >= window_frames
    if not outside.any():
        return float(distance.mean()) or 1.0
    nearest = np.where(outside, distance, np.inf).min(1)
    nearest = nearest[np.isfinite(nearest)]
    return max(float(np.percentile(nearest, _REFERENCE_PERCENTILE)), 1e-3)


def kernel_matrices(
    distance: F64, length_scale: F64, noise: F64
) -> Iterator[tuple[NDArray[np.bool_], F64]]:
    """Each kernel matrix f64 [N, N], noise included, and the components bool [P] that have it.

    Components of infinite noise, which stay at their mean, have none.
    """
    for scale, variance in sorted({*zip(length_scale.tolist(), noise.tolist(), strict=True)}):
        if np.isfinite(variance):
            kernel = matern(distance / scale) + variance * np.eye(len(distance))
            yield (length_scale == scale) & (noise == variance), kernel


def _fit_process(distance: F64, pca_coefficients: F64) -> tuple[F64, F64]:
    """Length scale and noise, f64 [P] each, of least squared error when each fold of the frames is
    predicted from the others; infinite noise where the mean predicts as well."""
    count, components = pca_coefficients.shape
    bounds = np.linspace(0, count, _FOLDS + 1).astype(int)
    folds = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]
    least = (pca_coefficients**2).sum(0)
    chosen = np.tile([[_LENGTH_SCALES[0]], [np.inf]], components)
    for length_scale in _LENGTH_SCALES:
        values, vectors = np.linalg.eigh(matern(distance / length_scale))
        projected = vectors.T @ pca_coefficients
        for noise in _NOISES:
            inverse = 1 / (np.maximum(values, 0) + noise)
            weights = vectors @ (inverse[:, None] * projected)
            error = np.zeros(components)
            for fold in folds:
                within = (vectors[fold] * inverse) @ vectors[fold].T
                error += (np.linalg.solve(within, weights[fold]) ** 2).sum(0)
            better = error < least
            least = np.where(better, error, least)
            chosen[:, better] = [[length_scale], [noise]]
    return chosen[0], chosen[1]


def _texture(i420: U8, placement: Placement, uv: F32, triangles: NDArray[np.int32]) -> U8:
    """The mouth texture u8 [*TEXTURE_SHAPE, 3] of a frame u8 [h*3/2, w]."""
    points = np.concatenate(
        [
            placement.project(placement.canonical_vertices),
            placement.project(inner_grid(placement.canonical_vertices)),
        ]
    )
    used = points[np.unique(triangles)]
    size = np.array([i420.shape[1], i420.shape[0] * 2 // 3])
    low = np.clip(np.floor(used.min(0)).astype(int) - 2, 0, size - 2) & ~1
    high = np.clip(np.ceil(used.max(0)).astype(int) + 3, low + 2, size)
    width, height = (int(side) & ~1 for side in high - low)
    rgb = color.i420_region_to_rgb(i420, int(low[0]), int(low[1]), width, height)
    return warp_mesh(rgb, (points - low).astype(np.float32), uv, triangles, TEXTURE_SHAPE)[0]


def distances(features: F32) -> F64:
    """Distance between every two frames with features f32 [N, F], f64 [N, N]."""
    exact = features.astype(np.float64)
    squares = (exact**2).sum(1)
    squared = squares[:, None] + squares - 2 * (exact @ exact.T)
    np.fill_diagonal(squared, 0)
    return np.sqrt(np.maximum(squared, 0))
