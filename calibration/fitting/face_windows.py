"""The lower face of every frame, warped to one shape and normalised, and a linear model of it.

The mesh maps skin and lips of each frame to a window over the neutral face. One linear map,
regressed over all frames, predicts what the window shows from expression and head pose. Sub-pixel
registration (`registration`) and mouth similarity (`person.similarity_features`) both use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import Delaunay

from lipstream.calibration.footage.subset import spread_over
from lipstream.engine.face.mesh import LIP_OUTLINE
from lipstream.engine.face.model import INNER_LOWER_LIP, INNER_UPPER_LIP, FaceModel
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, I32, U8
from lipstream.kernels.mesh import remap

MAX_SHIFT: Final = 3  # samples, a twentieth of the inter-ocular distance
PITCH: Final = 0.016  # inter-ocular distances from sample to sample
_LEFT, _RIGHT, _TOP, _BOTTOM = -0.5, 0.5, 0.85, 1.42  # of the window, inter-ocular distances
_MARGIN: Final = MAX_SHIFT + 1
_LIGHT: Final = 5.0  # samples, standard deviation: smoother variation is light, not face
_GRAIN: Final = 0.7  # samples, standard deviation: finer variation is noise
_BORDER: Final = 2  # samples at the edge, where the filters reach outside
_RIDGE: Final = 0.1  # times the number of frames: regularises the map of short footage
_MIN_FRAMES: Final = 50
_MAX_FRAMES: Final = 2000  # fitted to, spread over the footage
_BLOCK: Final = 256  # frames in floating point at a time
_DEGREES: Final = 20.0  # of head rotation that weigh as one standard deviation of expression


@dataclass(frozen=True, slots=True)
class Window:
    """Sampling grid of the lower face, rows × columns over the neutral face, with a margin."""

    corners: NDArray[np.intp]  # i64 [samples, 3], vertices of the triangle round each
    weights: F32  # f32 [samples, 3], of the corners
    lips: NDArray[np.bool_]  # bool [rows, columns] without the margin; includes the gap
    skin: NDArray[np.bool_]  # bool [rows, columns], the rest of the face
    outside_gap: NDArray[np.bool_]  # bool [rows, columns], lips and skin without the gap

    @classmethod
    def on(cls, geometry: F32) -> Window:
        """The window over a neutral face f32 [468, 3], seen from the front."""
        margin = _MARGIN * PITCH
        x = np.arange(_LEFT - margin, _RIGHT + margin, PITCH)
        y = np.arange(_TOP - margin, _BOTTOM + margin, PITCH)
        points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        mesh = Delaunay(geometry[:, :2].astype(np.float64))
        found = mesh.find_simplex(points)
        frame = mesh.transform[found]
        two = np.einsum("nij,nj->ni", frame[:, :2], points - frame[:, 2])
        weights = np.concatenate([two, 1 - two.sum(1, keepdims=True)], 1)
        weights[found < 0] = 0  # beside the face
        corners = mesh.simplices[found]
        in_gap = np.isin(corners, (*INNER_UPPER_LIP, *INNER_LOWER_LIP)).all(1)
        on_lips = np.isin(corners, (*LIP_OUTLINE, *INNER_UPPER_LIP, *INNER_LOWER_LIP)).any(1)
        whole = np.zeros((len(y), len(x)), bool)
        edge = _MARGIN + _BORDER
        whole[edge:-edge, edge:-edge] = True
        whole &= (found >= 0).reshape(whole.shape)
        inner = slice(_MARGIN, -_MARGIN)
        lips, skin, outside_gap = (
            (whole & chosen.reshape(whole.shape))[inner, inner]
            for chosen in (on_lips, ~on_lips, ~in_gap)
        )
        return cls(corners.astype(np.intp), weights.astype(np.float32), lips, skin, outside_gap)

    def sample(self, luma: U8, landmarks: F32) -> U8:
        """A face in a picture u8 [h, w], warped to the neutral shape: u8 [rows, columns]."""
        rows, columns = self.lips.shape
        at = np.einsum("nk,nkj->nj", self.weights, landmarks[self.corners, :2])
        grid = at.reshape(rows + 2 * _MARGIN, columns + 2 * _MARGIN, 2).astype(np.float32)
        return remap(np.ascontiguousarray(luma)[..., None], grid)[..., 0]


@dataclass(frozen=True, slots=True)
class FaceWindows:
    """N lower faces, and the regressors that predict their appearance."""

    window: Window
    luma: U8  # u8 [N, rows, columns] with the margin; 0 for frames that are not paintable
    shift: F32  # f32 [N, 2], x, y in samples, of each face against its landmarks
    regressors: F32  # f32 [N, 1 + K + 6]: 1, then expression, angles and their squares, centred
    fitted: NDArray[np.intp]  # frames that the regression is fitted to

    @classmethod
    def of(
        cls,
        track: Track,
        read_luma: Callable[[int], U8],
        model: FaceModel,
        report: Callable[[float], None] = lambda fraction: None,
    ) -> FaceWindows | None:
        """The faces of a track; None if fewer than 50 frames are usable and paintable.

        read_luma: frame number to u8 [h, w], limited or full range. report: takes the fraction of
        frames done.
        """
        fitted = np.flatnonzero(track.usable & track.paintable)
        if len(fitted) < _MIN_FRAMES:
            return None
        window = Window.on(track.geometry)
        paintable = np.flatnonzero(track.paintable).tolist()
        size = [side + 2 * _MARGIN for side in window.lips.shape]
        luma = np.zeros((len(track), *size), np.uint8)
        for done, frame in enumerate(paintable, 1):
            luma[frame] = window.sample(read_luma(frame), track.landmarks[frame])
            report(done / len(paintable))
        fitted = spread_over(fitted, _MAX_FRAMES)
        no_shift = np.zeros((len(track), 2), np.float32)
        return cls(window, luma, no_shift, _regressors(track, model), fitted)

    def normalised(self, frames: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], F32]]:
        """The shifted faces of `frames`, with light, grain and contrast normalised.

        Yields blocks of frame numbers i64 [B] and f32 [B, rows, columns], without the margin.
        """
        for begin in range(0, len(frames), _BLOCK):
            block = frames[begin : begin + _BLOCK]
            faces = self.recorded(block)
            faces -= gaussian_filter(faces, (0, _LIGHT, _LIGHT))
            faces = gaussian_filter(faces, (0, _GRAIN, _GRAIN))
            yield block, faces / np.maximum(faces.std((1, 2), keepdims=True), np.float32(1e-3))

    def recorded(self, frames: NDArray[np.intp] | I32) -> F32:
        """The shifted faces of `frames` as recorded, f32 [B, rows, columns], without the margin."""
        return np.stack([_shifted(self.luma[k], self.shift[k]) for k in frames])

    def regression(self) -> F32:
        """The linear map from `regressors` to normalised faces, f32 [1 + K + 6, rows * columns]."""
        faces = np.concatenate([block for _, block in self.normalised(self.fitted)])
        by = self.regressors[self.fitted].astype(np.float64)
        ridge = np.full(by.shape[1], _RIDGE * len(by))
        ridge[0] = 0
        flat = faces.reshape(len(faces), -1)
        fit: F32 = np.linalg.solve(by.T @ by + np.diag(ridge), by.T @ flat).astype(np.float32)
        return fit


def _regressors(track: Track, model: FaceModel) -> F32:
    angles = track.pose.angles_deg() / np.float32(_DEGREES)
    columns = np.concatenate([track.expression / model.spread, angles, angles**2], 1)
    columns -= columns[track.usable].mean(0)
    return np.concatenate([np.ones((len(track), 1), np.float32), columns], 1).astype(np.float32)


def _shifted(luma: U8, shift: F32) -> F32:
    """Bilinear samples of u8 [rows, columns], without the margin, moved by shift (x, y)."""
    (x, y), (fx, fy) = np.floor(shift).astype(int), shift - np.floor(shift)
    rows, columns = luma.shape[0] - 2 * _MARGIN, luma.shape[1] - 2 * _MARGIN
    top, left = _MARGIN + y, _MARGIN + x
    near = luma[top : top + rows + 1, left : left + columns + 1].astype(np.float32)
    across = near[:, :-1] + fx * (near[:, 1:] - near[:, :-1])
    mixed: F32 = across[:-1] + fy * (across[1:] - across[:-1])
    return mixed
