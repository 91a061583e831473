"""What a mouth of this person looks like, for any expression, pose and light.

Calibration brings the lower lip region of every frame to one shape and learns how its looks follow
from what is known of a frame (its readings, `engine.target.similarity`). The engine asks for the
look of the frame that it is about to paint. A mouth is lent that looks like it, and the renderer
sees it beside that mouth: one mouth is sharp and wrong here and there, what is expected is soft and
right on the whole.

Looks are sums of a few principal ones, as in active appearance models (Cootes, Edwards and Taylor,
1998); how much of each, a Gaussian process tells (Rasmussen and Williams, 2006; Matérn kernel of
smoothness 3/2), whose mean costs one distance to each frame that was learned from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import UsageError
from lipstream.engine.face.mesh import FaceMesh, inner_grid
from lipstream.engine.types import F32, U8
from lipstream.kernels.composite import weighted_sum
from lipstream.kernels.viterbi import feature_distance

Float = TypeVar("Float", np.float32, np.float64)
TEXTURE_SHAPE: Final = (90, 126)  # rows, columns; the lip layer and its margin
_PX: Final = 96.0  # per inter-ocular distance
_GAP: Final = 0.15  # inter-ocular distances between the lips
_DEEP: Final = 0.15  # and at which a gap can show what was never seen; a thin one is all shadow


class Prediction(NamedTuple):
    """What a mouth is expected to look like, as a sum."""

    pca_coefficients: F32  # f32 [P], of each principal look
    confidence: float  # 0 to 1, less where nothing like it was seen


class AppearancePrior(NamedTuple):
    """What a mouth is expected to look like, as a picture."""

    texture: U8  # u8 [*LOOK_SHAPE, 3]
    confidence: float  # in what is between its lips


@dataclass(frozen=True, slots=True)
class Appearance:
    """The looks of one person's mouth."""

    relevance: F32  # f32 [F], how much each reading counts
    features: F32  # f32 [F, N], so counted, of the N frames that were learned from
    length_scale: F32  # f32 [P], how far each principal look is felt, in units of the readings
    weights: F32  # f32 [N, P], of the frames' kernels in each principal look
    textures: F32  # f32 [1 + P, *LOOK_SHAPE, 3], the mean and the principal ones, levels
    sources: F32  # f32 [S, P], shares of the principal ones in the mouths that may be lent
    reference_distance: float  # how far the nearest of these frames is from nearly all others

    def __post_init__(self) -> None:
        """Check that the arrays belong together."""
        frames, count = self.weights.shape
        shapes = self.features.shape, self.length_scale.shape, self.textures.shape
        if shapes != ((len(self.relevance), frames), (count,), (1 + count, *TEXTURE_SHAPE, 3)):
            raise UsageError(
                f"readings, reach and looks of {frames} frames and {count} looks have shapes "
                f"{shapes}; they disagree"
            )
        if self.sources.shape[1:] != (count,):
            raise UsageError(f"sources {self.sources.shape}: expected shares of {count} looks")
        if not ((self.length_scale > 0).all() and self.reference_distance > 0):
            raise UsageError("a look is felt no way at all; expected a reach above 0")

    def predict(self, features: F32) -> Prediction:
        """Of a mouth with readings f32 [F]."""
        nothing = np.zeros(self.features.shape[1], np.float32)
        away = np.sqrt(feature_distance(self.features, self.relevance * features, nothing))
        pca_coefficients = np.empty(len(self.length_scale), np.float32)
        for length_scale in np.unique(self.length_scale):
            felt = self.length_scale == length_scale
            pca_coefficients[felt] = matern(away / length_scale) @ self.weights[:, felt]
        confidence = min(1.0, max(0.0, 2.5 - float(away.min()) / self.reference_distance))
        return Prediction(pca_coefficients, confidence)

    def picture(self, prediction: Prediction, opening: float) -> AppearancePrior:
        """What was foretold, to be laid on lips so far apart, inter-ocular distances."""
        pca_coefficients = np.concatenate([np.ones(1, np.float32), prediction.pca_coefficients])
        confidence = min(1.0, max(prediction.confidence, 1 - opening / _DEEP))
        return AppearancePrior(weighted_sum(self.textures, pca_coefficients), confidence)

    def spread(self) -> F32:
        """Levels that a share of 1 of each principal look comes to over a whole look, f32 [P]."""
        flat = self.textures[1:].reshape(len(self.length_scale), -1)
        levels: F32 = np.linalg.norm(flat, axis=1)
        return levels


def matern(distance: NDArray[Float]) -> NDArray[Float]:
    """The kernel, 1 at distance 0, for distances in units of its reach."""
    scaled = math.sqrt(3) * distance
    return (1 + scaled) * np.exp(-scaled)


def canonical_uv(mesh: FaceMesh) -> F32:
    """Where vertices and gap lie in a look, f32 [468 + G, 2], px: a mean face, its lips apart."""
    model = mesh.model
    worn = np.float32(_GAP) * model.opener()
    face = (model.mean + np.tensordot(worn, model.basis, 1)).astype(np.float32)
    shown = face[np.unique(mesh.lip_triangles), :2]
    corner = (shown.min(0) + shown.max(0)) / 2 - np.array(TEXTURE_SHAPE[::-1]) / (2 * _PX)
    points = np.concatenate([face, inner_grid(face)])[:, :2]
    return ((points - corner) * _PX).astype(np.float32)
