"""The lower face of every frame, brought to one shape and freed of light and grain, and what it is
expected to look like.

The mesh lays skin and lips of each frame on a window over the face at rest. What such a window
shows is predicted from expression and head pose by one linear map over all frames. Laying mouths
to the pixel (`registration`) and telling like mouths from unlike ones (`looks`) both rest on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import Delaunay

from lipstream.engine.face.mesh import LIP_OUTLINE
from lipstream.engine.face.model import INNER_LOWER_LIP, INNER_UPPER_LIP, FaceModel
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, I32, U8
from lipstream.kernels.mesh import remap

FARTHEST: Final = 3  # samples that a mouth may be shifted by, a twentieth of the eyes' distance
PITCH: Final = 0.016  # inter-ocular distances from sample to sample
_LEFT, _RIGHT, _TOP, _BOTTOM = -0.5, 0.5, 0.85, 1.42  # round the mouth, inter-ocular distances
_MARGIN: Final = FARTHEST + 1
_LIGHT: Final = 5.0  # samples, standard deviation: what is smoother is light, not face
_GRAIN: Final = 0.7  # what is finer is noise
_BORDER: Final = 2  # samples at the edge, where filters look beyond
_RIDGE: Final = 0.1  # of the samples' number: holds the map back where footage is short
_LEAST_FRAMES: Final = 50  # fewer say nothing of what is usual
_MOST_FRAMES: Final = 2000  # that the map is fitted on, spread over the footage
_BLOCK: Final = 256  # frames in floating point at a time
_DEGREES: Final = 20.0  # of head rotation that weigh as one standard deviation of expression


@dataclass(frozen=True, slots=True)
class Window:
    """Samples of the lower face, in rows and columns over the face at rest, with a margin."""

    corners: NDArray[np.intp]  # i64 [samples, 3], vertices round each
    weights: F32  # f32 [samples, 3], of the corners
    lips: NDArray[np.bool_]  # bool [rows, columns] without the margin; the gap is among them
    skin: NDArray[np.bool_]  # bool [rows, columns] of what else is face
    steady: NDArray[np.bool_]  # bool [rows, columns], lips and skin, not the gap

    @classmethod
    def on(cls, geometry: F32) -> Window:
        """The window over a face f32 [468, 3] as seen from the front."""
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
        lips, skin, steady = (
            (whole & chosen.reshape(whole.shape))[inner, inner]
            for chosen in (on_lips, ~on_lips, ~in_gap)
        )
        return cls(corners.astype(np.intp), weights.astype(np.float32), lips, skin, steady)

    def look(self, luma: U8, landmarks: F32) -> U8:
        """A face in a picture u8 [h, w], brought to the shape at rest: u8 [rows, columns]."""
        rows, columns = self.lips.shape
        at = np.einsum("nk,nkj->nj", self.weights, landmarks[self.corners, :2])
        grid = at.reshape(rows + 2 * _MARGIN, columns + 2 * _MARGIN, 2).astype(np.float32)
        return remap(np.ascontiguousarray(luma)[..., None], grid)[..., 0]


@dataclass(frozen=True, slots=True)
class FaceWindows:
    """N lower faces, and by what their looks are predicted."""

    window: Window
    seen: U8  # u8 [N, rows, columns] with the margin; 0 where nothing may be painted
    shift: F32  # f32 [N, 2], x, y in samples, of each face beside its landmarks
    known: F32  # f32 [N, 1 + K + 6]: constant, expression, angles and their squares, about the mean
    fitted: NDArray[np.intp]  # the frames that say what is usual

    @classmethod
    def look(
        cls,
        track: Track,
        luma: Callable[[int], U8],
        model: FaceModel,
        report: Callable[[float], None] = lambda share: None,
    ) -> FaceWindows | None:
        """The faces of a track; None if fewer than 50 frames are usable and paintable.

        luma: of a frame's number, u8 [h, w], limited or full range. `report` hears the share of
        frames looked at.
        """
        fitted = np.flatnonzero(track.usable & track.paintable)
        if len(fitted) < _LEAST_FRAMES:
            return None
        window = Window.on(track.geometry)
        shown = np.flatnonzero(track.paintable).tolist()
        size = [side + 2 * _MARGIN for side in window.lips.shape]
        seen = np.zeros((len(track), *size), np.uint8)
        for done, frame in enumerate(shown, 1):
            seen[frame] = window.look(luma(frame), track.landmarks[frame])
            report(done / len(shown))
        if len(fitted) > _MOST_FRAMES:
            fitted = fitted[np.linspace(0, len(fitted) - 1, _MOST_FRAMES).astype(int)]
        still = np.zeros((len(track), 2), np.float32)
        return cls(window, seen, still, _known(track, model), fitted)

    def looks(self, frames: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], F32]]:
        """The faces of `frames` where their shifts say, of one light, grain and contrast.

        Frame numbers and f32 [B, rows, columns], without the margin, in blocks.
        """
        for begin in range(0, len(frames), _BLOCK):
            block = frames[begin : begin + _BLOCK]
            looks = self.filmed(block)
            looks -= gaussian_filter(looks, (0, _LIGHT, _LIGHT))
            looks = gaussian_filter(looks, (0, _GRAIN, _GRAIN))
            yield block, looks / np.maximum(looks.std((1, 2), keepdims=True), np.float32(1e-3))

    def filmed(self, frames: NDArray[np.intp] | I32) -> F32:
        """The faces of `frames` where their shifts say, f32 [B, rows, columns], no margin."""
        return np.stack([_shifted(self.seen[k], self.shift[k]) for k in frames])

    def prediction(self) -> F32:
        """The map from `known` to looks, f32 [1 + K + 6, rows * columns]."""
        looks = np.concatenate([block for _, block in self.looks(self.fitted)])
        by = self.known[self.fitted].astype(np.float64)
        ridge = np.full(by.shape[1], _RIDGE * len(by))
        ridge[0] = 0
        flat = looks.reshape(len(looks), -1)
        fit: F32 = np.linalg.solve(by.T @ by + np.diag(ridge), by.T @ flat).astype(np.float32)
        return fit


def _known(track: Track, model: FaceModel) -> F32:
    angles = track.pose.angles_deg() / np.float32(_DEGREES)
    columns = np.concatenate([track.expression / model.spread, angles, angles**2], 1)
    columns -= columns[track.usable].mean(0)
    return np.concatenate([np.ones((len(track), 1), np.float32), columns], 1).astype(np.float32)


def _shifted(seen: U8, shift: F32) -> F32:
    """Bilinear samples of u8 [rows, columns], without the margin, from x, y further."""
    (x, y), (fx, fy) = np.floor(shift).astype(int), shift - np.floor(shift)
    rows, columns = seen.shape[0] - 2 * _MARGIN, seen.shape[1] - 2 * _MARGIN
    top, left = _MARGIN + y, _MARGIN + x
    near = seen[top : top + rows + 1, left : left + columns + 1].astype(np.float32)
    across = near[:, :-1] + fx * (near[:, 1:] - near[:, :-1])
    mixed: F32 = across[:-1] + fy * (across[1:] - across[:-1])
    return mixed
