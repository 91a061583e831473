"""The gate: closed without speech, open in time, at rest soon after, and a pure function."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lipstream.engine.speech.gate import Gate, GateInput, GateState
from lipstream.engine.types import F32, STEP_SAMPLES
from tests.engine.sounds import noise, vowels

STEP_MS = 20


def gate_inputs(samples: F32, probability: float | F32) -> list[GateInput]:
    """Whole steps of `samples`, each with its probability of speech."""
    steps = len(samples) // STEP_SAMPLES
    probabilities = np.broadcast_to(np.asarray(probability, np.float32), steps)
    return [
        GateInput(samples[k * STEP_SAMPLES : (k + 1) * STEP_SAMPLES], float(probabilities[k]))
        for k in range(steps)
    ]


def opened(gate: Gate, samples: F32, probability: float | F32) -> list[float]:
    """The gate over whole steps of `samples`."""
    state, openings = gate.init(), list[float]()
    for item in gate_inputs(samples, probability):
        outputs, state = gate.step(state, item)
        openings += outputs
    return openings


def test_closed_in_silence_whatever_the_encoder_says() -> None:
    assert not any(opened(Gate(80), np.zeros(32_000, np.float32), 1.0))


def test_closed_where_the_encoder_finds_no_speech() -> None:
    assert not any(opened(Gate(80), vowels(2.0), 0.1))


def test_open_in_speech() -> None:
    openings = opened(Gate(80), vowels(2.0), 1.0)
    assert np.mean(np.array(openings[10:]) == 1.0) > 0.95


def test_opens_over_two_steps() -> None:
    probability = np.zeros(50, np.float32)
    probability[25:] = 1.0
    openings = opened(Gate(80), vowels(1.0), probability)
    assert openings[24:28] == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("look_ahead_ms", [0, 80, 200])
def test_at_rest_700_ms_after_the_end_of_speech(look_ahead_ms: int) -> None:
    probability = np.ones(75, np.float32)
    probability[25:] = 0.0
    openings = np.array(opened(Gate(look_ahead_ms), vowels(1.5), probability))
    assert openings[24] == 1.0
    assert (np.diff(openings[24:]) <= 0).all()
    assert np.flatnonzero(openings[25:] == 0.0)[0] * STEP_MS <= 700


def test_a_short_dip_does_not_rest_the_mouth() -> None:
    probability = np.ones(50, np.float32)
    probability[25:27] = 0.0
    assert min(opened(Gate(80), vowels(1.0), probability)[10:]) == 1.0


def test_hysteresis_keeps_the_gate_steady_near_its_thresholds() -> None:
    probability = np.where(np.arange(100) % 2, 0.3, 0.45).astype(np.float32)
    assert not any(opened(Gate(80), vowels(2.0), probability))
    probability[5] = 0.9
    assert set(opened(Gate(80), vowels(2.0), probability)[20:]) == {1.0}


def test_a_state_is_a_value() -> None:
    gate = Gate(80)
    items = gate_inputs(vowels(1.0), 0.9)
    state = gate.init()
    for item in items[:10]:
        _, state = gate.step(state, item)
    first = gate.step(state, items[10])
    gate.step(state, GateInput(noise(0.02, 0.5), 0.0))
    assert gate.step(state, items[10]) == first


@pytest.mark.parametrize("look_ahead_ms", [0, 200])
def test_a_decision_made_late_is_the_one_of_its_time(look_ahead_ms: int) -> None:
    """Against a gate that decides at every step, over speech, noise and pauses."""

    class Eager(Gate):
        def step(self, state: GateState, item: GateInput) -> tuple[list[float], GateState]:
            opening, after = super().step(state, item)
            voiced = list(after.voiced)
            for back in range(len(voiced)):  # each by itself, whatever the others are
                alone: list[bool | None] = [False] * len(voiced)
                alone[-1 - back] = None
                voiced[-1 - back] = self._decide(after.recent, tuple(alone))[-1 - back]
            return opening, replace(after, voiced=tuple(voiced))

    random = np.random.default_rng(0)
    parts = [noise(0.7, 0.05), vowels(0.5), np.zeros(4800, np.float32), noise(0.4, 0.4)]
    sound = np.concatenate([parts[k] for k in random.integers(0, 4, 24)]).astype(np.float32)
    likely = random.uniform(0, 1, len(sound) // 16_000 + 1) ** 3
    probability = np.repeat(likely, 50)[: len(sound) // 320]  # a second each: longer than the hold
    openings = opened(Gate(look_ahead_ms), sound, probability.astype(np.float32))
    assert openings == opened(Eager(look_ahead_ms), sound, probability.astype(np.float32))
    assert 0.05 < np.mean(np.array(openings) > 0) < 0.95
