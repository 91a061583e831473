"""The encoder of files: segments, their context, the contract, the streaming model behind it."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import numpy as np
import pytest

from lipstream.engine.errors import UsageError
from lipstream.engine.face.model import face_model
from lipstream.engine.networks.base import Network
from lipstream.engine.speech.encoder import Encoder
from lipstream.engine.speech.file_encoder import FileEncoder, segment_steps
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, STEP_SAMPLES, AudioChunk, Expression
from tests.contract import Stream, assert_same, run, verify_stage
from tests.engine.sounds import noise, real_speech, vowels

HALF_SECOND = SAMPLE_RATE_HZ // 2


class Loudness:
    """An `Express` that costs nothing: each step's own loudness, and how much it was given."""

    network = cast(Network, None)

    def __init__(self) -> None:
        self.given: list[int] = []

    def __call__(self, samples: F32) -> tuple[F32, F32]:
        self.given.append(len(samples))
        steps = -(-len(samples) // STEP_SAMPLES)
        padded = np.zeros(steps * STEP_SAMPLES, np.float32)
        padded[: len(samples)] = samples
        loudness = np.abs(padded.reshape(steps, STEP_SAMPLES)).mean(axis=1)
        expression = np.repeat(loudness[:, None], face_model().size, axis=1)
        return expression, (loudness > 0.003).astype(np.float32)


def with_pauses(sound: F32, *at_s: float) -> F32:
    """`sound` with digital silence for 0.4 s around each of `at_s`."""
    sound = sound.copy()
    for second in at_s:
        middle = int(second * SAMPLE_RATE_HZ)
        sound[middle - 3_200 : middle + 3_200] = 0
    return sound


def chunks(sound: F32, edges: list[int]) -> list[AudioChunk]:
    return [AudioChunk(sound[a:b], a) for a, b in pairwise(edges)]


def test_it_keeps_the_contract_of_a_stage() -> None:
    """Items end on half seconds and the pause on a whole one: segments are due at their end."""
    sound = with_pauses(vowels(39.5), 15.0)
    other = with_pauses(noise(39.5, 0.1), 15.0)
    end = len(sound)
    edges = [0, *range(HALF_SECOND, end + 1, 2 * HALF_SECOND)]
    stream = Stream[AudioChunk, Expression](
        chunks(sound, edges),
        chunks(other, edges),
        lambda k: edges[k + 1],
        lambda _, output: output.sample,
        cuts=[chunks(sound, [0, end]), chunks(sound, [0, 1, 319, 400_001, 400_002, end])],
        early_samples=20 * SAMPLE_RATE_HZ,
    )
    verify_stage(FileEncoder(express=Loudness()), stream)


def test_segments_end_in_pauses_and_are_heard_with_what_is_around_them() -> None:
    heard = Loudness()
    outputs = run(
        FileEncoder(express=heard), [AudioChunk(with_pauses(vowels(45.0), 15.0, 30.5), 0)]
    )
    seconds = [samples / SAMPLE_RATE_HZ for samples in heard.given]
    assert seconds == [15 + 2.5, 2.5 + 15.5 + 2.5, 2.5 + 14.5]
    assert [output.sample for output in outputs] == list(range(0, 45 * SAMPLE_RATE_HZ, 320))


@pytest.mark.parametrize("seconds", [0.01, 12.0, 20.0])
def test_up_to_20_s_are_one_segment(seconds: float) -> None:
    assert segment_steps(vowels(seconds)) == -(-int(seconds * SAMPLE_RATE_HZ) // STEP_SAMPLES)


def test_a_segment_ends_in_the_quietest_of_its_pauses() -> None:
    sound = noise(24.0, 0.1)
    for second, level in ((5.0, 0.0), (12.0, 0.3), (17.0, 0.1), (22.0, 0.0)):
        middle = int(second * SAMPLE_RATE_HZ)
        sound[middle - 3_200 : middle + 3_200] *= np.float32(level)
    assert segment_steps(sound) * STEP_SAMPLES == 17 * SAMPLE_RATE_HZ


@pytest.mark.parametrize("length", [1, 319, 320, 321, 16_001])
def test_every_step_that_was_begun_gets_one_expression(length: int) -> None:
    outputs = run(FileEncoder(), [AudioChunk(vowels(1.1)[:length], 0)])
    assert [output.sample for output in outputs] == list(range(0, length, STEP_SAMPLES))


def test_nothing_in_nothing_out() -> None:
    assert run(FileEncoder(), []) == []


def test_a_file_may_start_anywhere_on_its_clock() -> None:
    outputs = run(FileEncoder(express=Loudness()), [AudioChunk(vowels(30.0), 1_000_000)])
    assert [output.sample - 1_000_000 for output in outputs] == list(range(0, 480_000, 320))


def test_lips_are_those_of_a_stream_at_their_own_time() -> None:
    speech = real_speech()
    streamed = [e.lips.opening for e in run(Encoder(200), [AudioChunk(speech, 0)])]
    at_once = [e.lips.opening for e in run(FileEncoder(), [AudioChunk(speech, 0)])]
    assert len(at_once) == len(streamed)
    agreement = [
        np.corrcoef(np.roll(at_once, shift)[50:-50], streamed[50:-50])[0, 1]
        for shift in (-3, -2, -1, 0, 1, 2, 3)
    ]
    assert agreement[3] > 0.75 and abs(int(np.argmax(agreement)) - 3) <= 1


def test_a_quiet_voice_opens_as_far_from_its_first_word_on() -> None:
    speech = real_speech()
    loud, quiet = (
        run(FileEncoder(), [AudioChunk((gain * speech).astype(np.float32), 0)])
        for gain in (1.0, 0.02)
    )
    first = slice(0, 100)  # 2 s
    widest = [max(e.lips.opening for e in outputs[first]) for outputs in (loud, quiet)]
    assert widest[1] > 0.7 * widest[0] > 0.07


def test_any_cut_gives_the_same_bits_with_the_model() -> None:
    sound = np.tile(vowels(4.0), 6)
    whole = run(FileEncoder(), [AudioChunk(sound, 0)])
    assert_same(run(FileEncoder(), chunks(sound, [0, 7, 100_003, 360_001, len(sound)])), whole)


def test_the_mouth_opens_ahead_of_the_first_sound_and_rests_after_the_last() -> None:
    silence = noise(1.0, 0.0002)
    sound = np.concatenate([silence, vowels(2.0), silence])
    outputs = run(FileEncoder(express=Loudness()), [AudioChunk(sound, 0)])
    times = [output.sample for output in outputs if output.speech]
    assert 12_800 <= times[0] < 16_000
    assert 44_800 <= times[-1] <= 48_000 + 11_200


@pytest.mark.parametrize("sound", [np.zeros(48_000, np.float32), noise(3, 0.02)])
def test_no_speech_rests_exactly(sound: F32) -> None:
    outputs = run(FileEncoder(), [AudioChunk(sound, 0)])
    settled = [output for output in outputs if output.sample > 8_000]
    assert not any(output.coefficients.any() or output.speech for output in settled)


def test_what_is_kept_is_a_segment_however_long_the_file() -> None:
    stage, minute = FileEncoder(express=Loudness()), vowels(60.0)
    state, most = stage.init(), 0
    for k in range(5 * 120):
        start = k * HALF_SECOND
        part = minute[start % len(minute) :][:HALF_SECOND]
        _, state = stage.step(state, AudioChunk(part, start))
        most = max(most, len(state.sound))
    assert most <= (20 + 2.5 + 2.5 + 0.5) * SAMPLE_RATE_HZ


def test_wrong_audio_is_refused_with_a_reason() -> None:
    stage = FileEncoder(express=Loudness())
    with pytest.raises(UsageError, match="mono"):
        stage.step(stage.init(), AudioChunk(np.zeros((2, 320), np.float32), 0))
    with pytest.raises(UsageError, match="NaN"):
        stage.step(stage.init(), AudioChunk(np.full(320, np.nan, np.float32), 0))
    _, state = stage.step(stage.init(), AudioChunk(np.zeros(100, np.float32), 0))
    with pytest.raises(UsageError, match="expected 100"):
        stage.step(state, AudioChunk(np.zeros(100, np.float32), 200))
