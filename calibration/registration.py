"""Mouths laid to the pixel: what landmarks leave of a shift, read off the pictures.

The landmarker looks at each frame by itself, and smoothing takes out what trembles, not what
wanders: a mouth lies up to a hundredth of the inter-ocular distance beside where it was put, each
frame's otherwise. A mouth lent from one frame to another is then off by both. So the skin and lips
of every frame are brought to one shape by the mesh; what they look like there is predicted from
expression and head pose, by one linear map over all frames, in which such shifts average out; and
each frame is moved to where its pixels fit the prediction best; eight times over.

Source: ours, after the registration of Lucas and Kanade (1981) and joint alignment as in
Learned-Miller (2006). docs/calibration.md has what it buys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import Delaunay

from lipstream.engine.face_model import INNER_LOWER_LIP, INNER_UPPER_LIP, FaceModel, Pose
from lipstream.engine.target import Track
from lipstream.engine.types import F32, U8
from lipstream.kernels.mesh import remap

_LEFT, _RIGHT, _TOP, _BOTTOM = -0.5, 0.5, 0.85, 1.42  # round the mouth, inter-ocular distances
_PITCH: Final = 0.016  # inter-ocular distances from sample to sample
_FARTHEST: Final = 3  # samples that a mouth may be shifted by, a twentieth of the eyes' distance
_MARGIN: Final = _FARTHEST + 1
_LIGHT: Final = 5.0  # samples, standard deviation: what is smoother is light, not face
_GRAIN: Final = 0.7  # what is finer is noise
_BORDER: Final = 2  # samples at the edge, where filters look beyond
_ROUNDS: Final = 8
_RIDGE: Final = 0.1  # of the samples' number: holds the map back where footage is short
_LEAST_FRAMES: Final = 50  # fewer say nothing of what is usual
_MOST_FRAMES: Final = 2000  # that the map is fitted on, spread over the footage
_BLOCK: Final = 256  # frames in floating point at a time
_DEGREES: Final = 20.0  # of head rotation that weigh as one standard deviation of expression


def registered(
    track: Track,
    luma: Callable[[int], U8],
    model: FaceModel,
    report: Callable[[float], None] = lambda share: None,
) -> Track:
    """The track with every paintable face shifted in its picture to where the pixels say.

    luma: of a frame's number, u8 [h, w], limited or full range. Footage with less than 50 frames
    that are usable and paintable stays as it is. `report` hears the share of frames looked at.
    """
    fitted = np.flatnonzero(track.usable & track.paintable)
    if len(fitted) < _LEAST_FRAMES:
        return track
    window = _Window.on(track.geometry)
    seen = np.zeros((len(track), *window.shape), np.uint8)
    shown = np.flatnonzero(track.paintable)
    for done, frame in enumerate(shown.tolist(), 1):
        seen[frame] = window.look(luma(frame), track.landmarks[frame])
        report(done / len(shown))
    if len(fitted) > _MOST_FRAMES:
        fitted = fitted[np.linspace(0, len(fitted) - 1, _MOST_FRAMES).astype(int)]
    shift = _shifts(window, seen, _known(track, model), fitted, shown)
    return _moved(track, shift * np.float32(_PITCH))


@dataclass(frozen=True, slots=True)
class _Window:
    """Samples of the lower face, in rows and columns over the face at rest, with a margin."""

    corners: NDArray[np.intp]  # i64 [samples, 3], vertices round each
    weights: F32  # f32 [samples, 3], of the corners
    counts: NDArray[np.bool_]  # bool [rows, columns] without the margin; not in the gap

    @classmethod
    def on(cls, geometry: F32) -> _Window:
        """The window over a face f32 [468, 3] as seen from the front."""
        margin = _MARGIN * _PITCH
        x = np.arange(_LEFT - margin, _RIGHT + margin, _PITCH)
        y = np.arange(_TOP - margin, _BOTTOM + margin, _PITCH)
        points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        mesh = Delaunay(geometry[:, :2].astype(np.float64))
        found = mesh.find_simplex(points)
        frame = mesh.transform[found]
        two = np.einsum("nij,nj->ni", frame[:, :2], points - frame[:, 2])
        weights = np.concatenate([two, 1 - two.sum(1, keepdims=True)], 1)
        weights[found < 0] = 0  # beside the face
        corners = mesh.simplices[found]
        in_gap = np.isin(corners, (*INNER_UPPER_LIP, *INNER_LOWER_LIP)).all(1)
        counts = ((found >= 0) & ~in_gap).reshape(len(y), len(x))
        edge = _MARGIN + _BORDER
        counts[:edge], counts[-edge:], counts[:, :edge], counts[:, -edge:] = (False,) * 4
        inner = slice(_MARGIN, -_MARGIN)
        return cls(corners.astype(np.intp), weights.astype(np.float32), counts[inner, inner])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns with the margin."""
        rows, columns = self.counts.shape
        return rows + 2 * _MARGIN, columns + 2 * _MARGIN

    def look(self, luma: U8, landmarks: F32) -> U8:
        """A face in a picture u8 [h, w], brought to the shape at rest: u8 [rows, columns]."""
        at = np.einsum("nk,nkj->nj", self.weights, landmarks[self.corners, :2])
        picture = np.ascontiguousarray(luma)[..., None]
        return remap(picture, at.reshape(*self.shape, 2).astype(np.float32))[..., 0]


def _known(track: Track, model: FaceModel) -> F32:
    """By what a face's looks are predicted, f32 [N, 1 + K + 6]; the first column is constant."""
    angles = track.pose.angles_deg() / np.float32(_DEGREES)
    columns = np.concatenate([track.expression / model.spread, angles, angles**2], 1)
    columns -= columns[track.usable].mean(0)
    return np.concatenate([np.ones((len(track), 1), np.float32), columns], 1).astype(np.float32)


def _shifts(
    window: _Window, seen: U8, known: F32, fitted: NDArray[np.intp], shown: NDArray[np.intp]
) -> F32:
    """How far each face lies beside its landmarks, f32 [N, 2] as x, y in samples.

    The map is fitted on the frames `fitted`; those of `shown` are shifted, others stay at 0.
    """
    shift = np.zeros((len(seen), 2), np.float32)
    inside = window.counts
    for _ in range(_ROUNDS):
        looks = np.concatenate([block for _, block in _blocks(seen, shift, fitted)])
        by = known[fitted].astype(np.float64)
        ridge = np.full(by.shape[1], _RIDGE * len(fitted))
        ridge[0] = 0
        flat = looks.reshape(len(looks), -1)
        to_looks = np.linalg.solve(by.T @ by + np.diag(ridge), by.T @ flat).astype(np.float32)
        for frames, block in _blocks(seen, shift, shown):
            expected = (known[frames] @ to_looks).reshape(block.shape)
            down, right = np.gradient(expected, axis=(1, 2))
            step = _step(right[:, inside], down[:, inside], (block - expected)[:, inside])
            shift[frames] = np.clip(shift[frames] + step, -_FARTHEST, _FARTHEST)
    return shift


def _step(right: F32, down: F32, missed: F32) -> F32:
    """The shift f32 [B, 2], samples, that explains best what the prediction missed by.

    All f32 [B, samples]: the prediction's gradients, and picture less prediction. What is missed
    by far more than usual is no shift but teeth, a hand or hair, and hardly counts.
    """
    usual = np.maximum(1.5 * np.median(np.abs(missed), axis=1, keepdims=True), 0.1)
    weight = 1 / (1 + (missed / usual) ** 2)
    xx, xy, yy = ((weight * a * b).sum(1) for a, b in ((right, right), (right, down), (down, down)))
    x, y = ((weight * a * missed).sum(1) for a in (right, down))
    least = 1e-3 * missed.shape[1]
    xx, yy = xx + least, yy + least
    step = np.stack([xy * y - yy * x, xy * x - xx * y], 1) / (xx * yy - xy * xy)[:, None]
    return np.clip(step, -1.5, 1.5).astype(np.float32)


def _blocks(
    seen: U8, shift: F32, frames: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], F32]]:
    """The faces of `frames` where their shifts say, freed of light and grain, of one contrast.

    Frame numbers and f32 [B, rows, columns], without the margin.
    """
    for begin in range(0, len(frames), _BLOCK):
        block = frames[begin : begin + _BLOCK]
        looks = np.stack([_shifted(seen[frame], shift[frame]) for frame in block])
        looks -= gaussian_filter(looks, (0, _LIGHT, _LIGHT))
        looks = gaussian_filter(looks, (0, _GRAIN, _GRAIN))
        yield block, looks / np.maximum(looks.std((1, 2), keepdims=True), np.float32(1e-3))


def _shifted(seen: U8, shift: F32) -> F32:
    """Bilinear samples of u8 [rows, columns], without the margin, from x, y further."""
    (x, y), (fx, fy) = np.floor(shift).astype(int), shift - np.floor(shift)
    rows, columns = seen.shape[0] - 2 * _MARGIN, seen.shape[1] - 2 * _MARGIN
    top, left = _MARGIN + y, _MARGIN + x
    near = seen[top : top + rows + 1, left : left + columns + 1].astype(np.float32)
    across = near[:, :-1] + fx * (near[:, 1:] - near[:, :-1])
    mixed: F32 = across[:-1] + fy * (across[1:] - across[:-1])
    return mixed


def _moved(track: Track, shift: F32) -> Track:
    """The faces shifted by f32 [N, 2], inter-ocular distances of the face at rest."""
    pose = track.pose
    turned = np.einsum("nij,nj->ni", pose.rotation[:, :2, :2], shift)
    by = np.zeros((len(track), 3), np.float32)
    by[:, :2] = pose.scale[:, None] * turned
    return replace(
        track,
        landmarks=track.landmarks + by[:, None],
        pose=Pose(pose.scale, pose.rotation, pose.translation + by),
    )
