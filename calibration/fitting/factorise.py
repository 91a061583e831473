"""From what the tracker saw to geometry, pose and expression.

The factors of *Everybody's Talkin'* (arXiv 2001.05201, §III-A): who it is (geometry), where the
head is (pose), what the face does (expression). What trembles is smoothed, with zero-phase filters,
because a lag here would be an audio-video offset later; what moves is left as it was tracked.
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

_POSE_WINDOWS = (5, 9)  # frames; of a head at rest a long mean takes the tracker's trembling
_SKIN_WINDOW = 7
_MOUTH_WINDOW = 5
# How far what is smoothed may lie from what was tracked: within the first the tracker trembles
# (measured: 0.1 to 0.3 px), beyond the second it is motion, a nod or lips that meet for a frame.
_TREMBLE = (0.006, 0.012)  # inter-ocular distances
_TREMBLE_PX = (0.25, 0.5)  # or as much, on small faces
_NEAR = 3  # frames that are judged together
_PASSES = 3


def factorise(
    landmarks: F32,
    cuts: tuple[int, ...],
    usable: NDArray[np.bool_],
    paintable: NDArray[np.bool_],
    fps: Fraction,
    model: FaceModel,
) -> Track:
    """Fit one person's footage.

    landmarks f32 [N, ≥468, 3], px, NaN where no face was found; cuts: first frames of new shots;
    usable and paintable bool [N].

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
    for _ in range(_PASSES):  # the person's own shape gives the better pose, and so on
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
    """Lip opening of every frame over the inter-ocular distance, f32 [N]."""
    return lip_opening(track.pose.remove(track.landmarks))


def _filled(landmarks: F32, found: NDArray[np.bool_]) -> F32:
    """Frames without a face borrow the nearest one, so that every array is finite."""
    if found.all():
        return landmarks
    at = np.flatnonzero(found)
    frames = np.arange(len(landmarks))
    right = np.clip(np.searchsorted(at, frames), 0, len(at) - 1)
    left = np.maximum(right - 1, 0)
    nearer_left = np.abs(frames - at[left]) <= np.abs(at[right] - frames)
    nearest = np.where(nearer_left, at[left], at[right])
    return landmarks[nearest]


def _segments(found: NDArray[np.bool_], cuts: tuple[int, ...]) -> list[slice]:
    """Runs of frames across which motion is continuous."""
    change = set(cuts) | {0, len(found)}
    change |= set((np.flatnonzero(np.diff(found.astype(np.int8))) + 1).tolist())
    edges = sorted(change)
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def _smoothed(pose: Pose, free: F32, segments: list[slice], model: FaceModel) -> tuple[Pose, F32]:
    scale, rotation = pose.scale.copy(), pose.rotation.copy()
    translation, still = pose.translation.copy(), free.copy()
    mouth = model.weight > 0.5
    for part in segments:
        steady = _steadied(
            Pose(pose.scale[part], pose.rotation[part], pose.translation[part]),
            model.mean[model.rigid],
        )
        scale[part], rotation[part] = steady.scale, steady.rotation
        translation[part] = steady.translation
        still[part] = _savgol(free[part], _SKIN_WINDOW)
        lips = free[part][:, mouth]
        smooth = _savgol(lips, _MOUTH_WINDOW)
        share = _trembling((smooth - lips)[..., :2], pose.scale[part])
        still[part][:, mouth] = lips + share[:, None, None] * (smooth - lips)
    return Pose(scale, rotation, translation), still


def _trembling(missed: F32, scale: F32) -> F32:
    """How far the tracker's trembling explains what smoothing missed by, 0 to 1: f32 [frames].

    missed f32 [frames, points, 2], inter-ocular distances; scale f32 [frames], px of one.
    """
    off = np.sqrt(uniform_filter1d((missed**2).sum(-1).mean(1), _NEAR, mode="nearest"))
    low, high = (np.maximum(of, px / scale) for of, px in zip(_TREMBLE, _TREMBLE_PX, strict=True))
    return np.clip((high - off) / (high - low), 0, 1).astype(np.float32)


def _steadied(pose: Pose, head: F32) -> Pose:
    """A run of poses without the tracker's trembling, head f32 [R, 3] being what they move.

    Each frame is smoothed as far as its head stays where it was tracked: one window for all would
    leave the mouth of a shaken head behind by a quarter of the inter-ocular distance.
    """
    tracked, steady = pose.apply(head), pose
    for window in _POSE_WINDOWS:
        u, _, vt = np.linalg.svd(_savgol(pose.rotation, window))
        smooth = Pose(_savgol(pose.scale, window), u @ vt, _savgol(pose.translation, window))
        missed = (smooth.apply(head) - tracked)[..., :2] / pose.scale[:, None, None]
        steady = _between(steady, smooth, _trembling(missed, pose.scale))
    return steady


def _between(a: Pose, b: Pose, share: F32) -> Pose:
    """From a to b by share f32 [frames]."""
    u, _, vt = np.linalg.svd(a.rotation + share[:, None, None] * (b.rotation - a.rotation))
    return Pose(
        a.scale + share * (b.scale - a.scale),
        u @ vt,
        a.translation + share[:, None] * (b.translation - a.translation),
    )


def _savgol(x: F32, window: int) -> F32:
    """Quadratic Savitzky-Golay along the first axis; shorter runs take a shorter window."""
    window = min(window, len(x) - 1 + len(x) % 2)
    if window < 5:
        return x
    return savgol_filter(x, window, 2, axis=0).astype(np.float32)
