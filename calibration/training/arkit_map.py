"""Fits the map from expressions to ARKit's weights, to MediaPipe's weights of real lips.

A weight is  clip(a · expression - threshold, 0, 1), its threshold 0 or more: a face at rest has
weights of 0, whatever MediaPipe sees in a person's resting face. Most shapes are absent from most
frames, and a plain regression flattens what it seldom sees. So frames without the shape count only
where the map claims it, as in a censored regression, and frames that show it count several times.
Funnel and pucker, the rounded lips, are maps of three measures alone: opening, width and protrusion
of the lips. They so hold for more people than maps of all coefficients, and for encoded lips, which
round less than filmed ones. Source: ours (docs/experiments/029-arkit-weights.md); censoring after
Tobin (1958).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.training.lip_motion import TrackedClip, lip_motion
from lipstream.engine.face.arkit import ARKIT_NAMES, MEDIAPIPE_NAMES, SPOKEN
from lipstream.engine.face.model import FaceModel
from lipstream.engine.types import F32

F64 = NDArray[np.float64]

_SPOKEN_IN_MEDIAPIPE: Final = [MEDIAPIPE_NAMES.index(ARKIT_NAMES[k]) for k in SPOKEN]
_RESTING: Final = 0.1  # of the frames, those with the least expression
_SHOWN: Final = 0.01  # weight from which a frame shows a shape
# Added to the weight of a frame that shows a shape as much as the 99th percentile of frames do.
_EMPHASIS: Final = 2.0
_ROUNDED_EMPHASIS: Final = 5.0
_ROUNDED: Final = ("mouthFunnel", "mouthPucker")
# Lips round as they narrow and protrude, and a funnel is open: signs of the three measures.
_ROUNDING: Final = np.array([1.0, -1.0, 1.0])
_RIDGE: Final = 0.01
_ROUNDS: Final = 40


class Samples(NamedTuple):
    """Frames of one person."""

    expression: F32  # f32 [frames, K]
    weights: F32  # f32 [frames, 27], MediaPipe's of jaw and mouth over those at rest, 0 or more


def samples_of(clips: Sequence[TrackedClip], model: FaceModel) -> dict[str, Samples]:
    """The frames of each person."""
    found: dict[str, tuple[list[F32], list[F32]]] = {}
    for clip in clips:
        expressions, shapes = found.setdefault(clip.speaker, ([], []))
        expressions.append(model.encode(lip_motion(clip.landmarks, model.mean, model.rigid)))
        shapes.append(clip.blendshapes[:, _SPOKEN_IN_MEDIAPIPE])
    people = {}
    for speaker, (expressions, shapes) in found.items():
        expression, seen = np.concatenate(expressions), np.concatenate(shapes)
        size = np.linalg.norm(expression / model.spread, axis=1)
        resting = np.argsort(size, kind="stable")[: max(3, int(_RESTING * len(size)))]
        people[speaker] = Samples(expression, np.maximum(seen - np.median(seen[resting], 0), 0))
    return people


def fit_arkit(people: Mapping[str, Samples], model: FaceModel) -> F32:
    """The map f32 [52, K+1], its last column the thresholds, negative; each person counts alike."""
    x = np.concatenate([one.expression for one in people.values()]).astype(np.float64)
    y = np.concatenate([one.weights for one in people.values()]).astype(np.float64)
    counts = [len(one.weights) for one in people.values()]
    row = np.repeat(1 / np.array(counts), counts)
    spread, measures = model.spread.astype(np.float64), model.lip_rows().astype(np.float64)
    fitted = np.zeros((len(ARKIT_NAMES), model.size + 1))
    for column, shape in enumerate(SPOKEN):
        wanted = y[:, column]
        if wanted.max() <= _SHOWN:  # nobody shows it
            continue
        shown = row * wanted / (np.percentile(wanted, 99) + 1e-3)
        if ARKIT_NAMES[shape] in _ROUNDED:
            weight = row + _ROUNDED_EMPHASIS * shown
            size = np.linalg.norm(measures * spread, axis=1)
            rounding = x @ (_ROUNDING[:, None] * measures).T
            solution = _censored(rounding, wanted, weight, size, least=0.0)
            fitted[shape] = np.append(solution[:-1] * _ROUNDING @ measures, solution[-1])
        else:
            fitted[shape] = _censored(x, wanted, row + _EMPHASIS * shown, spread)
    return fitted.astype(np.float32)


def _censored(x: F64, y: F64, weight: F64, spread: F64, least: float = -np.inf) -> F64:
    """Map f64 [inputs + 1] to y f64 [rows], where what is below 0 shows as 0.

    Coefficients are at least `least`.
    """
    solution = _solve(x, y, weight, spread, least)
    for _ in range(_ROUNDS):
        counts = (y > _SHOWN) | (x @ solution[:-1] + solution[-1] > 0)
        again = _solve(x[counts], y[counts], weight[counts], spread, least)
        solution = 0.5 * solution + 0.5 * again
    return solution


def _solve(x: F64, y: F64, weight: F64, spread: F64, least: float) -> F64:
    """Ridge regression with a constant of at most 0, f64 [inputs + 1]."""
    from scipy.optimize import lsq_linear

    row = np.sqrt(weight)[:, None]
    full = np.concatenate([x, np.ones((len(x), 1))], axis=1) * row
    penalty = np.diag(np.sqrt(_RIDGE * weight.sum()) * np.append(spread, 0.0))
    wanted = np.append(y * row[:, 0], np.zeros(len(penalty)))
    inputs = x.shape[1]
    bounds = (np.append(np.full(inputs, least), -np.inf), np.append(np.full(inputs, np.inf), 0.0))
    # QR first: the solver's cost grows with the rows.
    q, r = np.linalg.qr(np.concatenate([full, penalty]))
    solution: F64 = lsq_linear(r, q.T @ wanted, bounds, method="bvls").x
    return solution


def with_arkit(model: FaceModel, clips: Sequence[TrackedClip]) -> FaceModel:
    """The model with the map that these clips give."""
    return replace(model, arkit=fit_arkit(samples_of(clips, model), model))
