"""What makes one mouth of a person look like another: by which a source of it is chosen.

Calibration measures it in the footage (`calibration/person/similarity_features.py`). Where it could
not, in photos and short footage, the shape of the lips and the head's pose have to tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import UsageError
from lipstream.engine.face.model import LIP_MIDDLES_AND_CORNERS, FaceModel
from lipstream.engine.target.similarity_unit import random_pair_cost
from lipstream.engine.types import F32, I32

_OPENING_COUNTS, _WIDTH_COUNTS = 4.0, 1.5
# A mouth of the wrong opening has to be invented; one of another pose is only turned a little,
# and a fade hides a change. So the shape of the lips leads.
_POSE_COUNTS: Final = 0.15


@dataclass(frozen=True, slots=True)
class MouthSimilarity:
    """Readings whose squared differences say how unlike two mouths are; 1: two random sources.

    A mouth of expression e, in the light and pose of footage frame b, reads `forms @ e + own[b]`.
    """

    projection: F32  # f32 [F, K]
    frame_offset: F32  # f32 [N, F], of every frame of the footage
    source_descriptors: (
        F32  # f32 [S, D], of each source as it was filmed: how much a change of source shows
    )

    def read(self, expression: F32, frame: int | NDArray[np.integer]) -> F32:
        """Readings f32 [F] of a mouth of expression f32 [K] over a frame of the footage, or
        f32 [N, F] of as many of each."""
        features: F32 = expression @ self.projection.T + self.frame_offset[frame]
        return features

    def __post_init__(self) -> None:
        """Check that the arrays belong together."""
        shapes = self.projection.shape, self.frame_offset.shape, self.source_descriptors.shape
        whole = all(
            np.isfinite(a).all()
            for a in (self.projection, self.frame_offset, self.source_descriptors)
        )
        if tuple(map(len, shapes)) != (2, 2, 2) or shapes[0][0] != shapes[1][1] or not whole:
            raise UsageError(
                f"readings have shapes {shapes}; expected [F, K], [N, F] and [S, D], all finite"
            )


def by_shape(expression: F32, angles_deg: F32, sources: I32, model: FaceModel) -> MouthSimilarity:
    """From expressions f32 [N, K] and head angles f32 [N, 3] of the footage alone."""
    projection = shape_projection(expression[sources], model)
    turned = angles_deg * np.sqrt(_POSE_COUNTS / random_pair_cost(angles_deg[sources]))
    pad = np.zeros((len(expression), len(projection)))
    still = np.zeros((turned.shape[1], model.size))
    return MouthSimilarity(
        np.concatenate([projection, still]).astype(np.float32),
        np.concatenate([pad, turned], axis=1).astype(np.float32),
        (expression[sources] @ projection.T).astype(np.float32),
    )


def shape_projection(sources: F32, model: FaceModel) -> F32:
    """Readings of the shape of lips, f32 [K + 2, K], 1 between random ones of f32 [S, K].

    Every coefficient counts by how far it moves the lips, and opening and width once more.
    """
    moved = np.sqrt((model.basis[:, LIP_MIDDLES_AND_CORNERS] ** 2).sum((1, 2)))
    opening, width, _ = model.lip_rows()
    projection = np.concatenate(
        [np.diag(moved), [_OPENING_COUNTS * opening], [_WIDTH_COUNTS * width]]
    )
    scaled: F32 = (projection * random_pair_cost(sources @ projection.T) ** -0.5).astype(np.float32)
    return scaled
