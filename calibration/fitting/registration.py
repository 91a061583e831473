"""Mouths laid to the pixel: what landmarks leave of a shift, read off the pictures.

The landmarker looks at each frame by itself, and smoothing takes out what trembles, not what
wanders: a mouth lies up to a hundredth of the inter-ocular distance beside where it was put, each
frame's otherwise. A mouth lent from one frame to another is then off by both. What all faces look
like is predicted from expression and head pose (`lower_face`); in the prediction such shifts
average out; each frame is moved to where its pixels fit it best, eight times over.

Source: ours, after the registration of Lucas and Kanade (1981) and joint alignment as in
Learned-Miller (2006). docs/calibration.md has what it buys.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from lipstream.calibration.fitting.face_windows import FARTHEST, PITCH, FaceWindows
from lipstream.engine.face.model import Pose
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32

_ROUNDS: Final = 8


def registered(track: Track, faces: FaceWindows) -> tuple[Track, FaceWindows]:
    """Track and faces with every paintable face shifted in its picture to where the pixels say."""
    shift = faces.shift.copy()
    faces = replace(faces, shift=shift)  # moves below, and what is predicted with it
    shown = np.flatnonzero(track.paintable)
    steady = faces.window.steady
    for _ in range(_ROUNDS):
        to_looks = faces.prediction()
        for frames, block in faces.looks(shown):
            expected = (faces.known[frames] @ to_looks).reshape(block.shape)
            down, right = np.gradient(expected, axis=(1, 2))
            step = _step(right[:, steady], down[:, steady], (block - expected)[:, steady])
            shift[frames] = np.clip(shift[frames] + step, -FARTHEST, FARTHEST)
    return _moved(track, shift * np.float32(PITCH)), faces


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
