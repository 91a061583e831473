"""Every stage has the shape of `Stage`, as mypy checks, and keeps its contract (`verify_stage`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lipstream.engine.face.model import face_model
from lipstream.engine.networks.signatures import FRAMES_PER_STEP
from lipstream.engine.pipeline import Engine, StageStates
from lipstream.engine.retrieval.background_matcher import BackgroundMatcher, MatcherState
from lipstream.engine.retrieval.sequential import SequentialBackground
from lipstream.engine.retrieval.source_selector import SelectedSource, SourceSelector, SourceState
from lipstream.engine.retrieval.viterbi import viterbi
from lipstream.engine.speech.encoder import Encoder, EncoderState
from lipstream.engine.speech.features import Features, FeatureState, offline_log_mel
from lipstream.engine.speech.frame_sampler import FrameSampler, SamplerState
from lipstream.engine.speech.gate import Gate, GateInput, GateState
from lipstream.engine.speech.style import SpeakingStyle
from lipstream.engine.stream import Chain, Stage
from lipstream.engine.target.bundle import Target, load_target, mouth_sources
from lipstream.engine.timebase import frame_sample
from lipstream.engine.types import (
    F32,
    STEP_SAMPLES,
    AudioChunk,
    Expression,
    MatchedFrame,
)
from tests.contract import Stream, run, verify_stage
from tests.engine.sounds import noise, vowels
from tests.engine.voices import babble

STEPS = 40


@pytest.fixture(scope="module")
def loaded(target: Path) -> Target:
    return load_target(target)


def steps_of(sound: F32) -> list[F32]:
    return [sound[k : k + STEP_SAMPLES] for k in range(0, STEPS * STEP_SAMPLES, STEP_SAMPLES)]


def chunks(sound: F32, edges: Sequence[int]) -> list[AudioChunk]:
    return [AudioChunk(sound[a:b], a) for a, b in pairwise(edges)]


def end_of_step(k: int) -> int:
    return (k + 1) * STEP_SAMPLES


def expressions(fps: Fraction, seed: int) -> list[Expression]:
    """One a frame, with coefficients of the model's size; the first half speaks."""
    model, rng = face_model(), np.random.default_rng(seed)
    made = []
    for k in range(STEPS):
        coefficients = (rng.normal(size=model.size) * model.spread).astype(np.float32)
        speech = k < STEPS // 2
        made.append(
            Expression(coefficients, model.lips(coefficients), speech, frame_sample(k, fps))
        )
    return made


def test_features() -> None:
    stage: Stage[FeatureState, F32, F32] = Features()

    def offline(items: Sequence[F32]) -> list[F32]:
        """All log energies at once, normalised frame by frame."""
        features = Features()
        state, frames = features.normaliser.init(), []
        for frame in offline_log_mel(features, np.concatenate(list(items))):
            normal, state = features.normaliser.step(state, frame)
            frames.append(normal)
        return list(np.reshape(frames, (-1, FRAMES_PER_STEP, len(frames[0]))))

    stream = Stream[F32, F32](
        steps_of(vowels(1.0)), steps_of(noise(1.0, 0.1)), end_of_step, lambda k, _: end_of_step(k)
    )
    verify_stage(stage, stream, offline, tolerance=2e-3)


def test_gate() -> None:
    stage: Stage[GateState, GateInput, float] = Gate(80)
    rng = np.random.default_rng(0)
    speech, hiss = (
        [GateInput(piece, float(p)) for piece, p in zip(steps_of(sound), chance, strict=True)]
        for sound, chance in (
            (vowels(1.0), np.repeat(rng.uniform(0, 1, STEPS // 5), 5)),
            (noise(1.0, 0.1), np.zeros(STEPS)),
        )
    )
    stream = Stream[GateInput, float](speech, hiss, end_of_step, lambda k, _: end_of_step(k))
    verify_stage(stage, stream)


@pytest.mark.parametrize("look_ahead_ms", [40, 80, 200])
def test_encoder(look_ahead_ms: int) -> None:
    """`test_encoder.py` compares it with the sequence form of the model."""
    stage: Stage[EncoderState, AudioChunk, Expression] = Encoder(look_ahead_ms)
    sound, end = vowels(1.0), STEPS * STEP_SAMPLES
    edges = range(0, end + 1, STEP_SAMPLES)
    stream = Stream[AudioChunk, Expression](
        chunks(sound, edges),
        chunks(noise(1.0, 0.1), edges),
        end_of_step,
        lambda _, output: output.sample,
        cuts=[chunks(sound, [0, end]), chunks(sound, [0, 1, 319, 5000, end])],
    )
    verify_stage(stage, stream)


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30), Fraction(24_000, 1001)])
def test_frame_sampler(fps: Fraction) -> None:
    stage: Stage[SamplerState, Expression, Expression] = FrameSampler(fps)
    first, second = (
        [Expression(e.coefficients, e.lips, e.speech, k * STEP_SAMPLES) for k, e in enumerate(made)]
        for made in (expressions(Fraction(50), 0), expressions(Fraction(50), 1))
    )

    def offline(items: Sequence[Expression]) -> list[F32]:
        """`numpy.interp` over the whole curve, one coefficient at a time."""
        times = [e.sample for e in items]
        curves = np.stack([e.coefficients for e in items], 1)
        last = times[-1] + STEP_SAMPLES
        exact = [float(k * 16_000 / fps) for k in range(STEPS) if k * 16_000 / fps < last]
        return list(np.stack([np.interp(exact, times, curve) for curve in curves], 1))

    class Coefficients:
        """The stage with its outputs' coefficients alone."""

        lag_samples = stage.lag_samples

        def init(self) -> SamplerState:
            return stage.init()

        def step(self, state: SamplerState, item: Expression) -> tuple[list[F32], SamplerState]:
            outputs, state = stage.step(state, item)
            return [e.coefficients for e in outputs], state

        def flush(self, state: SamplerState) -> list[F32]:
            return [e.coefficients for e in stage.flush(state)]

    stream = Stream[Expression, F32](
        first, second, lambda k: k * STEP_SAMPLES, lambda k, _: frame_sample(k, fps),
        early_samples=stage.lag_samples,
    )  # fmt: skip
    verify_stage(Coefficients(), stream, offline, tolerance=1e-4)


def test_speaking_style(loaded: Target) -> None:
    stage: Stage[F32 | None, Expression, Expression] = Engine(loaded, renderer="none").style
    assert isinstance(stage, SpeakingStyle)
    first, second = expressions(loaded.fps, 0), expressions(loaded.fps, 1)
    stream = Stream[Expression, Expression](
        first, second, lambda k: first[k].sample, lambda _, output: output.sample
    )
    verify_stage(stage, stream)


@pytest.mark.parametrize("profile", ["low", "live", "studio"])
def test_background_matcher(loaded: Target, profile: str) -> None:
    matcher = Engine(loaded, profile, renderer="none").matcher
    assert isinstance(matcher, BackgroundMatcher)
    stage: Stage[MatcherState, Expression, MatchedFrame] = matcher
    first, second = expressions(loaded.fps, 0), expressions(loaded.fps, 1)
    stream = Stream[Expression, MatchedFrame](
        first, second, lambda k: first[k].sample,
        lambda _, output: frame_sample(output.frame_index, loaded.fps),
    )  # fmt: skip
    verify_stage(stage, stream)


def test_sequential_background(loaded: Target) -> None:
    stage: Stage[int, Expression, MatchedFrame] = SequentialBackground(7)
    first, second = expressions(loaded.fps, 0), expressions(loaded.fps, 1)

    def offline(items: Sequence[Expression]) -> list[MatchedFrame]:
        order = [0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1] * STEPS
        return [MatchedFrame(k, order[k], item) for k, item in enumerate(items)]

    stream = Stream[Expression, MatchedFrame](
        first, second, lambda k: first[k].sample,
        lambda _, output: frame_sample(output.frame_index, loaded.fps),
    )  # fmt: skip
    verify_stage(stage, stream, offline)


@pytest.mark.parametrize("lag_frames", [0, 2, STEPS])
def test_source_selector(loaded: Target, lag_frames: int) -> None:
    selector = SourceSelector(mouth_sources(loaded), lag_frames, loaded.fps)
    stage: Stage[SourceState, MatchedFrame, SelectedSource] = selector
    first, second = (
        [MatchedFrame(k, k % len(loaded.track), e) for k, e in enumerate(made)]
        for made in (expressions(loaded.fps, 0), expressions(loaded.fps, 1))
    )

    def offline(items: Sequence[MatchedFrame]) -> list[SelectedSource]:
        """The best path over the whole clip."""
        predictions = [selector.predict(item) for item in items]
        rows = [selector.emission(i, p) for i, p in zip(items, predictions, strict=True)]
        path = viterbi(selector.search.transitions, rows)
        return [
            SelectedSource(i, int(s), p) for i, s, p in zip(items, path, predictions, strict=True)
        ]

    stream = Stream[MatchedFrame, SelectedSource](
        first, second, lambda k: frame_sample(k, loaded.fps),
        lambda _, output: frame_sample(output.matched.frame_index, loaded.fps),
    )  # fmt: skip
    if lag_frames < STEPS:
        verify_stage(stage, stream)
    else:
        assert [s.source for s in run(stage, first)] == [s.source for s in offline(first)]


@pytest.mark.parametrize("background", ["matched", "sequential"])
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(24_000, 1001)])
def test_the_whole_chain(loaded: Target, background: str, fps: Fraction) -> None:
    engine = Engine(replace(loaded, fps=fps), background=background, renderer="none")
    chain: Chain[StageStates, AudioChunk, SelectedSource] = engine.stages
    stage: Stage[StageStates, AudioChunk, SelectedSource] = chain
    end, sound = 100 * STEP_SAMPLES, babble(2.0)
    edges = range(0, end + 1, STEP_SAMPLES)
    stream = Stream[AudioChunk, SelectedSource](
        chunks(sound, edges),
        chunks(babble(2.0, 3), edges),
        end_of_step,
        lambda _, output: frame_sample(output.matched.frame_index, fps),
        cuts=[chunks(sound, [0, end]), chunks(sound, [0, 7, 1237, 9999, end])],
        early_samples=0 if fps == 25 else STEP_SAMPLES,
    )
    verify_stage(stage, stream)
    assert engine.delay_samples == stage.lag_samples
