"""What the face in a photo does, and what it does at rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lipstream.engine.face.model import VERTICES, FaceModel, fit_pose
from lipstream.engine.types import F32

_KEPT_SMILE: Final = 0.2


@dataclass(frozen=True, slots=True)
class PhotoFace:
    """One face of a photo, as tracked."""

    landmarks: F32  # f32 [≥468, 3], px
    blendshapes: F32  # f32 [52]


def photo_expression(face: PhotoFace, model: FaceModel) -> tuple[F32, F32]:
    """The expression in the photo and the rest expression, each f32 [K].

    One photo does not separate geometry from expression. The expression comes from the ARKit
    weights, with its opening corrected to that of the tracked lips. At rest the lips meet and a
    fifth of the smile remains.
    """
    pose = fit_pose(face.landmarks[None], model.mean, model.rigid)
    free = pose.remove(face.landmarks[None, :VERTICES])[0]
    observed = model.from_arkit @ np.append(face.blendshapes, 1).astype(np.float32)
    opening, direction = model.lip_rows()[0], model.opener()
    observed = observed + direction * (float(free[14, 1] - free[13, 1]) - opening @ observed)
    rest = (observed - direction * (opening @ observed)) * np.float32(_KEPT_SMILE)
    return observed.astype(np.float32), rest.astype(np.float32)
