"""The motion of a photo: from a seed, on a circle, and without a period."""

from __future__ import annotations

import numpy as np
import pytest

from lipstream.calibration.photo.motion import FPS, LOOP_FRAMES, Motion, idle_motion, still_motion
from lipstream.engine.types import F32

SEEDS = range(6)
CHANNELS = ("turns", "shifts", "brows", "closed", "gaze")


@pytest.fixture(scope="module", params=SEEDS)
def motion(request: pytest.FixtureRequest) -> Motion:
    return idle_motion(request.param)


def test_a_seed_gives_one_motion_and_another_seed_another() -> None:
    for name in CHANNELS:
        first, again, other = (getattr(idle_motion(seed), name) for seed in (3, 3, 4))
        assert first.tobytes() == again.tobytes()
        assert not np.allclose(first, other, atol=1e-3)


def circular_correlation(values: F32) -> np.ndarray:
    """Of values f32 [N] with themselves, N lags, 1 at lag 0."""
    spectrum = np.abs(np.fft.rfft(values - values.mean())) ** 2
    correlation = np.fft.irfft(spectrum, len(values))
    return correlation / correlation[0]


def test_the_head_has_no_period_within_the_loop(motion: Motion) -> None:
    for channel in (*motion.turns.T, *motion.shifts.T):
        correlation = circular_correlation(channel)
        # Once the head has gone elsewhere, no lag brings the same motion back.
        gone = int(np.flatnonzero(correlation < 0.2)[0])
        assert gone < LOOP_FRAMES / 4
        assert correlation[gone : LOOP_FRAMES - gone + 1].max() < 0.65


def test_the_loop_closes(motion: Motion) -> None:
    for name in CHANNELS:
        values = getattr(motion, name).reshape(LOOP_FRAMES, -1)
        step = np.abs(np.diff(values, axis=0)).max()
        assert np.abs(values[0] - values[-1]).max() <= step
        assert not values[0].any(), f"{name}: the first frame is the photo"


def blinks_of(motion: Motion) -> np.ndarray:
    """Frames at which lids pass half way down."""
    shut = motion.closed > 0.5
    return np.flatnonzero(shut & ~np.roll(shut, 1))


def test_blinks_are_as_frequent_and_as_fast_as_those_of_people(motion: Motion) -> None:
    blinks = blinks_of(motion)
    minutes = LOOP_FRAMES / float(FPS) / 60
    assert 10 <= len(blinks) / minutes <= 35
    between = np.diff(blinks)
    assert between.std() > 8, "not at equal intervals"
    for blink in blinks:
        lid = np.roll(motion.closed, 10 - blink)[:30]
        assert lid.max() > 0.8
        assert 4 <= (lid[6:20] > 0.05).sum() <= 10


def test_gaze_moves_in_saccades_within_the_eye(motion: Motion) -> None:
    eyeball = 0.19  # what the head's turning asks of the eyes
    steady = eyeball * np.stack([np.sin(motion.turns[:, 1]), -np.sin(motion.turns[:, 0])], 1)
    moved = np.abs(np.diff(motion.gaze - steady, axis=0)).max(1)
    assert (moved > 0.002).mean() < 0.2, "it rests most of the time"
    assert (moved > 0.008).sum() >= 3
    assert np.abs(motion.gaze).max() < 0.08


def test_brows_and_nods_belong_to_speech(motion: Motion) -> None:
    speaking = motion.conduct.speaking
    assert 0.4 < speaking.mean() < 0.7
    middle = speaking & np.roll(speaking, 20) & np.roll(speaking, -20)
    silent = ~speaking & np.roll(~speaking, 20) & np.roll(~speaking, -20)
    assert motion.brows[middle].max() > 0.02
    assert motion.brows[silent].max() < 0.005
    speed = np.abs(np.diff(motion.turns[:, 0], append=motion.turns[:1, 0]))
    assert speed[middle].mean() > 2 * speed[silent].mean()
    assert motion.conduct.nods[speaking].sum() > 20
    assert not motion.conduct.nods[silent].any()


def test_a_head_turns_no_further_than_a_photo_can(motion: Motion) -> None:
    assert (np.ptp(np.degrees(motion.turns), axis=0) < 11).all()
    assert np.abs(np.degrees(motion.turns)).max() < 8


def test_still_is_one_frame_that_is_the_photo() -> None:
    motion = still_motion()
    assert len(motion) == 1
    assert not any(getattr(motion, name).any() for name in CHANNELS)
