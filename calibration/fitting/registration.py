"""Sub-pixel registration of mouths: the shift that landmarks leave, measured in the pixels.

The landmarker works on each frame alone, and smoothing removes jitter but not drift: a mouth lies
up to a hundredth of the inter-ocular distance beside its landmarks, by another amount in each
frame. A mouth copied from one frame to another is off by both errors. The linear model of
`face_windows` predicts each face from expression and head pose; in the prediction such shifts
average out. Eight times, each frame is moved to where its pixels fit its prediction best.

Source: ours, after the registration of Lucas and Kanade (1981) and joint alignment as in
Learned-Miller (2006). docs/calibration.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from lipstream.calibration.fitting.face_windows import MAX_SHIFT, PITCH, FaceWindows
from lipstream.engine.face.model import FaceModel, Pose
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, U8

_ROUNDS: Final = 8


def register_faces(
    track: Track,
    read_luma: Callable[[int], U8],
    model: FaceModel,
    report: Callable[[float], None] = lambda fraction: None,
) -> tuple[Track, FaceWindows | None]:
    """Register a track to its pixels; unchanged, and None, for fewer than 50 good frames.

    read_luma, report: see `FaceWindows.of`.
    """
    faces = FaceWindows.of(track, read_luma, model, report)
    return (track, None) if faces is None else register(track, faces)


def register(track: Track, faces: FaceWindows) -> tuple[Track, FaceWindows]:
    """Track and faces with every paintable face shifted to where its pixels fit best."""
    shift = faces.shift.copy()
    faces = replace(faces, shift=shift)  # updated in place below
    paintable = np.flatnonzero(track.paintable)
    inside = faces.window.outside_gap
    for _ in range(_ROUNDS):
        regression = faces.regression()
        for frames, block in faces.normalised(paintable):
            predicted = (faces.regressors[frames] @ regression).reshape(block.shape)
            down, right = np.gradient(predicted, axis=(1, 2))
            step = _step(right[:, inside], down[:, inside], (block - predicted)[:, inside])
            shift[frames] = np.clip(shift[frames] + step, -MAX_SHIFT, MAX_SHIFT)
    return _moved(track, shift * np.float32(PITCH)), faces


def _step(right: F32, down: F32, residual: F32) -> F32:
    """The shift f32 [B, 2], samples, that explains the residual best.

    All f32 [B, samples]: the prediction's gradients, and picture minus prediction. A residual far
    above the median comes from teeth, a hand or hair, and is weighted down.
    """
    typical = np.maximum(1.5 * np.median(np.abs(residual), axis=1, keepdims=True), 0.1)
    weight = 1 / (1 + (residual / typical) ** 2)
    xx, xy, yy = ((weight * a * b).sum(1) for a, b in ((right, right), (right, down), (down, down)))
    x, y = ((weight * a * residual).sum(1) for a in (right, down))
    damping = 1e-3 * residual.shape[1]
    xx, yy = xx + damping, yy + damping
    step = np.stack([xy * y - yy * x, xy * x - xx * y], 1) / (xx * yy - xy * xy)[:, None]
    return np.clip(step, -1.5, 1.5).astype(np.float32)


def _moved(track: Track, shift: F32) -> Track:
    """The track with its faces shifted by f32 [N, 2], inter-ocular distances before the pose."""
    pose = track.pose
    turned = np.einsum("nij,nj->ni", pose.rotation[:, :2, :2], shift)
    by = np.zeros((len(track), 3), np.float32)
    by[:, :2] = pose.scale[:, None] * turned
    return replace(
        track,
        landmarks=track.landmarks + by[:, None],
        pose=Pose(pose.scale, pose.rotation, pose.translation + by),
    )
