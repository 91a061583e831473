"""Leave-one-out predictions of a mouth's texture: each frame predicted without its own window.

The exclusion window of a frame holds every frame nearer to it in time than half a second. Such
frames show nearly the same mouth, so a prediction that used them would be too good.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from lipstream.calibration.person.appearance_fit import (
    Frames,
    MouthTextures,
    distances,
    fit_appearance,
    kernel_matrices,
)
from lipstream.engine.face.mesh import FaceMesh
from lipstream.engine.target.appearance import AppearancePrior, Prediction
from lipstream.engine.target.bundle import Target
from lipstream.engine.target.similarity import random_pair_cost
from lipstream.engine.types import F32

EXCLUSION_WINDOW_S: Final = 0.5  # on each side of a frame


class LeaveOneOutPredictor:
    """Predicts the mouth texture at any frame of a clip from the frames outside its window."""

    def __init__(self, clip: Target, mesh: FaceMesh, window_s: float = EXCLUSION_WINDOW_S) -> None:
        """Fit the appearance of all frames once; `window_s`: on each side of a frame."""
        self._window_frames = window_s * float(clip.fps)
        self._similarity, self._appearance = clip.similarity, None
        self._opening = mesh.model.lip_rows()[0]
        if clip.similarity is None:
            return
        textures = MouthTextures.of(
            clip.track, clip.frames.decoder().read, clip.similarity, mesh, clip.source_frames
        )
        relevance = None if clip.appearance is None else clip.appearance.relevance
        fit = fit_appearance(textures, self._window_frames, relevance)
        if fit is None:
            return
        appearance = self._appearance = fit.appearance
        self._frames, self._spread = textures.frames, appearance.spread()
        self._levels = (fit.pca_coefficients * self._spread).astype(np.float32)
        self._reference_distance = random_pair_cost(self._levels)
        kernels = kernel_matrices(
            distances(appearance.features.T), appearance.length_scale.astype(float), fit.noise
        )
        self._inverse = [(members, np.linalg.inv(kernel)) for members, kernel in kernels]

    def predict(self, frame: int, expression: F32) -> Prediction | None:
        """The texture for an expression f32 [K] with the pose and light of `frame`, from all frames
        outside its window; None if there are none, or too few to fit.

        Frames are left out of the fitted kernels by block matrix inversion.
        """
        if self._appearance is None or self._similarity is None:
            return None
        near = np.abs(self._frames - frame) < self._window_frames
        if near.all():
            return None
        window = np.flatnonzero(near)
        weights = self._appearance.weights.copy()
        for members, inverse in self._inverse:
            removed = np.linalg.solve(
                inverse[np.ix_(window, window)], weights[np.ix_(window, members)]
            )
            weights[:, members] -= (inverse[:, window] @ removed).astype(np.float32)
        others = replace(
            self._appearance,
            weights=weights[~near],
            features=np.ascontiguousarray(self._appearance.features[:, ~near]),
        )
        return others.predict(self._similarity.features(expression, frame))

    def texture_distance(self, prediction: Prediction | None, frames: Frames) -> F32 | None:
        """Squared distance of the textures of frames i64 [n] from a prediction, f32 [n], in units
        of the mean between two random frames; None without a prediction.

        A frame that the appearance was not fitted to counts as the next one that it was.
        """
        if prediction is None:
            return None
        row = np.minimum(np.searchsorted(self._frames, frames), len(self._frames) - 1)
        difference = self._levels[row] - prediction.pca_coefficients * self._spread
        distance: F32 = (difference**2).sum(1) / self._reference_distance
        return distance

    def picture(self, prediction: Prediction | None, expression: F32) -> AppearancePrior | None:
        """The appearance prior of a prediction for an expression f32 [K]."""
        if self._appearance is None or prediction is None:
            return None
        return self._appearance.picture(prediction, float(self._opening @ expression))
