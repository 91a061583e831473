"""Who is seen when: spans of one person, from descriptions of faces."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from lipstream.calibration.tracking.face_identity import SAME_PERSON, describe, distance
from lipstream.calibration.tracking.people import Descriptors, Span, other_people
from lipstream.engine.errors import CalibrationError
from tests.synthetic import make_footage

FPS = Fraction(25)
LENGTH = 468 * 3 + 900 + 36 * 59


def person(seed: int) -> np.ndarray:
    """A description as far from those of other seeds as those of two people are, f32 [4428]."""
    rng = np.random.default_rng(seed)
    shape = rng.normal(0, 0.016, 468 * 3)
    gradients = rng.uniform(0.02, 0.3, 900)
    texture = rng.dirichlet(np.full(59, 0.35), 36)
    return np.concatenate([shape, gradients, np.sqrt(texture).ravel()]).astype(np.float32)


def seen(*spans: tuple[int, int]) -> tuple[Descriptors, np.ndarray]:
    """Spans of (person or -1 for no face, frames), described every fifth frame."""
    frames, rows, found = [], [], []
    rng = np.random.default_rng(1)
    for who, count in spans:
        for k in range(count):
            if who >= 0 and k % 5 == 0:
                frames.append(len(found))
                rows.append(person(who) + rng.normal(0, 0.004, LENGTH))
            found.append(who >= 0)
    return Descriptors(np.array(frames), np.array(rows, np.float16)), np.array(found)


def others(
    *spans: tuple[int, int], cuts: tuple[int, ...] = (), who: int | None = None
) -> list[Span]:
    described, found = seen(*spans)
    return list(other_people(described, found, cuts, FPS, who))


def test_two_people_are_farther_apart_than_one_is_from_itself() -> None:
    assert distance(person(1), person(2)) > SAME_PERSON
    described, _ = seen((1, 60))
    assert distance(described.mean(0, 6), described.mean(6, 12)) < 0.2


def test_a_cut_away_is_somebody_else() -> None:
    assert others((1, 50), (2, 25), (1, 50), cuts=(50, 75)) == [(50, 75)]


def test_the_one_seen_longest_is_followed_even_if_second() -> None:
    assert others((2, 25), (1, 50), cuts=(25,)) == [(0, 25)]


def test_a_gap_counts_as_a_cut() -> None:
    assert others((1, 60), (-1, 5), (2, 30)) == [(65, 95)]


def test_one_person_over_cuts_and_gaps_stays_one() -> None:
    assert others((1, 30), (-1, 8), (1, 4), (1, 60), (-1, 3), (1, 40), cuts=(42,)) == []


def test_a_dissolve_is_found_without_a_cut_and_its_frames_are_left_out() -> None:
    ((first, stop),) = others((1, 100), (2, 50))
    assert stop == 150
    assert 88 <= first <= 96  # the change is at 100, and a dissolve reaches before it


def test_two_people_seen_about_equally_long_are_to_choose_from() -> None:
    with pytest.raises(CalibrationError) as caught:
        others((1, 50), (2, 45), cuts=(50,))
    message = str(caught.value)
    assert "--person 1: 0.0-2.0 s" in message and "--person 2: 2.0-3.8 s" in message
    assert "\n" not in message
    assert others((1, 50), (2, 45), cuts=(50,), who=1) == [(50, 95)]
    assert others((1, 50), (2, 45), cuts=(50,), who=2) == [(0, 50)]


def test_a_person_who_is_not_there_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="--person 2: 1 person is seen"):
        others((1, 50), who=2)
    assert others((1, 50), who=1) == []


def test_a_description_keeps_to_the_face_whatever_its_size_and_place() -> None:
    footage = make_footage(2, size=(320, 320), seed=1)
    picture, landmarks = footage.frame(0), footage.landmarks[0]
    moved = np.roll(picture, 17, axis=1)
    there = landmarks + np.array([17, 0, 0], np.float32)
    one, same = (describe(picture, landmarks), describe(moved, there))
    assert one.shape == (LENGTH,) and one.dtype == np.float16
    assert distance(one.astype(np.float32), same.astype(np.float32)) < 0.1
    half = np.ascontiguousarray(picture[::2, ::2])
    smaller = describe(half, landmarks / 2).astype(np.float32)
    assert distance(one.astype(np.float32), smaller) < SAME_PERSON
