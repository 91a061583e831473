"""Speech in, frames out: an independent face tracker measures the lips of the output."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from lipstream.calibration import assets
from lipstream.engine.pipeline import Engine
from lipstream.engine.speech.encoder import Encoder
from lipstream.engine.target.bundle import load_target
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, AudioChunk, Expression, VideoFrame

FPS = 25
SECONDS = 14


@pytest.fixture(scope="module")
def spoken(target: Path) -> tuple[F32, list[VideoFrame]]:
    from lipstream.calibration.demo import demo_speech
    from lipstream.streaming.files.audio_file import read_speech

    with tempfile.TemporaryDirectory() as folder:
        voice = read_speech(demo_speech(Path(folder)))[: SECONDS * SAMPLE_RATE_HZ]
    session = Engine(load_target(target)).session()
    frames = [
        frame
        for start in range(0, len(voice), 320)
        for frame in session.push(voice[start : start + 320])
    ]
    return voice, frames + session.flush()


@pytest.fixture(scope="module")
def tracked(spoken: tuple[F32, list[VideoFrame]]) -> F32:
    """Lip opening of each output frame by MediaPipe, over the inter-ocular distance."""
    asset = assets.find()
    if asset is None:
        pytest.skip("no face_landmarker.task (lipstream assets fetch)")
    from lipstream.calibration.tracking.landmarker import Landmarker

    openings = []
    with Landmarker(asset) as landmarker:
        for frame in spoken[1]:
            points = landmarker.faces(frame.image)[0].landmarks[:, :2]
            eyes = np.linalg.norm(points[[33, 133]].mean(0) - points[[362, 263]].mean(0))
            openings.append(np.linalg.norm(points[14] - points[13]) / eyes)
    return np.array(openings, np.float32)


def encoded(voice: F32) -> list[Expression]:
    encoder = Encoder(80)
    outputs, state = encoder.step(encoder.init(), AudioChunk(voice, 0))
    return outputs + encoder.flush(state)


def test_lips_follow_the_voice_without_delay(
    spoken: tuple[F32, list[VideoFrame]], tracked: F32
) -> None:
    expected = encoded(spoken[0])
    time_s = np.array([e.sample for e in expected]) / SAMPLE_RATE_HZ
    opening = np.array([e.lips.opening for e in expected])
    shown_s = np.arange(len(tracked)) / FPS

    def follows(delay_s: float) -> float:
        return float(np.corrcoef(tracked, np.interp(shown_s - delay_s, time_s, opening))[0, 1])

    delays_ms = range(-120, 121, 10)
    best_ms = max(delays_ms, key=lambda ms: follows(ms / 1000))
    assert abs(best_ms) <= 20  # half a frame
    assert follows(0.0) > 0.9


def test_lips_are_closed_and_still_in_pauses(
    spoken: tuple[F32, list[VideoFrame]], tracked: F32
) -> None:
    speech = np.array([f.speech for f in spoken[1]])
    # Frames well inside a pause: silence 200 ms before and 80 ms after.
    quiet = ~speech
    for shift in (1, 2, 3, 4, 5, -1, -2):
        quiet &= ~np.roll(speech, shift)
    assert quiet.sum() >= 6, "the demo speech has a pause"
    widest = np.percentile(tracked, 95)
    assert tracked[quiet].max() < 0.15 * widest  # the closed lips of real people measure below this
    both = quiet[1:] & quiet[:-1]
    assert np.abs(np.diff(tracked))[both].mean() < 0.002  # no jitter
