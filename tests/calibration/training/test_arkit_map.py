"""The fit of the map to ARKit's weights, on people made up for it."""

from __future__ import annotations

import numpy as np

from lipstream.calibration.training.arkit_map import Samples, fit_arkit
from lipstream.engine.face.arkit import ARKIT_NAMES, SPOKEN
from lipstream.engine.face.model import face_model
from lipstream.engine.types import F32

MODEL = face_model()


def people(truth: F32, frames: int = 600) -> dict[str, Samples]:
    """Two people whose weights are clip(truth · [expression, 1], 0, 1)."""
    rng = np.random.default_rng(0)
    made = {}
    for name in ("one", "other"):
        expression = (rng.normal(size=(frames, MODEL.size)) * MODEL.spread).astype(np.float32)
        linear = expression @ truth[:, :-1].T + truth[:, -1]
        made[name] = Samples(expression, np.clip(linear, 0, 1)[:, list(SPOKEN)])
    return made


def truth_of(shape: str, direction: F32, threshold: float) -> F32:
    truth = np.zeros((len(ARKIT_NAMES), MODEL.size + 1), np.float32)
    truth[ARKIT_NAMES.index(shape)] = np.append(direction, -threshold)
    return truth


def test_a_shape_that_is_rare_is_not_flattened() -> None:
    """A plain regression would give a third of it."""
    index = ARKIT_NAMES.index("mouthUpperUpLeft")
    direction = np.zeros(MODEL.size, np.float32)
    direction[2] = 0.4 / MODEL.spread[2]
    truth = truth_of("mouthUpperUpLeft", direction, 0.4)  # one frame in six
    fitted = fit_arkit(people(truth), MODEL)
    shown = np.zeros(MODEL.size, np.float32)
    shown[2] = 2 * MODEL.spread[2]
    assert abs(fitted[index, :-1] @ shown + fitted[index, -1] - 0.4) < 0.06
    assert fitted[index, -1] < -0.3


def test_rounded_shapes_are_maps_of_the_lip_measures() -> None:
    measures = MODEL.lip_rows()
    truth = truth_of("mouthPucker", -3 * measures[1], 0.0)
    fitted = fit_arkit(people(truth), MODEL)[ARKIT_NAMES.index("mouthPucker")]
    rest = fitted[:-1] - np.linalg.lstsq(measures.T, fitted[:-1], rcond=None)[0] @ measures
    assert np.abs(rest).max() < 1e-4 * np.abs(fitted).max()
    narrow = -0.1 * measures[1] / (measures[1] @ measures[1])
    assert abs(fitted[:-1] @ narrow + fitted[-1] - 0.3) < 0.05


def test_no_threshold_raises_a_face_at_rest() -> None:
    constant = truth_of("mouthPressLeft", np.zeros(MODEL.size, np.float32), -0.2)
    assert (fit_arkit(people(constant), MODEL)[:, -1] <= 0).all()
