"""Factorises tracked landmarks into geometry, pose and expression.

The factors of *Everybody's Talkin'* (arXiv 2001.05201, §III-A): the person's face shape (geometry),
the position of the head (pose), and what the face does (expression). Tracker jitter is smoothed
with zero-phase filters, because a lag here would be an A/V offset later; motion stays as tracked.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import savgol_filter

from lipstream.calibration.fitting.canonical import lip_opening, neutral_face, to_canonical_units
from lipstream.calibration.footage.jump_graph import head_speed
from lipstream.engine.errors import CalibrationError
from lipstream.engine.face.model import VERTICES, FaceModel, Pose, fit_pose
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32

_POSE_WINDOWS = (5, 9)  # frames; the longer one removes the jitter of a head at rest
_SKIN_WINDOW = 7
_MOUTH_WINDOW = 5
# Distance of smoothed from tracked points: up to the first it is jitter (measured: 0.1 to 0.3 px),
# from the second on it is motion, such as a nod or lips that meet for a frame.
_JITTER = (0.006, 0.012)  # inter-ocular distances
_JITTER_PX = (0.25, 0.5)  # lower bounds of the same, for small faces
_AVERAGED = 3  # frames over which the distance is averaged
_PASSES = 3


def factorise(
    landmarks: F32,
    cuts: tuple[int, ...],
    usable: NDArray[np.bool_],
    paintable: NDArray[np.bool_],
    fps: Fraction,
    model: FaceModel,
) -> Track:
    """Fit a track to one person's footage.

    landmarks: f32 [N, ≥468, 3], px, NaN without a face. cuts: first frames of new shots. usable,
    paintable: bool [N].

    Raises:
        CalibrationError: no usable frame.
    """
    found = np.isfinite(landmarks[:, 0, 0])
    good = usable & found
    if not good.any():
        raise CalibrationError(
            "no frame can be used: expected a face seen from the front, at least 24 px between "
            "the eyes, with nothing over the mouth; the report names the reason for each frame"
        )
    filled = _filled(landmarks[:, :VERTICES], found)
    geometry = model.mean
    for _ in range(_PASSES):  # better geometry gives a better pose, and the reverse
        pose = fit_pose(filled, geometry, model.rigid)
        free = pose.remove(filled)
        geometry = to_canonical_units(neutral_face(free[good]))
    pose = fit_pose(filled, geometry, model.rigid)
    free = pose.remove(filled)
    pose, free = _smoothed(pose, free, _segments(found, cuts), model)
    placed = pose.apply(free)
    expression = model.encode(free - geometry)
    speed = head_speed(placed, float(fps))
    speed[list(cuts)] = 0.0
    return Track(placed, pose, expression, geometry, good, paintable & found, speed)


def openings(track: Track) -> F32:
    """Lip opening of every frame, f32 [N], inter-ocular distances."""
    return lip_opening(track.pose.remove(track.landmarks))


def _filled(landmarks: F32, found: NDArray[np.bool_]) -> F32:
    """Landmarks with frames without a face filled by the nearest one that has one."""
    if found.all():
        return landmarks
    present = np.flatnonzero(found)
    frames = np.arange(len(landmarks))
    right = np.clip(np.searchsorted(present, frames), 0, len(present) - 1)
    left = np.maximum(right - 1, 0)
    nearer_left = np.abs(frames - present[left]) <= np.abs(present[right] - frames)
    nearest = np.where(nearer_left, present[left], present[right])
    return landmarks[nearest]


def _segments(found: NDArray[np.bool_], cuts: tuple[int, ...]) -> list[slice]:
    """Runs of frames with continuous motion."""
    change = set(cuts) | {0, len(found)}
    change |= set((np.flatnonzero(np.diff(found.astype(np.int8))) + 1).tolist())
    edges = sorted(change)
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def _smoothed(pose: Pose, free: F32, segments: list[slice], model: FaceModel) -> tuple[Pose, F32]:
    scale, rotation = pose.scale.copy(), pose.rotation.copy()
    translation, vertices = pose.translation.copy(), free.copy()
    mouth = model.weight > 0.5
    for part in segments:
        smooth_pose = _smoothed_pose(
            Pose(pose.scale[part], pose.rotation[part], pose.translation[part]),
            model.mean[model.rigid],
        )
        scale[part], rotation[part] = smooth_pose.scale, smooth_pose.rotation
        translation[part] = smooth_pose.translation
        vertices[part] = _savgol(free[part], _SKIN_WINDOW)
        lips = free[part][:, mouth]
        smooth = _savgol(lips, _MOUTH_WINDOW)
        jitter = _jitter((smooth - lips)[..., :2], pose.scale[part])
        vertices[part][:, mouth] = lips + jitter[:, None, None] * (smooth - lips)
    return Pose(scale, rotation, translation), vertices


def _jitter(change: F32, scale: F32) -> F32:
    """How far jitter explains what smoothing changes, f32 [frames], 0 to 1.

    change: f32 [frames, points, 2], inter-ocular distances. scale: f32 [frames], px of one.
    """
    distance = np.sqrt(uniform_filter1d((change**2).sum(-1).mean(1), _AVERAGED, mode="nearest"))
    low, high = (np.maximum(of, px / scale) for of, px in zip(_JITTER, _JITTER_PX, strict=True))
    return np.clip((high - distance) / (high - low), 0, 1).astype(np.float32)


def _smoothed_pose(pose: Pose, head: F32) -> Pose:
    """A run of poses without jitter; head: f32 [R, 3], the rigid points that they move.

    Each frame is smoothed as far as its head stays where it was tracked. One window for all frames
    would displace the mouth of a shaken head by a quarter of the inter-ocular distance.
    """
    tracked, smoothed = pose.apply(head), pose
    for window in _POSE_WINDOWS:
        u, _, vt = np.linalg.svd(_savgol(pose.rotation, window))
        smooth = Pose(_savgol(pose.scale, window), u @ vt, _savgol(pose.translation, window))
        change = (smooth.apply(head) - tracked)[..., :2] / pose.scale[:, None, None]
        smoothed = _interpolated(smoothed, smooth, _jitter(change, pose.scale))
    return smoothed


def _interpolated(a: Pose, b: Pose, weight: F32) -> Pose:
    """Poses a weight f32 [frames] of the way from a to b."""
    u, _, vt = np.linalg.svd(a.rotation + weight[:, None, None] * (b.rotation - a.rotation))
    return Pose(
        a.scale + weight * (b.scale - a.scale),
        u @ vt,
        a.translation + weight[:, None] * (b.translation - a.translation),
    )


def _savgol(x: F32, window: int) -> F32:
    """Quadratic Savitzky-Golay filter along the first axis; short runs take a shorter window."""
    window = min(window, len(x) - 1 + len(x) % 2)
    if window < 5:
        return x
    return savgol_filter(x, window, 2, axis=0).astype(np.float32)
