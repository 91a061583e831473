"""Sounds for tests: something like speech, and things that are not."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import numpy as np
import pytest

from lipstream.engine.types import F32, SAMPLE_RATE_HZ


def vowels(seconds: float, seed: int = 0) -> F32:
    """A buzz through moving formants, with syllables and pauses; voice to webrtcvad."""
    rng = np.random.default_rng(seed)
    n = int(seconds * SAMPLE_RATE_HZ)
    time_s = np.arange(n) / SAMPLE_RATE_HZ
    pitch_hz = 120 + 20 * np.sin(2 * np.pi * 0.7 * time_s + seed)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    first = 500 + 250 * np.sin(2 * np.pi * 2.1 * time_s)
    out = np.zeros(n)
    for harmonic in range(1, 30):
        hz = harmonic * pitch_hz
        gain = np.exp(-(((hz - first) / 150) ** 2)) + 0.4 * np.exp(-(((hz - 1500) / 250) ** 2))
        out += gain * np.sin(harmonic * phase)
    syllables = np.clip(4 * np.sin(2 * np.pi * 3.3 * time_s) + 2.0, 0.0, 1.0)
    out = 0.05 * out * syllables + 0.0003 * rng.standard_normal(n)
    return out.astype(np.float32)


def noise(seconds: float, level: float, seed: int = 0) -> F32:
    """White noise."""
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(int(seconds * SAMPLE_RATE_HZ))).astype(np.float32)


def hum(seconds: float) -> F32:
    """Mains and its harmonics."""
    time_s = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tone = 0.05 * np.sin(2 * np.pi * 100 * time_s) + 0.02 * np.sin(2 * np.pi * 200 * time_s)
    return (tone + noise(seconds, 0.001)).astype(np.float32)


def data_folder() -> Path:
    """The folder of real clips and speech; skips the test when it is not there."""
    here = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("LIPSTREAM_TEST_DATA", here.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder}; set LIPSTREAM_TEST_DATA")
    return folder


def real_speech() -> F32:
    """A sentence of a real voice, f32 mono 16 kHz; skips without the data."""
    path = sorted((data_folder() / "audio" / "lj").glob("*.wav"))[0]
    with wave.open(str(path)) as source:
        rate_hz = source.getframerate()
        raw = source.readframes(source.getnframes())
    samples = np.frombuffer(raw, np.int16).astype(np.float32) / 32768.0
    wanted = np.arange(int(len(samples) * SAMPLE_RATE_HZ / rate_hz)) * rate_hz / SAMPLE_RATE_HZ
    return np.interp(wanted, np.arange(len(samples)), samples).astype(np.float32)
