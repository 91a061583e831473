"""The footage behind the mouth: plain frames, and at a jump a morph that hides it.

For a few frames after a jump, the old path plays on beside the new one. Both are warped to a head
position that moves from the old to the new, and crossfaded, so the head glides in place of a leap.
Source: ours, after the blended cuts of *Video Textures* (SIGGRAPH 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipstream.engine.face.mesh import head_triangles, smoothstep
from lipstream.engine.face.model import FACE_OVAL, FaceModel, Pose, fit_pose
from lipstream.engine.face.retarget import Placement, with_rings
from lipstream.engine.frozen import Frozen
from lipstream.engine.profiling import span
from lipstream.engine.target.frames import FrameDecoder
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, U8
from lipstream.kernels import composite
from lipstream.kernels.mesh import warp_region

MORPH_FRAMES = 6
_RINGS = ((0.5, 0.7), (1.2, 0.3), (2.2, 0.0))  # inter-ocular distances out, weight of the motion


@dataclass(frozen=True, slots=True)
class JumpBlend:
    """The footage frames on show, and the progress of a morph."""

    current: int = -1  # track frame on show; -1 before the first
    old: int = -1  # frame of the path before the last jump, played on
    frames_left: int = 0  # of the morph


def advance(blend: JumpBlend, frame: int, frames: int) -> JumpBlend:
    """One frame later, with `frame` of `frames` on show."""
    if blend.current >= 0 and abs(frame - blend.current) > 1:
        return JumpBlend(frame, min(blend.current + 1, frames - 1), MORPH_FRAMES)
    left = max(blend.frames_left - 1, 0)
    old = min(blend.old + 1, frames - 1) if left else -1
    return JumpBlend(frame, old, left)


class Background(Frozen):
    """The footage of one target; its sessions share it."""

    def __init__(self, track: Track, model: FaceModel, one_picture: bool = False) -> None:
        """`track`: of the footage; `one_picture`: all of it is of one photo."""
        self._track = track
        self._one_picture = one_picture
        self._model = model
        self._triangles = head_triangles(model, len(_RINGS))

    @span("background")
    def paint(self, blend: JumpBlend, decoder: FrameDecoder) -> tuple[U8, Placement]:
        """The frame on show, read-only I420 u8 [h*3/2, w], and its face."""
        frame, place = decoder.read(blend.current), self._track.placement(blend.current)
        if blend.frames_left == 0:
            return frame, place
        t = 1 - blend.frames_left / (MORPH_FRAMES + 1)
        weight = np.float32(smoothstep(t))  # of the new path
        new, old = self._track.landmarks[blend.current], self._track.landmarks[blend.old]
        between = (old + weight * (new - old)).astype(np.float32)
        new_frame = self._moved(frame, new, between)
        if self._one_picture:  # the old frame would show the same pixels
            return new_frame, self._placed(between, blend, weight)
        old_frame = self._moved(decoder.read(blend.old), old, between)
        crossfade = composite.crossfade(old_frame, new_frame, float(weight))
        return crossfade, self._placed(between, blend, weight)

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

    def _placed(self, landmarks: F32, blend: JumpBlend, weight: np.float32) -> Placement:
        """The face at interpolated vertices f32 [468, 3]."""
        pose: Pose = fit_pose(landmarks[None], self._track.geometry, self._model.rigid)
        old, new = self._track.expression[blend.old], self._track.expression[blend.current]
        return Placement(
            float(pose.scale[0]),
            pose.rotation[0],
            pose.translation[0],
            pose.remove(landmarks[None])[0],
            (old + weight * (new - old)).astype(np.float32),
        )
