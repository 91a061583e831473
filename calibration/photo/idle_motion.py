"""A loop of small head motion, breath and blinks, rendered from one photo.

Every motion is a sum of whole cycles, so the last frame of the loop leads back to its first without
a jump.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from lipstream.calibration.photo.blinking import LOOP_FRAMES, blink_curve, lower_lids
from lipstream.calibration.photo.expression import PhotoFace, photo_expression
from lipstream.engine.face.mesh import head_triangles
from lipstream.engine.face.model import FACE_OVAL, VERTICES, FaceModel, Pose, fit_pose
from lipstream.engine.face.retarget import with_rings
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, U8
from lipstream.kernels.color import i420_to_rgb, rgb_to_i420
from lipstream.kernels.mesh import warp_mesh

FPS = Fraction(25)
_NECK = np.array([0.0, 2.0, 0.9], np.float32)  # canonical; the head turns about it
# Rings of vertices round the face: distance in inter-ocular distances, fraction of the motion.
_RINGS = ((0.35, 0.8), (0.9, 0.45), (1.7, 0.15), (2.8, 0.0))


def idle_track(face: PhotoFace, model: FaceModel) -> tuple[Track, F32]:
    """The track of the loop, and the rest expression f32 [K]."""
    observed, rest = photo_expression(face, model)
    start = face.landmarks[None, :VERTICES].astype(np.float32)
    still = fit_pose(start, model.mean, model.rigid)
    free = still.remove(start)
    geometry = free[0] - model.displacement(observed)
    turns, shifts = _idle_motion()
    rotation = np.matmul(_rotations(turns), still.rotation)
    pivot = still.apply(_NECK[None, None])[0, 0]
    about = (still.translation[0] - pivot) @ _rotations(turns).transpose(0, 2, 1)
    translation = pivot + about
    translation[:, :2] += shifts * still.scale[0]
    pose = Pose(
        np.repeat(still.scale, LOOP_FRAMES),
        rotation.astype(np.float32),
        translation.astype(np.float32),
    )
    landmarks = pose.apply(np.repeat(lower_lids(free[0], 0.0)[None], LOOP_FRAMES, 0))
    every = np.ones(LOOP_FRAMES, bool)
    speed = np.linalg.norm(
        np.diff(translation[:, :2], axis=0, prepend=translation[-1:, :2]), axis=1
    )
    track = Track(
        landmarks, pose, np.repeat(observed[None], LOOP_FRAMES, 0), geometry, every, every,
        (speed / still.scale[0] * float(FPS)).astype(np.float32),
    )  # fmt: skip
    return track, rest


def idle_frames(photo: U8, face: PhotoFace, track: Track, model: FaceModel) -> Iterator[U8]:
    """The frames of the loop, I420 u8 [h*3/2, w], from the photo u8 [h, w, 3]."""
    height, width = photo.shape[:2]
    start = face.landmarks[:VERTICES, :2]
    scale = float(track.pose.scale[0])
    triangles = head_triangles(model, len(_RINGS))
    lids = blink_curve()
    base = rgb_to_i420(photo)
    photo = i420_to_rgb(base)
    for k in range(len(track)):
        place = track.placement(k)
        target = place.project(lower_lids(place.canonical_vertices, float(lids[k])))
        before, after = with_rings(start, target, FACE_OVAL, scale, _RINGS)
        low = np.maximum(np.floor(after.min(0)).astype(int), 0)
        high = np.minimum(np.ceil(after.max(0)).astype(int), (width, height))
        shape = (int(high[1] - low[1]), int(high[0] - low[0]))
        warped, covered = warp_mesh(
            photo, before, after, triangles, shape, (int(low[0]), int(low[1]))
        )
        frame = photo.copy()
        window = frame[low[1] : high[1], low[0] : high[0]]
        window[covered > 0] = warped[covered > 0]
        yield rgb_to_i420(frame)


def _idle_motion() -> tuple[F32, F32]:
    """Turns f32 [frames, 3] (pitch, yaw, roll; radians) and shifts f32 [frames, 2]."""
    phase = np.arange(LOOP_FRAMES, dtype=np.float64) * 2 * np.pi / LOOP_FRAMES

    def wave(*terms: tuple[int, float, float]) -> F32:
        return np.sum(
            [size * np.sin(cycles * phase + shift) for cycles, size, shift in terms], axis=0
        ).astype(np.float32)

    pitch = np.radians(wave((2, 0.5, 0.3), (3, 0.7, 1.1), (7, 0.15, 2.0)))
    yaw = np.radians(wave((1, 1.1, 0.0), (2, 0.9, 2.2), (5, 0.3, 0.7)))
    roll = np.radians(wave((1, 0.5, 1.5), (3, 0.4, 0.2)))
    breath = wave((3, 0.012, 0.0))  # 15 a minute
    sway = wave((1, 0.012, 0.4), (2, 0.008, 1.9))
    turns = np.stack([pitch, yaw, roll], 1) - np.array([pitch[0], yaw[0], roll[0]])
    shifts = np.stack([sway - sway[0], breath - breath[0]], 1)
    return turns.astype(np.float32), shifts.astype(np.float32)


def _rotations(turns: F32) -> F32:
    """Pitch, yaw, roll f32 [n, 3] to rotation matrices f32 [n, 3, 3]."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", turns).as_matrix().astype(np.float32)
