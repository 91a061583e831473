"""The encoder: any cut, no dependence on later audio, the stated lag, the offline model."""

from __future__ import annotations

import time
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.engine.face.model import face_model
from lipstream.engine.networks.encoder_numpy import dequantised
from lipstream.engine.networks.encoder_state import SILENT_STEPS
from lipstream.engine.networks.signatures import LOOK_AHEADS_MS, encoder_shapes
from lipstream.engine.speech import encoder as encoder_module
from lipstream.engine.speech.encoder import PROFILE_LOOK_AHEAD_MS, Encoder
from lipstream.engine.speech.features import Features, offline_log_mel
from lipstream.engine.types import F32, STEP_SAMPLES, AudioChunk, Expression
from tests.encoder_at_once import at_once
from tests.engine.sounds import hum, noise, real_speech, vowels
from tests.random_encoder import HIDDEN, random_model, random_weights


@cache
def encoder(look_ahead_ms: int = 80) -> Encoder:
    return Encoder(look_ahead_ms)


@cache
def untrained(look_ahead_ms: int = 80, backend: str = "auto") -> Encoder:
    """With random weights, for what holds whatever they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_module, "shipped", lambda _: random_model())
        return Encoder(look_ahead_ms, backend)


def run(stage: Encoder, samples: F32, cuts: list[int] | None = None) -> list[Expression]:
    """Fold of step over the pieces between `cuts`, then flush."""
    edges = [0, *sorted(cuts or []), len(samples)]
    state, outputs = stage.init(), []
    for start, end in zip(edges, edges[1:], strict=False):
        more, state = stage.step(state, AudioChunk(samples[start:end], start))
        outputs += more
    return outputs + stage.flush(state)


def coefficients(outputs: list[Expression]) -> F32:
    return np.stack([output.coefficients for output in outputs])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 19_000), max_size=12), st.sampled_from(LOOK_AHEADS_MS))
def test_any_cut_gives_the_same_bits(cuts: list[int], look_ahead_ms: int) -> None:
    samples = vowels(19_000 / 16_000)
    whole = run(untrained(look_ahead_ms), samples)
    pieces = run(untrained(look_ahead_ms), samples, cuts)
    assert [output.sample for output in pieces] == [output.sample for output in whole]
    assert coefficients(pieces).tobytes() == coefficients(whole).tobytes()
    assert [output.lips for output in pieces] == [output.lips for output in whole]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 49), st.sampled_from(LOOK_AHEADS_MS), st.integers(0, 99))
def test_the_future_beyond_the_look_ahead_changes_nothing(
    step: int, look_ahead_ms: int, seed: int
) -> None:
    samples = vowels(1.0)
    other = samples.copy()
    changed = step * STEP_SAMPLES
    other[changed:] = noise(1.0, 0.1, seed)[changed:]
    limit = changed - untrained(look_ahead_ms).lag_samples
    first, second = (run(untrained(look_ahead_ms), audio) for audio in (samples, other))
    kept = [a for a in first if a.sample <= limit]
    assert coefficients([*kept, first[-1]])[:-1].tobytes() == (
        coefficients([*second[: len(kept)], second[-1]])[:-1].tobytes()
    )


@pytest.mark.parametrize("look_ahead_ms", LOOK_AHEADS_MS)
def test_the_stated_lag_is_the_measured_lag(look_ahead_ms: int) -> None:
    stage = untrained(look_ahead_ms)
    samples = vowels(1.0)
    state = stage.init()
    for received in range(STEP_SAMPLES, len(samples) + 1, STEP_SAMPLES):
        chunk = AudioChunk(samples[received - STEP_SAMPLES : received], received - STEP_SAMPLES)
        outputs, state = stage.step(state, chunk)
        assert [received - output.sample for output in outputs] == (
            [stage.lag_samples] if received >= stage.lag_samples else []
        )


@pytest.mark.parametrize("length", [1, 319, 320, 321, 4000, 16_000, 16_001])
@pytest.mark.parametrize("look_ahead_ms", [0, 80, 200])
def test_every_step_that_was_begun_gets_one_expression(length: int, look_ahead_ms: int) -> None:
    outputs = run(untrained(look_ahead_ms), vowels(1.1)[:length])
    times = [output.sample for output in outputs]
    if look_ahead_ms == 0:  # it gives the end of each step, and never the start
        assert times == list(range(STEP_SAMPLES, length + 1, STEP_SAMPLES))
    else:
        assert times == list(range(0, length, STEP_SAMPLES))


def test_nothing_in_nothing_out() -> None:
    assert untrained().flush(untrained().init()) == []


def test_a_session_may_start_anywhere_on_its_clock() -> None:
    samples = vowels(0.5)
    outputs, _ = untrained().step(untrained().init(), AudioChunk(samples, 1_000_000))
    plain, _ = untrained().step(untrained().init(), AudioChunk(samples, 0))
    assert [output.sample - 1_000_000 for output in outputs] == [o.sample for o in plain]


def test_a_state_is_a_value() -> None:
    samples = vowels(1.0)
    _, state = untrained().step(untrained().init(), AudioChunk(samples[:5000], 0))
    chunk = AudioChunk(samples[5000:12_000], 5000)
    first, _ = untrained().step(state, chunk)
    untrained().step(state, AudioChunk(noise(0.5, 0.1), 5000))
    again, _ = untrained().step(state, chunk)
    assert coefficients(first).tobytes() == coefficients(again).tobytes()


def silent_frames() -> F32:
    (silence,), _ = Features().step(Features().init(), np.zeros(STEP_SAMPLES, np.float32))
    return silence


def test_streaming_equals_the_model_over_the_whole_clip() -> None:
    """After silence, against an independent computation, gate aside."""
    samples = vowels(2.0)
    features, rows = Features(), [silent_frames()] * SILENT_STEPS
    state = features.normaliser.init()
    for frame in offline_log_mel(features, samples):
        row, state = features.normaliser.step(state, frame)
        rows.append(row[None])
    weights = {n: v.astype(np.float64) for n, v in dequantised(random_weights()).items()}
    heads, _ = at_once(weights, np.concatenate(rows).astype(np.float64))
    whole = heads[SILENT_STEPS:, LOOK_AHEADS_MS.index(80)]
    outputs, _ = untrained().step(untrained().init(), AudioChunk(samples, 0))
    streamed = coefficients(outputs)
    offline = whole[3 : 3 + len(streamed)]
    # Where the gate is fully open the two must agree: elsewhere it only scales towards rest.
    open_steps = np.array([output.activity == 1 for output in outputs])
    assert open_steps.sum() > 20
    assert offline[open_steps].std(0).min() > 0.01
    np.testing.assert_allclose(streamed[open_steps], offline[open_steps], atol=2e-3)


def test_a_stream_begins_as_after_silence() -> None:
    """So more of it changes nothing."""
    states = untrained().init().network
    assert {name: value.shape[1:] for name, value in states.items()} == {
        name: shape for name, shape in encoder_shapes(HIDDEN).items() if name != "features"
    }
    after = untrained().network.run({**states, "features": silent_frames().reshape(1, -1)})
    for name, value in states.items():
        assert value.any()
        np.testing.assert_allclose(after[f"{name}_next"], value, atol=2e-3, err_msg=name)
    assert untrained().init().network is states


def test_a_new_turn_keeps_the_level_and_the_memory_of_the_voice() -> None:
    _, spoken = untrained().step(untrained().init(), AudioChunk(vowels(1.0), 0))
    restarted, fresh = untrained().restart(spoken), untrained().init()
    np.testing.assert_array_equal(restarted.network["memory"], spoken.network["memory"])
    assert np.abs(spoken.network["memory"] - fresh.network["memory"]).max() > 0.1
    for name in ("frames", "lifted", "waiting", "hidden"):
        np.testing.assert_array_equal(restarted.network[name], fresh.network[name])
    assert restarted.features is spoken.features
    assert (restarted.next_sample, restarted.steps) == (spoken.next_sample, 0)


@cache
def of_the_reference() -> F32:
    return coefficients(run(untrained(backend="numpy"), vowels(3.0)))


@pytest.mark.parametrize("name", ["auto", "openvino"])
def test_backends_stay_with_the_reference_over_a_whole_clip(name: str) -> None:
    if name == "openvino":
        pytest.importorskip("onnx")
    other = coefficients(run(untrained(backend=name), vowels(3.0)))
    assert np.abs(other - of_the_reference()).max() < 2e-3


@pytest.mark.parametrize("sound", ["zeros", "white", "hum"])
def test_no_speech_rests_exactly(sound: str) -> None:
    samples = {"zeros": np.zeros(48_000, np.float32), "white": noise(3, 0.02), "hum": hum(3)}[sound]
    outputs = run(encoder(), samples)
    settled = [output for output in outputs if output.sample > 8000]
    assert not any(output.coefficients.any() for output in settled)
    assert not any(output.speech for output in settled)
    assert max(output.lips.opening for output in outputs) < 0.08


def test_the_rest_pose_is_the_face_models() -> None:
    lips = run(encoder(), np.zeros(3200, np.float32))[-1].lips
    assert lips.opening == 0.0
    assert lips.protrusion == 0.0
    assert lips.width == pytest.approx(face_model().rest_width())


@pytest.mark.parametrize("profile", PROFILE_LOOK_AHEAD_MS)
def test_after_speech_the_mouth_rests_soon_and_stays(profile: str) -> None:
    speech = real_speech()[: 2 * 16_000]
    silence = noise(3.0, 0.0002)
    outputs = run(encoder(PROFILE_LOOK_AHEAD_MS[profile]), np.concatenate([speech, silence]))
    assert max(output.lips.opening for output in outputs) > 0.1
    # Its lips all but meet at once, and are exactly at rest when no word can follow any more.
    soon = [output for output in outputs if output.sample >= len(speech) + 4_800]
    assert max(output.lips.opening for output in soon) < 0.05
    late = [output for output in outputs if output.sample >= len(speech) + 14_400]
    assert not any(output.coefficients.any() for output in late)


def at_peak(speech: F32, peak_db: float) -> F32:
    return (speech * (10 ** (peak_db / 20) / np.abs(speech).max())).astype(np.float32)


@pytest.mark.parametrize("profile", PROFILE_LOOK_AHEAD_MS)
@pytest.mark.parametrize("peak_db", [-30.0, -35.0, -40.0])
def test_a_quiet_voice_opens_as_far_after_half_a_second(profile: str, peak_db: float) -> None:
    speech = real_speech()[: 4 * 16_000]
    stage = encoder(PROFILE_LOOK_AHEAD_MS[profile])
    usual, quiet = (
        np.array([e.lips.opening for e in run(stage, at_peak(speech, db))])
        for db in (-8.0, peak_db)
    )
    first, rest = slice(25, 75), slice(75, None)  # from 0.5 s on, and from 1.5 s on
    assert quiet[first].mean() == pytest.approx(usual[first].mean(), rel=0.15)
    assert quiet[rest].mean() == pytest.approx(usual[rest].mean(), rel=0.1)


def test_a_voice_at_a_usual_level_is_heard_as_it_is() -> None:
    speech = real_speech()[: 2 * 16_000]
    for peak_db in (-3.0, -8.0, -14.0):
        _, state = encoder().step(encoder().init(), AudioChunk(at_peak(speech, peak_db), 0))
        assert state.gain.settled and state.gain.gain == 1.0


@pytest.mark.parametrize("level", [0.0003, 0.001, 0.003])
@pytest.mark.parametrize("sound", ["noise", "hum", "breath"])
def test_quiet_sounds_that_are_no_voice_are_not_lifted(sound: str, level: float) -> None:
    swell = np.clip(np.sin(2 * np.pi * 0.25 * np.arange(8 * 16_000) / 16_000), 0, 1)
    made = {
        "noise": noise(8.0, level),
        "hum": hum(8.0) * np.float32(level / 0.05),
        "breath": (noise(8.0, level) * swell).astype(np.float32),
    }[sound]
    outputs = run(encoder(), made)
    assert not any(output.coefficients.any() for output in outputs)


def test_the_cost_of_a_step_leaves_the_core_free() -> None:
    samples = vowels(2.0)
    run(untrained(), samples)
    best = np.inf
    for _ in range(4):
        began = time.process_time()
        run(untrained(), samples)
        best = min(best, (time.process_time() - began) / 104)
    assert best < 0.002, f"{1000 * best:.2f} ms a step; 0.45 ms on an idle core, 1 ms promised"


def test_wrong_audio_is_refused_with_a_reason() -> None:
    stage = untrained()
    with pytest.raises(UsageError, match="mono"):
        stage.step(stage.init(), AudioChunk(np.zeros((2, 320), np.float32), 0))
    with pytest.raises(UsageError, match="float32"):
        stage.step(stage.init(), AudioChunk(np.zeros(320, np.float64), 0))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="NaN"):
        stage.step(stage.init(), AudioChunk(np.full(320, np.nan, np.float32), 0))
    _, state = stage.step(stage.init(), AudioChunk(np.zeros(100, np.float32), 0))
    with pytest.raises(UsageError, match="expected 100"):
        stage.step(state, AudioChunk(np.zeros(100, np.float32), 200))
    with pytest.raises(UsageError, match="look-ahead of 60"):
        Encoder(60)
