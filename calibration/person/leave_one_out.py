"""Predictions for frames that were learned from, as if they had not been."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from lipstream.calibration.person.appearance_fit import (
    Frames,
    MouthTextures,
    _kernel_matrix,
    distances,
    learn,
)
from lipstream.engine.face.mesh import FaceMesh
from lipstream.engine.target.appearance import (
    AppearancePrior,
    Prediction,
)
from lipstream.engine.target.bundle import Target
from lipstream.engine.target.similarity import random_pair_cost
from lipstream.engine.types import F32

EXCLUSION_WINDOW_S: Final = 0.5  # what is nearer in time to a frame is the same moment


class LeaveOneOutPredictor:
    """What would be expected at each moment of a clip, had just that moment not been filmed."""

    def __init__(self, clip: Target, mesh: FaceMesh, apart_s: float = EXCLUSION_WINDOW_S) -> None:
        """What is nearer than `apart_s` to a frame is the same moment."""
        self._apart, self._alike, self._learned = apart_s * float(clip.fps), clip.similarity, None
        self._opening = mesh.model.lip_rows()[0]
        if clip.similarity is None:
            return
        textures = MouthTextures.of(
            clip.track, clip.frames.decoder().read, clip.similarity, mesh, clip.source_frames
        )
        relevance = None if clip.appearance is None else clip.appearance.relevance
        found = learn(textures, self._apart, relevance)
        if found is None:
            return
        learned = self._learned = found.appearance
        self._frames, self._spread = textures.frames, learned.spread()
        self._levels = (found.pca_coefficients * self._spread).astype(np.float32)
        self._reference_distance = random_pair_cost(self._levels)
        kernels = _kernel_matrix(
            distances(learned.features.T), learned.length_scale.astype(float), found.noise
        )
        self._inverse = [(felt, np.linalg.inv(kernel)) for felt, kernel in kernels]

    def predict(self, frame: int, expression: F32) -> Prediction | None:
        """Of an expression f32 [K] over a frame's pose and light; None if the clip is too short
        to tell. Leaving a moment out is a matter of block matrices."""
        if self._learned is None or self._alike is None:
            return None
        near = np.abs(self._frames - frame) < self._apart
        if near.all():
            return None
        own = np.flatnonzero(near)
        weights = self._learned.weights.copy()
        for felt, inverse in self._inverse:
            share = np.linalg.solve(inverse[np.ix_(own, own)], weights[np.ix_(own, felt)])
            weights[:, felt] -= (inverse[:, own] @ share).astype(np.float32)
        others = replace(
            self._learned,
            weights=weights[~near],
            features=np.ascontiguousarray(self._learned.features[:, ~near]),
        )
        return others.predict(self._alike.features(expression, frame))

    def unlike(self, prediction: Prediction | None, others: Frames) -> F32 | None:
        """How unlike the looks of frames i64 [n] are to what was foretold, f32 [n]; two random
        frames are so by 1. Of a frame that was not learned from, the next is."""
        if prediction is None:
            return None
        row = np.minimum(np.searchsorted(self._frames, others), len(self._frames) - 1)
        off = self._levels[row] - prediction.pca_coefficients * self._spread
        unlike: F32 = (off**2).sum(1) / self._reference_distance
        return unlike

    def picture(self, prediction: Prediction | None, expression: F32) -> AppearancePrior | None:
        """What was foretold of an expression f32 [K], as a picture."""
        if self._learned is None or prediction is None:
            return None
        return self._learned.picture(prediction, float(self._opening @ expression))
