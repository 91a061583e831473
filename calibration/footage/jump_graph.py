"""The jump graph: for each frame of the footage, the M least visible cuts to another frame.

After *Video Textures* (Schödl, Szeliski, Salesin, Essa, SIGGRAPH 2000): a jump i -> j is good if j
looks like i + 1, moves like it, and does not lead into a dead end, which is their anticipated
future cost. The scales of what is visible, and the pruning to local minima in time, are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import CalibrationError
from lipstream.engine.types import F32, I32, U8

# Landmarks that speech hardly moves: forehead, temples, eye corners, nose.
_HEAD = (
    1, 4, 5, 6, 8, 9, 10, 33, 54, 67, 103, 109, 127, 133, 162,
    168, 195, 197, 234, 251, 263, 284, 297, 332, 338, 356, 362, 389, 454,
)  # fmt: skip
_LIDS = ((159, 145), (386, 374))  # upper, lower
_EYES = ((33, 133), (362, 263))
_LANDMARKS = 468
_BLOCK_FRAMES = 256  # rows of the frame-to-frame table in memory at a time: 15 MB at N = 15 000
_MOTION_FEATURES = 24  # a rigid head has few degrees of freedom; the rest is tracker noise
_IMAGE_FEATURES = 24  # principal components of the thumbnails
_FUTURE_SWEEPS = 30


@dataclass(frozen=True, slots=True)
class JumpScales:
    """Plainly visible differences; each of them alone gives a jump a cost of 1."""

    position: float = 0.08  # of the head, inter-ocular distances
    velocity: float = 0.03  # of the head, inter-ocular distances per frame
    lids: float = 0.06  # of the eye opening, inter-ocular distances
    image: float = 8.0  # of the thumbnail, levels of 0..255, root mean square
    near_frames: int = 25  # a jump is at least this long
    tail_frames: int = 25  # and does not land nearer to the end than this
    min_separation_frames: int = 3  # of targets nearer to one another, the best is kept
    discount: float = 0.99  # of the future, per frame

    def __post_init__(self) -> None:
        """Raises CalibrationError for scales that cannot be divided by, and the like."""
        if min(self.position, self.velocity, self.lids, self.image) <= 0:
            raise CalibrationError(f"{self}; expected scales above 0")
        if min(self.near_frames, self.tail_frames, self.min_separation_frames) < 0:
            raise CalibrationError(f"{self}; expected frame counts of 0 or more")
        if not 0 <= self.discount < 1:
            raise CalibrationError(f"discount is {self.discount}; expected 0 <= discount < 1")


@dataclass(frozen=True, slots=True)
class JumpGraph:
    """The jumps out of each of N frames, cheapest first."""

    indices: I32  # i32 [N, M], frame shown next; -1 where there are fewer than M
    cost: F32  # f32 [N, M], 1 is plainly visible; infinite where there are fewer


def head_speed(landmarks: F32, fps: float) -> F32:
    """Speed of the head, f32 [N], inter-ocular distances per second.

    From landmarks f32 [N, 468+, 2+] px, over five frames, which averages tracker noise. Frames
    without a face (NaN) repeat the last one.
    """
    head = _head(_without_gaps(landmarks))
    frames = len(head)
    before = np.maximum(np.arange(frames) - 2, 0)
    after = np.minimum(np.arange(frames) + 2, frames - 1)
    step = np.linalg.norm((head[after] - head[before]).reshape(frames, -1, 2), axis=2).mean(axis=1)
    speed: F32 = (step * fps / np.maximum(after - before, 1)).astype(np.float32)
    return speed


def jump_graph(
    landmarks: F32,
    thumbnails: U8 | None = None,
    rejected: NDArray[np.bool_] | None = None,
    jumps: int = 16,
    scales: JumpScales | None = None,
) -> JumpGraph:
    """The best jumps out of every frame, within bounded memory.

    Args:
        landmarks: f32 [N, 468+, 2+], px; NaN where there was no face: such frames are rejected.
        thumbnails: u8 [N, h, w], the frames small and grey, or None.
        rejected: bool [N], frames that no jump may leave or reach.
        jumps: M.
        scales: of visible differences.

    Raises:
        CalibrationError: arrays that do not belong together, or hold numbers that are not finite.
    """
    scales = scales or JumpScales()
    frames = len(landmarks)
    excluded: NDArray[np.bool_] = np.zeros(frames, bool) if rejected is None else rejected
    if excluded.shape != (frames,):
        raise CalibrationError(f"rejected is {excluded.shape}; expected [{frames}]")
    excluded = np.logical_or(excluded, ~_has_face(landmarks))
    features = _features(_without_gaps(landmarks), thumbnails, scales)
    candidates = _nearest(features, excluded, 3 * jumps, scales)
    priced = candidates.cost + scales.discount * _future(candidates, scales)
    order = np.argsort(priced, axis=1, kind="stable")[:, :jumps]
    cost = np.take_along_axis(priced, order, axis=1).astype(np.float32)
    indices = np.take_along_axis(candidates.indices, order, axis=1)
    indices[np.isinf(cost)] = -1
    short = jumps - indices.shape[1]
    return JumpGraph(
        np.pad(indices, ((0, 0), (0, short)), constant_values=-1),
        np.pad(cost, ((0, 0), (0, short)), constant_values=np.inf),
    )


def _has_face(landmarks: F32) -> NDArray[np.bool_]:
    if landmarks.ndim != 3 or landmarks.shape[1] < _LANDMARKS or landmarks.shape[2] < 2:
        raise CalibrationError(
            f"landmarks are {landmarks.shape}; expected [N, 468 or more, 2 or 3]"
        )
    found = np.asarray(np.isfinite(landmarks).all(axis=(1, 2)))
    if not found.any():
        raise CalibrationError(f"no face in any of {len(landmarks)} frames; expected landmarks")
    return found


def _without_gaps(landmarks: F32) -> F32:
    """Frames without a face filled with the last one before them, at the start the first after."""
    found = _has_face(landmarks)
    frames = np.arange(len(landmarks))
    nearest = np.maximum.accumulate(np.where(found, frames, -1))
    return landmarks[np.where(nearest < 0, int(found.argmax()), nearest)]


def _head(landmarks: F32) -> F32:
    """The head's landmarks over the median inter-ocular distance: f32 [N, 2 * len(_HEAD)]."""
    head: F32 = landmarks[:, _HEAD, :2] / _eye_distance(landmarks)
    return head.reshape(len(landmarks), -1)


def _eye_distance(landmarks: F32) -> np.float32:
    left, right = (landmarks[:, pair, :2].mean(axis=1) for pair in _EYES)
    distance = np.median(np.linalg.norm(left - right, axis=1))
    if not distance > 0:
        raise CalibrationError("the eyes coincide in most frames; expected tracked landmarks in px")
    return np.float32(distance)


def _features(landmarks: F32, thumbnails: U8 | None, scales: JumpScales) -> F32:
    """f32 [N, F]: squared distances between rows are jump costs before the future is added."""
    head = _smooth(_head(landmarks))
    frames = len(head)
    points = len(_HEAD)
    velocity = np.gradient(head, axis=0) if frames > 1 else np.zeros_like(head)
    lids = np.stack(
        [landmarks[:, lower, 1] - landmarks[:, upper, 1] for upper, lower in _LIDS], axis=1
    ) / _eye_distance(landmarks)
    # Head position and velocity are highly correlated: few components keep the distances.
    motion = np.concatenate([head / scales.position, velocity / scales.velocity], axis=1) / np.sqrt(
        points
    )
    parts = [_compact(motion, _MOTION_FEATURES), lids / scales.lids / np.sqrt(len(_LIDS))]
    if thumbnails is not None:
        if thumbnails.ndim != 3 or len(thumbnails) != frames or thumbnails.dtype != np.uint8:
            raise CalibrationError(
                f"thumbnails are {thumbnails.dtype} {thumbnails.shape}; "
                f"expected u8 [{frames}, h, w]"
            )
        pixels = thumbnails.reshape(frames, -1)
        levels = pixels.astype(np.float32) / np.float32(scales.image * np.sqrt(pixels.shape[1]))
        parts.append(_compact(levels, _IMAGE_FEATURES))
    return np.concatenate(parts, axis=1, dtype=np.float32)


def _smooth(values: F32) -> F32:
    """Binomial 1-2-1 filter over time, ends repeated, against tracker noise."""
    padded = np.pad(values, ((1, 1), (0, 0)), mode="edge")
    smooth: F32 = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) * np.float32(0.25)
    return smooth


def _compact(values: F32, components: int) -> F32:
    """Principal components of rows f32 [N, D], at most `components`, at their own scale."""
    centred: F32 = np.subtract(values, values.mean(axis=0), dtype=np.float32)
    if centred.shape[1] <= components:
        return centred
    _, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    leading: F32 = vectors[:, ::-1][:, :components].astype(np.float32)
    compact: F32 = centred @ leading
    return compact


def _nearest(
    features: F32, excluded: NDArray[np.bool_], count: int, scales: JumpScales
) -> JumpGraph:
    """For each frame i, the frames j most like i + 1 that are local minima in j and not near i."""
    frames = len(features)
    count = min(count, frames)
    indices = np.full((frames, count), -1, np.int32)
    cost = np.full((frames, count), np.inf, np.float32)
    squares = (features * features).sum(axis=1)
    no_target = excluded.copy()
    no_target[max(frames - scales.tail_frames, 0) :] = True
    columns = np.arange(frames)
    for first in range(0, frames, _BLOCK_FRAMES):
        rows = np.arange(first, min(first + _BLOCK_FRAMES, frames))
        # The successor's features; the last frame, which has none, stands for itself.
        successor = np.minimum(rows + 1, frames - 1)
        table = features[successor] @ features.T
        table *= -2
        table += squares
        table += squares[successor][:, None]
        np.maximum(table, 0, out=table)
        table[:, no_target] = np.inf
        table[excluded[rows]] = np.inf
        table[np.abs(successor[:, None] - columns) < scales.near_frames] = np.inf
        lowest = table.copy()
        for offset in range(1, min(scales.min_separation_frames, frames - 1) + 1):
            np.minimum(lowest[:, offset:], table[:, :-offset], out=lowest[:, offset:])
            np.minimum(lowest[:, :-offset], table[:, offset:], out=lowest[:, :-offset])
        table[table > lowest] = np.inf
        best = np.argpartition(table, count - 1, axis=1)[:, :count]
        indices[rows] = best
        cost[rows] = np.take_along_axis(table, best, axis=1)
    return JumpGraph(indices, cost)


def _future(candidates: JumpGraph, scales: JumpScales) -> F32:
    """Discounted cost f32 [N, C] of the jumps that must follow once a candidate is taken.

    value[j] = min(discount * value[j + 1], min over jumps (cost + discount * value[target])),
    and the end of the footage, which only a turn can leave, costs 1.
    """
    frames = len(candidates.cost)
    value = np.zeros(frames)
    for _ in range(_FUTURE_SWEEPS):
        leave = (candidates.cost + scales.discount * value[candidates.indices]).min(axis=1)
        after = np.empty(frames)
        following = 1.0
        for j in range(frames - 1, -1, -1):
            following = min(leave[j], scales.discount * following)
            after[j] = following
        settled = np.allclose(after, value, rtol=0, atol=1e-4)
        value = after
        if settled:
            break
    future: F32 = value[candidates.indices].astype(np.float32)
    return future
