"""Predicts the texture of this person's mouth for any expression, pose and light.

Calibration warps the lip region of every frame onto one canonical shape and learns its texture as
a function of the frame's features (`engine.target.similarity`). The engine predicts the texture of
the frame that it is about to paint. The prediction guides the choice of a mouth source, and the
renderer gets it as the appearance prior beside that source: a source is sharp but wrong in places,
the prior is soft but right on the whole.

A texture is a mean plus principal components, as in active appearance models (Cootes, Edwards and
Taylor, 1998). A Gaussian process predicts their coefficients (Rasmussen and Williams, 2006; Matérn
kernel of smoothness 3/2); its mean costs one distance to each training frame.
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
_GAP: Final = 0.15  # inter-ocular distances between the lips of the canonical shape
_DEEP: Final = 0.15  # opening from which confidence counts in full: a thin gap is all shadow


class Prediction(NamedTuple):
    """A predicted mouth texture, as coefficients."""

    pca_coefficients: F32  # f32 [P]
    confidence: float  # 0 to 1, less the farther the nearest training frame is


class AppearancePrior(NamedTuple):
    """A predicted mouth texture, as a picture."""

    texture: U8  # u8 [*TEXTURE_SHAPE, 3]
    confidence: float  # in the pixels between its lips, 0 to 1


@dataclass(frozen=True, slots=True)
class Appearance:
    """The model of one person's mouth textures, with N training frames and P components."""

    relevance: F32  # f32 [F], weight of each feature (automatic relevance determination)
    features: F32  # f32 [F, N], of the training frames, times `relevance`
    length_scale: F32  # f32 [P], of each component, in units of the features
    weights: F32  # f32 [N, P], of the training frames' kernels in each component
    textures: F32  # f32 [1 + P, *TEXTURE_SHAPE, 3], the mean and the components, 0 to 255
    sources: F32  # f32 [S, P], coefficients of the mouth sources
    reference_distance: (
        float  # from nearly every frame of the footage to its nearest training frame
    )

    def __post_init__(self) -> None:
        """Check that the arrays belong together."""
        frames, count = self.weights.shape
        shapes = self.features.shape, self.length_scale.shape, self.textures.shape
        if shapes != ((len(self.relevance), frames), (count,), (1 + count, *TEXTURE_SHAPE, 3)):
            raise UsageError(
                f"features, length scales and textures of {frames} frames and {count} components "
                f"have shapes {shapes}; they disagree"
            )
        if self.sources.shape[1:] != (count,):
            raise UsageError(f"sources {self.sources.shape}: expected {count} coefficients each")
        if not ((self.length_scale > 0).all() and self.reference_distance > 0):
            raise UsageError("a length scale or the reference distance is 0; expected more")

    def predict(self, features: F32) -> Prediction:
        """The texture of a mouth with features f32 [F]."""
        base = np.zeros(self.features.shape[1], np.float32)
        distance = np.sqrt(feature_distance(self.features, self.relevance * features, base))
        pca_coefficients = np.empty(len(self.length_scale), np.float32)
        for length_scale in np.unique(self.length_scale):
            columns = self.length_scale == length_scale
            pca_coefficients[columns] = matern(distance / length_scale) @ self.weights[:, columns]
        confidence = min(1.0, max(0.0, 2.5 - float(distance.min()) / self.reference_distance))
        return Prediction(pca_coefficients, confidence)

    def picture(self, prediction: Prediction, opening: float) -> AppearancePrior:
        """A prediction as a texture, for lips `opening` inter-ocular distances apart."""
        pca_coefficients = np.concatenate([np.ones(1, np.float32), prediction.pca_coefficients])
        confidence = min(1.0, max(prediction.confidence, 1 - opening / _DEEP))
        return AppearancePrior(weighted_sum(self.textures, pca_coefficients), confidence)

    def spread(self) -> F32:
        """Norm of each component over the whole texture, f32 [P], 0 to 255 a pixel."""
        flat = self.textures[1:].reshape(len(self.length_scale), -1)
        levels: F32 = np.linalg.norm(flat, axis=1)
        return levels


def matern(distance: NDArray[Float]) -> NDArray[Float]:
    """The Matérn 3/2 kernel, 1 at distance 0; distances in units of its length scale."""
    scaled = math.sqrt(3) * distance
    return (1 + scaled) * np.exp(-scaled)


def canonical_uv(mesh: FaceMesh) -> F32:
    """Vertices and inner grid in a texture, f32 [468 + G, 2], px: a mean face with parted lips."""
    model = mesh.model
    parted = np.float32(_GAP) * model.opener()
    face = (model.mean + np.tensordot(parted, model.basis, 1)).astype(np.float32)
    shown = face[np.unique(mesh.lip_triangles), :2]
    corner = (shown.min(0) + shown.max(0)) / 2 - np.array(TEXTURE_SHAPE[::-1]) / (2 * _PX)
    points = np.concatenate([face, inner_grid(face)])[:, :2]
    return ((points - corner) * _PX).astype(np.float32)
