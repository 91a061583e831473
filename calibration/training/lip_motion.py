"""Tracked speech of one person, and how its lower face moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.fitting.canonical import neutral_face
from lipstream.engine.face.model import VERTICES, fit_pose
from lipstream.engine.types import F32


@dataclass(frozen=True, slots=True)
class TrackedClip:
    """The tracked frames of one clip of one person."""

    speaker: str
    landmarks: F32  # f32 [frames, 478, 3], px
    blendshapes: F32  # f32 [frames, 52]


def lip_motion(landmarks: F32, mean: F32, rigid: NDArray[np.int64]) -> F32:
    """Motion of the lower face in one clip, f32 [frames, 468, 3]; landmarks f32 [frames, ≥468, 3].

    The pose is removed, and the person's own neutral face taken off.
    """
    neutral = mean
    for _ in range(2):  # better geometry gives a better pose
        free = fit_pose(landmarks, neutral, rigid).remove(landmarks[:, :VERTICES])
        neutral = neutral_face(free)
    lower = np.clip((mean[:, 1] - mean[2, 1] + 0.35) / 0.25, 0, 1)
    motion: F32 = (free - neutral) * lower[None, :, None]
    return motion
