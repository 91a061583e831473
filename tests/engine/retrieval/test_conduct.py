"""The loop of a photo follows the voice: it nods as it begins to speak, and rests in pauses."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from lipstream.engine.errors import UsageError
from lipstream.engine.retrieval.background_matcher import BackgroundMatcher
from lipstream.engine.retrieval.motion_graph import PHOTO_COSTS, BackgroundFootage
from lipstream.engine.types import Conduct, Expression, Lips, MatchedFrame
from tests.contract import Stream, verify_stage

FRAMES = 400
SPEAKING = np.arange(FRAMES) >= 160
NODS, BLINKS = (np.arange(FRAMES) % 40 < 5, (np.arange(FRAMES) + 20) % 55 < 12)


def footage(conduct: Conduct | None = None) -> BackgroundFootage:
    """A loop without motion, in which each frame may lead to sixteen others."""
    random = np.random.default_rng(1)
    jumps = random.permuted(np.tile(np.arange(FRAMES), (FRAMES, 1)), axis=1)[:, :16]
    jumps[-1, 0] = 0
    return BackgroundFootage(
        np.zeros((FRAMES, 2), np.float32),
        np.zeros(FRAMES, np.float32),
        np.zeros(FRAMES, bool),
        jumps.astype(np.int32),
        np.full(jumps.shape, 0.03, np.float32),
        conduct or Conduct(SPEAKING, NODS & SPEAKING, BLINKS),
    )


def matcher(lag_frames: int = 0) -> BackgroundMatcher:
    return BackgroundMatcher(footage(), lag_frames, Fraction(25), None, PHOTO_COSTS)


def voice(speech: np.ndarray, opening: np.ndarray | float = 0.03) -> list[Expression]:
    wide = np.broadcast_to(opening, speech.shape)
    return [
        Expression(np.zeros(2, np.float32), Lips(float(o), 1, 0), bool(s), 640 * k)
        for k, (s, o) in enumerate(zip(speech, wide, strict=True))
    ]


def shown(stage: BackgroundMatcher, items: list[Expression]) -> np.ndarray:
    state, frames = stage.init(), []
    for item in items:
        done, state = stage.step(state, item)
        frames += done
    return np.array([f.background for f in frames + stage.flush(state)])


@pytest.mark.parametrize("lag_frames", [0, 5, 100])
def test_it_streams_as_it_runs_whole(lag_frames: int) -> None:
    speech = (np.arange(150) // 30) % 2 == 1
    stream = Stream[Expression, MatchedFrame](
        voice(speech), voice(~speech), lambda k: 640 * k, lambda _, output: 640 * output.frame_index
    )
    verify_stage(matcher(lag_frames), stream)


@pytest.mark.parametrize("lag_frames", [0, 5, 500])
def test_speech_shows_the_speaking_part_and_silence_the_other(lag_frames: int) -> None:
    speech = (np.arange(1000) // 200) % 2 == 1
    frames = shown(matcher(lag_frames), voice(speech))
    settled = np.ones(1000, bool)
    for turn in range(200, 1000, 200):
        settled[turn : turn + 40] = False
    assert (SPEAKING[frames] == speech)[settled].mean() > 0.85


@pytest.mark.parametrize("lag_frames", [0, 500])
def test_a_nod_begins_with_the_voice(lag_frames: int) -> None:
    speech = (np.arange(1000) // 100) % 2 == 1
    frames = shown(matcher(lag_frames), voice(speech))
    onsets = np.arange(100, 1000, 200)
    nods = [(NODS & SPEAKING)[frames[onset : onset + 6]].any() for onset in onsets]
    assert sum(nods) >= 4
    by_chance = np.mean([(NODS & SPEAKING)[160 + k : 166 + k].any() for k in range(230)])
    assert by_chance < 0.3


def test_a_nod_begins_with_a_stressed_vowel() -> None:
    speech, opening = np.ones(1200, bool), np.full(1200, 0.03)
    stresses = np.arange(50, 1200, 60)
    for stress in stresses:
        opening[stress : stress + 6] = 0.12
    frames = shown(matcher(), voice(speech, opening))
    nods = [(NODS & SPEAKING)[frames[s : s + 6]].any() for s in stresses]
    assert np.mean(nods) > 0.6


@pytest.mark.parametrize("speaks", [False, True])
def test_eyes_never_stay_open_for_long(speaks: bool) -> None:
    frames = shown(matcher(), voice(np.full(1500, speaks)))
    blinks = np.flatnonzero(np.diff(BLINKS[frames].astype(int)) == 1)
    assert 8 <= len(blinks) <= 60  # a minute
    assert np.diff(blinks).max() < 10 * 25


def test_long_silence_does_not_repeat() -> None:
    frames = shown(matcher(), voice(np.zeros(3000, bool)))
    for lag in range(100, 1500):
        assert (frames[lag:] == frames[:-lag])[-1500:].mean() < 0.9, f"repeats after {lag} frames"


def test_a_closure_within_a_word_is_no_pause() -> None:
    speech = np.ones(300, bool)
    for begin in range(40, 300, 50):
        speech[begin : begin + 3] = False
    frames = shown(matcher(), voice(speech))
    assert SPEAKING[frames[20:]].all()


def test_conduct_of_another_length_is_refused() -> None:
    half = Conduct(SPEAKING[:200], NODS[:200], BLINKS[:200])
    with pytest.raises(UsageError, match="expected"):
        footage(half)
