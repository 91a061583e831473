"""Features by which two mouths of one person are compared, to choose a source.

Calibration learns them from the footage (`calibration/person/similarity_features.py`). For photos
and short footage, the shape of the lips and the pose of the head take their place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import UsageError
from lipstream.engine.face.model import LIP_MIDDLES_AND_CORNERS, FaceModel
from lipstream.engine.types import F32, I32

_OPENING_WEIGHT, _WIDTH_WEIGHT = 4.0, 1.5
# A source with too small an opening needs synthetic teeth. One of another pose is only warped a
# little, and a crossfade hides the change. So the shape of the lips has the greater weight.
_POSE_WEIGHT: Final = 0.15


def random_pair_cost(features: F32) -> float:
    """The unit of costs: mean squared distance of two random rows of f32 [N, F]; 1 if it is 0."""
    spread = 2 * float(features.var(axis=0, dtype=np.float64).sum())
    return spread if spread > 0 else 1.0


@dataclass(frozen=True, slots=True)
class MouthSimilarity:
    """Features whose squared distance is the dissimilarity of two mouths; 1 for random sources.

    A mouth of expression e over footage frame b, in its light and pose, has the features
    `projection @ e + frame_offset[b]`.
    """

    projection: F32  # f32 [F, K]
    frame_offset: F32  # f32 [N, F], of every frame of the footage
    source_descriptors: F32  # f32 [S, D], whose distance is how visible a change of source is

    def features(self, expression: F32, frame: int | NDArray[np.integer]) -> F32:
        """Features f32 [F] of a mouth of expression f32 [K] over one frame of the footage.

        Of N of each: f32 [N, F].
        """
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
                f"features have shapes {shapes}; expected [F, K], [N, F] and [S, D], all finite"
            )


def by_shape(expression: F32, angles_deg: F32, sources: I32, model: FaceModel) -> MouthSimilarity:
    """From expressions f32 [N, K] and head angles f32 [N, 3] of the footage alone."""
    projection = shape_projection(expression[sources], model)
    turned = angles_deg * np.sqrt(_POSE_WEIGHT / random_pair_cost(angles_deg[sources]))
    pad = np.zeros((len(expression), len(projection)))
    still = np.zeros((turned.shape[1], model.size))
    return MouthSimilarity(
        np.concatenate([projection, still]).astype(np.float32),
        np.concatenate([pad, turned], axis=1).astype(np.float32),
        (expression[sources] @ projection.T).astype(np.float32),
    )


def shape_projection(sources: F32, model: FaceModel) -> F32:
    """Projection f32 [K + 2, K] to the shape of the lips; 1 between random rows of f32 [S, K].

    Each coefficient has the weight with which it moves the lips; opening and width are added.
    """
    moved = np.sqrt((model.basis[:, LIP_MIDDLES_AND_CORNERS] ** 2).sum((1, 2)))
    opening, width, _ = model.lip_rows()
    projection = np.concatenate(
        [np.diag(moved), [_OPENING_WEIGHT * opening], [_WIDTH_WEIGHT * width]]
    )
    scaled: F32 = (projection * random_pair_cost(sources @ projection.T) ** -0.5).astype(np.float32)
    return scaled
