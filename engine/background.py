"""The footage behind the mouth: plain frames, and at a jump a morph that hides it.

For a few frames after a jump the old path plays on beside the new one. Both are moved to a head
position between the two, which travels from the old to the new, and one fades into the other: the
head glides where it would have leapt. Source: ours, after the blended cuts of *Video Textures*
(SIGGRAPH 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipstream.engine.face_model import FACE_OVAL, FaceModel, Pose, fit_pose
from lipstream.engine.frames import FrameDecoder
from lipstream.engine.target import Track
from lipstream.engine.timing import stage
from lipstream.engine.types import F32, U8
from lipstream.engine.warp import Placement, head_triangles, smoothstep, with_rings
from lipstream.kernels import composite
from lipstream.kernels.mesh import warp_region

MORPH_FRAMES = 6
_RINGS = ((0.5, 0.7), (1.2, 0.3), (2.2, 0.0))  # inter-ocular distances out, share of the motion


@dataclass(frozen=True, slots=True)
class Walk:
    """The path as shown so far."""

    current: int = -1  # track frame shown last; -1 before the first
    old: int = -1  # where the path before the last jump would be now
    left: int = 0  # frames of morph still to come


def follow(walk: Walk, frame: int, frames: int) -> Walk:
    """The walk after showing `frame` of `frames`."""
    if walk.current >= 0 and abs(frame - walk.current) > 1:
        return Walk(frame, min(walk.current + 1, frames - 1), MORPH_FRAMES)
    left = max(walk.left - 1, 0)
    old = min(walk.old + 1, frames - 1) if left else -1
    return Walk(frame, old, left)


class Background:
    """Immutable; one is shared by all sessions of a target."""

    def __init__(self, track: Track, model: FaceModel) -> None:
        """Take the footage's track."""
        self._track = track
        self._model = model
        self._triangles = head_triangles(model, len(_RINGS))

    @stage("background")
    def paint(self, walk: Walk, decoder: FrameDecoder) -> tuple[U8, Placement]:
        """The frame of a walk, I420 u8 [h*3/2, w] (not to be written to), and its face."""
        frame, place = decoder.read(walk.current), self._track.placement(walk.current)
        if walk.left == 0:
            return frame, place
        t = 1 - walk.left / (MORPH_FRAMES + 1)
        share = np.float32(smoothstep(t))  # of the new path
        new, old = self._track.landmarks[walk.current], self._track.landmarks[walk.old]
        between = (old + share * (new - old)).astype(np.float32)
        old_frame = self._moved(decoder.read(walk.old), old, between)
        new_frame = self._moved(frame, new, between)
        mixed = composite.mixed(old_frame, new_frame, float(share))
        return mixed, self._placed(between, walk, share)

    def _moved(self, frame: U8, before: F32, after: F32) -> U8:
        """The frame with its head moved from one set of vertices to another."""
        height, width = frame.shape[0] * 2 // 3, frame.shape[1]
        scale = float(np.ptp(before[:, 0])) / 2.3
        start, end = with_rings(before[:, :2], after[:, :2], FACE_OVAL, scale, _RINGS)
        low = np.maximum(np.floor(end.min(0)).astype(int), 0) & ~1
        high = np.minimum(np.ceil(end.max(0)).astype(int), (width, height)) & ~1
        box = (int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1]))
        if box[2] <= 0 or box[3] <= 0:
            return frame
        corner = low.astype(np.float32)
        return warp_region(frame, box, start - corner, end - corner, self._triangles)

    def _placed(self, landmarks: F32, walk: Walk, share: np.float32) -> Placement:
        """The face at interpolated vertices f32 [468, 3]."""
        pose: Pose = fit_pose(landmarks[None], self._track.geometry, self._model.rigid)
        old, new = self._track.expression[walk.old], self._track.expression[walk.current]
        return Placement(
            float(pose.scale[0]),
            pose.rotation[0],
            pose.translation[0],
            pose.remove(landmarks[None])[0],
            (old + share * (new - old)).astype(np.float32),
        )
