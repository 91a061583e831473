"""The speaking pose is the mean difference of tracked and encoded expression, without the gap."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from lipstream.calibration.person.speaking_style import EncodedAudio, opening_gain, speaking_pose
from lipstream.engine.face.model import face_model
from lipstream.engine.types import F32, Expression, Lips

FPS = Fraction(25)
LATE_MS = 120


def spoken(seconds: float, speaks: bool = True) -> list[Expression]:
    rng = np.random.default_rng(0)
    moves = rng.standard_normal((int(50 * seconds), face_model().size)).astype(np.float32)
    return [
        Expression(row, Lips(0, 0, 0), speaks, 320 * index, 1.0 if speaks else 0.0)
        for index, row in enumerate(moves)
    ]


def tracked(outputs: list[Expression], habit: F32, gain: float) -> F32:
    """Tracked expression f32 [frames, K] of a speaker with that pose and gain."""
    time_s = np.array([e.sample for e in outputs]) / 16_000
    frame_s = np.arange(int(time_s[-1] * 25)) / 25 + LATE_MS / 1000
    rows = np.stack([e.coefficients for e in outputs])
    moved = np.stack([np.interp(frame_s, time_s, column) for column in rows.T], 1)
    return (gain * moved + habit).astype(np.float32)


def habit() -> F32:
    return np.linspace(-0.3, 0.5, face_model().size).astype(np.float32)


def pose(outputs: list[Expression], confidence: float = 0.9) -> F32:
    expression = tracked(outputs, habit(), 1.2)
    usable = np.ones(len(expression), bool)
    return speaking_pose(expression, usable, FPS, 1.2, EncodedAudio(outputs, LATE_MS, confidence))


def test_the_pose_is_found_without_its_gap() -> None:
    found = pose(spoken(12.0))
    row = face_model().lip_rows()[0]
    assert abs(row @ found) < 1e-5  # lips that should meet still do
    along = (row @ habit()) / (row @ row) * row
    np.testing.assert_allclose(found, habit() - along, atol=0.05)


def test_less_speech_gives_a_smaller_pose() -> None:
    whole, half = pose(spoken(12.0)), pose(spoken(4.5))
    assert np.linalg.norm(half) == pytest.approx(0.55 * np.linalg.norm(whole), rel=0.2)


@pytest.mark.parametrize(
    ("outputs", "confidence"),
    [(spoken(12.0, speaks=False), 0.9), (spoken(2.0), 0.9), (spoken(12.0), 0.1)],
)
def test_silence_little_speech_or_an_uncertain_offset_give_no_pose(
    outputs: list[Expression], confidence: float
) -> None:
    assert not pose(outputs, confidence).any()
    assert not speaking_pose(
        np.zeros((9, face_model().size), np.float32), np.ones(9, bool), FPS, 1.0, None
    ).any()


def test_the_gain_is_the_95th_percentile_within_its_range() -> None:
    assert opening_gain(np.full(100, 0.24, np.float32)) == pytest.approx(1.2)
    assert opening_gain(np.full(100, 0.9, np.float32)) == 1.5
    assert opening_gain(np.full(100, 0.01, np.float32)) == 1.0
