"""A loop of idle footage, rendered from one photo: the head, brows and eyes move (`motion`).

The last frame of the loop leads back to its first without a jump.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lipstream.calibration.photo.expression import PhotoFace, photo_expression
from lipstream.calibration.photo.eyes import EyePainter
from lipstream.calibration.photo.motion import FPS, Motion
from lipstream.engine.face.mesh import head_triangles, smoothstep
from lipstream.engine.face.model import FACE_OVAL, VERTICES, FaceModel, Pose, fit_pose
from lipstream.engine.face.retarget import with_rings
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, U8
from lipstream.kernels.color import i420_to_rgb, rgb_to_i420
from lipstream.kernels.mesh import warp_mesh

_NECK = np.array([0.0, 2.0, 0.9], np.float32)  # canonical; the head turns about it
# Rings of vertices round the face: distance in inter-ocular distances, fraction of the motion.
_RINGS = ((0.35, 0.8), (0.9, 0.45), (1.7, 0.15), (2.8, 0.0))


def idle_track(face: PhotoFace, motion: Motion, model: FaceModel) -> tuple[Track, F32]:
    """The track of the loop, and the rest expression f32 [K]."""
    observed, rest = photo_expression(face, model)
    start = face.landmarks[None, :VERTICES].astype(np.float32)
    still = fit_pose(start, model.mean, model.rigid)
    free = still.remove(start)
    geometry = free[0] - model.displacement(observed)
    rotations = _rotations(motion.turns)
    rotation = np.matmul(rotations, still.rotation)
    pivot = still.apply(_NECK[None, None])[0, 0]
    about = (still.translation[0] - pivot) @ rotations.transpose(0, 2, 1)
    translation = pivot + about
    translation[:, :2] += motion.shifts * still.scale[0]
    frames = len(motion)
    pose = Pose(
        np.repeat(still.scale, frames),
        rotation.astype(np.float32),
        translation.astype(np.float32),
    )
    landmarks = pose.apply(np.repeat(free, frames, 0))
    every = np.ones(frames, bool)
    speed = np.linalg.norm(
        np.diff(translation[:, :2], axis=0, prepend=translation[-1:, :2]), axis=1
    )
    track = Track(
        landmarks, pose, np.repeat(observed[None], frames, 0), geometry, every, every,
        (speed / still.scale[0] * float(FPS)).astype(np.float32),
    )  # fmt: skip
    return track, rest


def idle_frames(
    photo: U8, face: PhotoFace, track: Track, motion: Motion, model: FaceModel
) -> Iterator[U8]:
    """The frames of the loop, I420 u8 [h*3/2, w], from the photo u8 [h, w, 3]."""
    height, width = photo.shape[:2]
    start = face.landmarks[:VERTICES, :2]
    scale = float(track.pose.scale[0])
    triangles = head_triangles(model, len(_RINGS))
    photo = i420_to_rgb(rgb_to_i420(photo))
    eyes, looking = EyePainter(photo, face.landmarks), photo.copy()
    forehead = np.zeros((VERTICES, 3), np.float32)
    forehead[:, 1] = -_brow_share(model.mean)
    for k in range(len(track)):
        eyes.paint(looking, float(motion.closed[k]), (motion.gaze[k, 0], motion.gaze[k, 1]))
        place = track.placement(k)
        target = place.project(place.canonical_vertices + motion.brows[k] * forehead)
        before, after = with_rings(start, target, FACE_OVAL, scale, _RINGS)
        low = np.maximum(np.floor(after.min(0)).astype(int), 0)
        high = np.minimum(np.ceil(after.max(0)).astype(int), (width, height))
        window = np.ascontiguousarray(photo[low[1] : high[1], low[0] : high[0]])
        corner = (int(low[0]), int(low[1]))
        warped, _ = warp_mesh(
            looking, before, after, triangles, window.shape[:2], corner, onto=window
        )
        frame = photo.copy()
        frame[low[1] : high[1], low[0] : high[0]] = warped
        yield rgb_to_i420(frame)


def _brow_share(mean: F32) -> F32:
    """How far each vertex f32 [468] rises with the brows: the lids not, the hairline little."""
    up, aside = -mean[:, 1], np.abs(mean[:, 0])
    rises = smoothstep((up - 0.12) / 0.16) * (1 - 0.85 * smoothstep((up - 0.34) / 0.4))
    share: F32 = rises * (1 - smoothstep((aside - 0.85) / 0.25))
    return share


def _rotations(turns: F32) -> F32:
    """Pitch, yaw, roll f32 [n, 3] to rotation matrices f32 [n, 3, 3]."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", turns).as_matrix().astype(np.float32)
