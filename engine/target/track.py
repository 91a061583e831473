"""What calibration measured in each frame of the footage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.face.model import Pose
from lipstream.engine.face.retarget import Placement
from lipstream.engine.types import F32


@dataclass(frozen=True, slots=True)
class Track:
    """Face, pose, expression and quality of each footage frame."""

    landmarks: F32  # f32 [N, 468, 3], px, smoothed
    pose: Pose  # of N frames
    expression: F32  # f32 [N, K]
    geometry: F32  # f32 [468, 3], at rest
    usable: NDArray[np.bool_]  # bool [N]; the matcher never shows a frame that is not
    paintable: NDArray[np.bool_]  # bool [N]; False where no mouth is painted: it is covered, turned
    # away or not there, and in sequential order the frame is shown unchanged
    head_speed: F32  # f32 [N], inter-ocular distances per second

    def __len__(self) -> int:
        """N, the number of frames."""
        return len(self.landmarks)

    def placement(self, index: int) -> Placement:
        """The face of one frame."""
        one = Pose(
            self.pose.scale[index : index + 1],
            self.pose.rotation[index : index + 1],
            self.pose.translation[index : index + 1],
        )
        canonical_vertices = one.remove(self.landmarks[index : index + 1])[0]
        return Placement(
            float(one.scale[0]),
            one.rotation[0],
            one.translation[0],
            canonical_vertices,
            self.expression[index],
        )
