"""Features of one person's mouths whose distance says how alike two of them look.

An expression or a head pose counts by what it changes in the appearance of the lips, as far as one
linear map predicts it (`fitting.face_windows`). What the skin around them shows beyond that map (a
crease, a shadow, the focus, a turn that the angles miss) belongs to the frame, and a source from a
frame that shows the same fits better. Successive sources are compared as they were recorded, light
and teeth included.

Source: ours. docs/calibration.md has the figures.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.fitting.face_windows import FaceWindows
from lipstream.engine.face.model import FaceModel
from lipstream.engine.target.similarity import MouthSimilarity, random_pair_cost, shape_projection
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, I32

# Relative to the shape of the lips, which counts most: a mouth of the wrong opening has to be
# synthesised, and speech asks for shapes that the footage lacks, where the map is least certain.
_LIP_WEIGHT: Final = 0.17
_SKIN_WEIGHT: Final = 0.1
_LIP_FEATURES, _SKIN_FEATURES, _SOURCE_FEATURES = 12, 8, 24


def similarity_of(
    faces: FaceWindows, track: Track, sources: I32, model: FaceModel
) -> MouthSimilarity:
    """Features of the faces of a track; squared distance 1 is that of two random `sources`."""
    lips, skin = (mask.reshape(-1) for mask in (faces.window.lips, faces.window.skin))
    regression = faces.regression()
    change = regression[1:, lips]
    change = change @ _principal_axes(change, _LIP_FEATURES).T  # f32 [K + 6, features]
    size = model.size
    projection = (change[:size] / model.spread[:, None]).T
    by_pose = faces.regressors[:, 1 + size :] @ change[size:]
    lip_features = (track.expression @ projection.T + by_pose)[sources]
    unit = np.sqrt(_LIP_WEIGHT / random_pair_cost(lip_features))

    def skin_residual(frames: NDArray[np.intp], axes: F32 | None = None) -> F32:
        """What the map leaves of the skin, f32 [frames, samples], or on `axes` [frames, axes]."""
        found = []
        for block, appearance in faces.normalised(frames):
            observed = appearance.reshape(len(appearance), -1)[:, skin]
            residual = observed - faces.regressors[block] @ regression[:, skin]
            found.append(residual if axes is None else residual @ axes.T)
        return np.concatenate(found)

    axes = _principal_axes(skin_residual(faces.fitted), _SKIN_FEATURES)
    paintable = np.flatnonzero(track.paintable)
    skin_features = np.zeros((len(track), len(axes)), np.float32)
    skin_features[paintable] = skin_residual(paintable, axes)
    skin_features *= np.sqrt(_SKIN_WEIGHT / random_pair_cost(skin_features[sources]))

    recorded = faces.recorded(sources).reshape(len(sources), -1)[:, lips]
    recorded -= recorded.mean(0)
    descriptors = recorded @ _principal_axes(recorded, _SOURCE_FEATURES).T
    shape = shape_projection(track.expression[sources], model)
    no_offset = np.zeros((len(track), len(shape)))
    no_projection = np.zeros((len(axes), size))
    return MouthSimilarity(
        np.concatenate([shape, projection * unit, no_projection]).astype(np.float32),
        np.concatenate([no_offset, by_pose * unit, skin_features], axis=1).astype(np.float32),
        (descriptors * random_pair_cost(descriptors) ** -0.5).astype(np.float32),
    )


def _principal_axes(rows: F32, count: int) -> F32:
    """The leading right singular vectors of rows f32 [N, samples], f32 [at most count, samples]."""
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    leading: F32 = axes[:count].astype(np.float32)
    return leading
