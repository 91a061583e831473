"""The speaking style: a photo's lips articulate and move as lips do; footage is left as it is."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from lipstream.engine.face.mesh import LIPS
from lipstream.engine.face.model import Pose, face_model
from lipstream.engine.speech.style import (
    PHOTO_ARTICULATION,
    Articulation,
    SpeakingStyle,
    photo_articulation,
)
from lipstream.engine.target.oral_cavity import Mouth
from lipstream.engine.target.style import Style
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, Expression

MODEL = face_model()
OPENING, WIDTH, _ = MODEL.lip_rows()
RANGE = (-0.03, 0.34)
FPS = Fraction(25)


def style(*, photo: bool) -> SpeakingStyle:
    return articulated(PHOTO_ARTICULATION if photo else None)


def articulated(how: Articulation | None) -> SpeakingStyle:
    none = np.zeros(MODEL.size, np.float32)
    person = Style(none, 1.0, none, Mouth(1.2, 1.3, np.ones(3, np.float32)))
    return SpeakingStyle(person, RANGE, MODEL, how, FPS)


def photo_track(opening: float) -> Track:
    """Of a photo whose lips are that far apart."""
    expression = np.float32(opening) * MODEL.opener()
    every = np.ones(1, bool)
    pose = Pose(np.ones(1, np.float32), np.eye(3, dtype=np.float32)[None], np.zeros((1, 3), "f4"))
    return Track(
        MODEL.mean[None], pose, expression[None], MODEL.mean, every, every, np.zeros(1, np.float32)
    )


def thickness(coefficients: F32) -> tuple[float, float]:
    """Of the upper and the lower lip over that at rest."""
    moved = MODEL.displacement(coefficients)[:, 1]
    return float(moved[13] - moved[0]), float(moved[17] - moved[14])


def rounded(opening: float) -> Expression:
    rows = MODEL.lip_rows()[:2]
    likely = rows * MODEL.spread**2
    return spoken(likely.T @ np.linalg.solve(likely @ rows.T, [opening, -0.1]))


def spoken(coefficients: F32, activity: float = 1.0) -> Expression:
    coefficients = coefficients.astype(np.float32)
    return Expression(coefficients, MODEL.lips(coefficients), activity > 0, 0, activity)


def shown(stage: SpeakingStyle, openings: list[float]) -> F32:
    """Expressions f32 [n, K] shown for mouths that open that far."""
    state, out = stage.init(), []
    for opening in openings:
        (item,), state = stage.step(state, spoken(np.float32(opening) * MODEL.opener()))
        out.append(item.coefficients)
    return np.stack(out)


def test_a_photo_opens_no_faster_than_lips_do() -> None:
    moved = shown(style(photo=True), [0.0, 0.0, 0.3, 0.3, 0.3, 0.3, 0.3])
    lips = np.tensordot(moved, MODEL.basis[:, np.unique(LIPS), :2], axes=1)
    speed = np.linalg.norm(np.diff(lips, axis=0), axis=-1).max() * float(FPS)
    opening = moved @ OPENING
    assert speed <= PHOTO_ARTICULATION.speed * 1.01
    assert np.diff(opening).max() * float(FPS) <= PHOTO_ARTICULATION.speed * 1.001
    asked = style(photo=True).apply(spoken(np.float32(0.3) * MODEL.opener())).coefficients
    assert opening[3] < OPENING @ asked - 0.01  # not there after two frames of 40 ms
    np.testing.assert_allclose(moved[-1], asked, atol=1e-5)


def test_lips_that_close_meet_in_time() -> None:
    """A limit on closing would lose p, b and m after an open vowel."""
    moved = shown(style(photo=True), [0.3, 0.3, 0.0, 0.3, 0.3])
    assert moved[2] @ OPENING <= 0.0


def test_a_photo_closes_what_the_encoder_leaves_ajar() -> None:
    ajar = spoken(np.float32(0.02) * MODEL.opener())
    assert OPENING @ style(photo=True).apply(ajar).coefficients <= 0.0
    assert OPENING @ style(photo=False).apply(ajar).coefficients == pytest.approx(0.02, abs=1e-5)


def test_a_photo_rounds_more_than_the_mean_of_people() -> None:
    got = style(photo=True).apply(rounded(0.06)).coefficients
    assert WIDTH @ got < -0.12
    assert OPENING @ got == pytest.approx(1.2 * 0.06 - 0.01, abs=1e-4)


def test_lips_that_meet_are_not_round() -> None:
    """Round lips that touch look ajar; p, b and m between round vowels spread them."""
    met, open_ = (style(photo=True).apply(rounded(k)).coefficients for k in (0.0, 0.1))
    assert -0.08 < WIDTH @ met < -0.05
    assert WIDTH @ open_ < -0.14


def test_lips_parted_in_a_photo_are_thinner_where_they_meet() -> None:
    """A photo shows how thick its lips are only as far apart as it shows them."""
    closed, ajar = (articulated(photo_articulation(photo_track(k), OPENING)) for k in (0.0, 0.05))
    for opening, lost in ((0.0, (0.01, 0.025)), (0.2, (0.0, 0.0))):
        item = spoken(np.float32(opening) * MODEL.opener())
        shown_closed, shown_ajar = (s.apply(item).coefficients for s in (closed, ajar))
        assert OPENING @ shown_ajar == pytest.approx(OPENING @ shown_closed, abs=1e-4)
        thinner = np.subtract(thickness(shown_closed), thickness(shown_ajar))
        np.testing.assert_allclose(thinner, lost, atol=1e-4)
    assert photo_articulation(photo_track(0.0), OPENING) == replace(PHOTO_ARTICULATION, thinning=0)


def test_at_rest_and_silent_nothing_is_added() -> None:
    rest = spoken(np.zeros(MODEL.size, np.float32), 0.0)
    stage = style(photo=True)
    got = stage.apply(rest).coefficients
    np.testing.assert_array_equal(got, stage.at_rest(rest).coefficients)


def test_footage_moves_as_its_person_does() -> None:
    openings = [0.0, 0.23, 0.0, 0.2, 0.01]
    moved = shown(style(photo=False), openings) @ OPENING
    np.testing.assert_allclose(moved, openings, atol=1e-5)
