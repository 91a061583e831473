"""Lips of a photo are compared with the real ones of the same sound."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from lipstream.bench.measure.photos import LipMotion, compare, lip_motion
from lipstream.engine.face.model import face_model
from lipstream.engine.types import F32

FPS = Fraction(25)


def speech(scale: float = 1.0, late_s: float = 0.0, least: float = 0.0) -> LipMotion:
    """Lips that open 25 times in 10 s and close in between."""
    model = face_model()
    time_s = np.arange(250) / 25 - late_s
    opening = np.clip(np.sin(5 * np.pi * time_s) * np.sin(0.7 * time_s) ** 2, 0, None)
    opening = np.maximum(0.2 * scale * opening, least).astype(np.float32)
    shut: F32 = model.mean - model.displacement(
        np.float32(model.mean[14, 1] - model.mean[13, 1]) * model.opener()
    )
    return lip_motion(shut + opening[:, None, None] * model.displacement(model.opener()), FPS)


def test_equal_lips_have_no_distance_at_any_offset() -> None:
    figures = compare(speech(), speech(late_s=0.12))
    assert figures["distance"] < 1e-3 and figures["correlation"] > 0.999
    assert figures["closure"] < 1e-3
    assert figures["width"] == pytest.approx(1, abs=1e-3)
    assert figures["speed"] == pytest.approx(1, rel=0.01)


def test_lips_that_stay_apart_are_found() -> None:
    figures = compare(speech(), speech(least=0.05))
    assert figures["closure"] == pytest.approx(0.05, abs=1e-3)
    assert figures["distance"] > 0.005


def test_lips_that_move_half_as_far_are_slower() -> None:
    figures = compare(speech(), speech(scale=0.5))
    assert figures["speed"] == pytest.approx(0.5, rel=0.02)
    whole = compare(speech(), speech())
    assert figures["motion"] == pytest.approx(0.5 * whole["motion"], rel=0.02)
    assert figures["correlation"] > 0.99
