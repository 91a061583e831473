"""Which mouths of this person look alike, read off the pictures.

What counts of an expression and a pose is what they change in the looks of the lips, as far as one
linear map tells (`lower_face`). What the skin round them shows beyond that (a crease, a shadow, the
focus, a turn that the angles miss) is the frame's own, and a mouth lent from a frame with the like
of it fits better. Sources that follow one another are compared as they were filmed, light and
teeth and all.

Source: ours. docs/calibration.md has what it buys.
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

# Against the shape of the lips: a mouth of the wrong opening has to be invented, and a voice asks
# for mouths that this person never made, of which the map knows little.
_LOOKS_COUNT: Final = 0.17
_SKIN_COUNTS: Final = 0.1
_LIP_READINGS, _SKIN_READINGS, _SOURCE_READINGS = 12, 8, 24


def similarity_of(
    faces: FaceWindows, track: Track, sources: I32, model: FaceModel
) -> MouthSimilarity:
    """Readings of the faces of a track, in units of two random ones of `sources`."""
    lips, skin = (mask.reshape(-1) for mask in (faces.window.lips, faces.window.skin))
    to_looks = faces.prediction()
    change = to_looks[1:, lips]
    change = change @ _principal(change, _LIP_READINGS).T  # f32 [K + 6, readings]
    size = model.size
    projection = (change[:size] / model.spread[:, None]).T
    posed = faces.known[:, 1 + size :] @ change[size:]
    read = (track.expression @ projection.T + posed)[sources]
    unit = np.sqrt(_LOOKS_COUNT / random_pair_cost(read))

    def beyond(frames: NDArray[np.intp], axes: F32 | None = None) -> F32:
        """What skin shows that expression and pose do not tell, f32 [frames, samples or axes]."""
        found = []
        for some, looks in faces.looks(frames):
            rest = looks.reshape(len(looks), -1)[:, skin] - faces.known[some] @ to_looks[:, skin]
            found.append(rest if axes is None else rest @ axes.T)
        return np.concatenate(found)

    axes = _principal(beyond(faces.fitted), _SKIN_READINGS)
    shown = np.flatnonzero(track.paintable)
    shows = np.zeros((len(track), len(axes)), np.float32)
    shows[shown] = beyond(shown, axes)
    shows *= np.sqrt(_SKIN_COUNTS / random_pair_cost(shows[sources]))

    filmed = faces.filmed(sources).reshape(len(sources), -1)[:, lips]
    filmed -= filmed.mean(0)
    looks = filmed @ _principal(filmed, _SOURCE_READINGS).T
    shape = shape_projection(track.expression[sources], model)
    pad, still = np.zeros((len(track), len(shape))), np.zeros((len(axes), size))
    return MouthSimilarity(
        np.concatenate([shape, projection * unit, still]).astype(np.float32),
        np.concatenate([pad, posed * unit, shows], axis=1).astype(np.float32),
        (looks * random_pair_cost(looks) ** -0.5).astype(np.float32),
    )


def _principal(rows: F32, count: int) -> F32:
    """The directions in which rows f32 [N, samples] are largest, f32 [at most count, samples]."""
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    found: F32 = axes[:count].astype(np.float32)
    return found
