"""Latency of conversations in real time, as the server runs them.

Each conversation has a `SessionRunner`. A source pushes 20 ms of sound every 20 ms. A frame is
encoded in the thread of the runner and released at its presentation time. Waiting is recorded apart
from compute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np

from lipstream.bench.bench_target import Encoding, voice
from lipstream.bench.machine import Load
from lipstream.bench.measure.latency import WARM_UP_S, Setting, own_ms
from lipstream.bench.measure.statistics import percentiles
from lipstream.engine.profiling import SPANS, Recorder, recording
from lipstream.engine.target.bundle import Target
from lipstream.engine.timebase import frame_sample
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, STEP_SAMPLES, AudioChunk, VideoFrame
from lipstream.streaming.session.gc_policy import freeze
from lipstream.streaming.session.live_engine import LiveEngine, LiveSession, warm_up
from lipstream.streaming.session.runner import SessionRunner
from lipstream.streaming.session.subscription import TimedFrame

# The parts of the latency of a frame, in order. They add up to `total`.
PARTS: Final = (
    "algorithmic", "chunking", "queue", "compute", "hand_over", "encode", "hold",
)  # fmt: skip
_CLICK_S: Final = 1.013  # no multiple of a frame interval: clicks fall at every phase of it
_SPREAD_S: Final = 2.0  # over which the starts of several conversations are spread
_VOICE_SHIFT_S: Final = 1.7  # of the speech, from one conversation to the next
_STEADY_FRAMES: Final = 25  # after skipped time, until sound and frames are aligned again


@dataclass
class _TimedEngine:
    """An engine that records when each frame is computed, and with which sound."""

    engine: LiveEngine
    recorder: Recorder | None = None
    times: dict[int, dict[str, float]] = field(default_factory=dict)  # by frame index
    stages: dict[int, dict[str, float]] = field(default_factory=dict)
    _session: LiveSession | None = None

    @property
    def delay_ms(self) -> float:
        return self.engine.delay_ms

    def session(self) -> _TimedEngine:
        self._session = self.engine.session()
        return self

    def push(self, chunk: AudioChunk, paint: bool = True) -> list[VideoFrame]:
        assert self._session is not None
        began_s = time.monotonic()
        frames = self._session.push(chunk, paint)
        done_s = time.monotonic()
        own = own_ms(self.recorder.take()) if self.recorder is not None else {}
        for frame in frames:
            self.times[frame.frame_index] = {
                "began_s": began_s,
                "done_s": done_s,
                "pushed_sample": chunk.start_sample + chunk.samples.size,
            }
            self.stages[frame.frame_index] = own
        return frames

    def interrupt(self) -> None:
        assert self._session is not None
        self._session.interrupt()

    def close(self) -> None:
        assert self._session is not None
        self._session.close()


@dataclass
class Conversation:
    """The measurements of one conversation."""

    rows: list[dict[str, float]] = field(default_factory=list)  # ms, by PARTS and "total"
    stages: list[dict[str, float]] = field(default_factory=list)
    # Of each click: ms from the microphone to the release of its frame; and `total` of that frame.
    clicks: list[tuple[float, float]] = field(default_factory=list)
    first_frame_ms: float = 0.0  # from the start to the release of the first frame
    late_frames: int = 0
    dropped_frames: int = 0
    repeated_frames: int = 0
    slipped_ms: float = 0.0
    error: str | None = None


def measure_paced(
    target: Target,
    setting: Setting,
    seconds: float = 20.0,
    slowed: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Latency of one conversation in real time; `slowed` as in `latency.measure_unpaced`."""
    engine = setting.engine(target)
    warm_ms = warm_up(engine).seconds * 1000
    freeze()
    load = Load()
    recorder = Recorder(slowed)
    with recording(recorder):
        done = converse(engine, target.fps, 1, seconds, recorder)[0]
    if done.error is not None:
        raise RuntimeError(f"the conversation ended with an error: {done.error}")
    parts = {name: [row[name] for row in done.rows] for name in (*PARTS, "total")}
    stages = {
        name: percentiles([row.get(name, 0.0) for row in done.stages])
        for name in SPANS
        if any(name in row for row in done.stages)
    }
    clicks = np.array(done.clicks or [(0.0, 0.0)])
    took, whole = clicks.mean(0).tolist()
    difference = float(np.median(clicks[:, 0] - clicks[:, 1]))
    return {
        "backend": engine.backend,
        "renderer": engine.renderer is not None,
        "profile": setting.profile,
        "others_cores": load.others(),
        "warm_up_ms": round(warm_ms, 2),
        "first_frame_ms": round(done.first_frame_ms, 2),
        "parts": {name: percentiles(values) for name, values in parts.items()},
        "stages": stages,
        "click": {
            "parts_sum_ms": round(whole, 3),  # of the frames with a click
            "measured_ms": round(took, 3),
            "difference_ms": round(difference, 3),  # median over clicks
            "clicks": len(done.clicks),
        },
        "late_frames": done.late_frames,
        "dropped_frames": done.dropped_frames,
        "repeated_frames": done.repeated_frames,
        "slipped_ms": done.slipped_ms,
        "samples_ms": {
            **{name: [round(x, 4) for x in values] for name, values in parts.items()},
            "click": [round(x, 4) for x, _ in done.clicks],
        },
    }


def converse(
    engine: LiveEngine, fps: Fraction, count: int, seconds: float, recorder: Recorder | None = None
) -> list[Conversation]:
    """`count` conversations at once on one engine, in real time, for warm-up + `seconds`.

    They start one after another, each at another place of the speech. In step, all of them would
    need the slowest frames of the footage at the same time.
    """
    waits_s = [k * (_SPREAD_S + 1 / float(fps)) / count for k in range(count)]
    warm_s = [WARM_UP_S + waits_s[-1] - wait_s for wait_s in waits_s]
    speech = voice(WARM_UP_S + waits_s[-1] + seconds)  # decoded before the clock starts

    async def all_at_once() -> list[Conversation]:
        conversations = [
            _converse(
                engine, fps, warm_s[k], _shifted(speech, k, warm_s[k] + seconds), recorder, wait_s
            )
            for k, wait_s in enumerate(waits_s)
        ]
        return list(await asyncio.gather(*conversations))

    return asyncio.run(all_at_once())


async def _converse(
    engine: LiveEngine, fps: Fraction, warm_up_s: float, speech: F32, recorder: Recorder | None,
    wait_s: float,
) -> Conversation:  # fmt: skip
    sound, clicks = _clicked(speech)
    await asyncio.sleep(wait_s)
    timed, done = _TimedEngine(engine, recorder), Conversation()
    runner = SessionRunner(timed)
    encoding, encoded = Encoding(fps), dict[int, tuple[float, float]]()

    def encode(item: TimedFrame) -> None:
        begun_s = time.monotonic()
        encoding.encode(item.frame)
        encoded[item.frame.frame_index] = begun_s, time.monotonic()

    subscription = runner.subscribe(encode)
    runner.start()
    source = asyncio.create_task(_speak(runner, sound))
    warm_s = runner.clock.origin_s + warm_up_s
    steady, slipped = _STEADY_FRAMES, 0
    while (item := await subscription.next()) is not None:
        frame = item.frame
        index = frame.frame_index
        begun_s, encoded_s = encoded.pop(index)
        released_s = time.monotonic()
        if not done.first_frame_ms:
            done.first_frame_ms = (released_s - runner.clock.origin_s) * 1000
        computed = timed.times.pop(index)
        own = timed.stages.pop(index)
        slip = item.media_sample - frame_sample(index, frame.fps)
        spoken_s = runner.clock.wall_s(item.media_sample)
        ready_s = runner.clock.wall_s(int(computed["pushed_sample"]) + slip)
        row = {
            "algorithmic": engine.delay_ms,
            "chunking": (ready_s - spoken_s) * 1000 - engine.delay_ms,
            "queue": (computed["began_s"] - ready_s) * 1000,
            "compute": (computed["done_s"] - computed["began_s"]) * 1000,
            "hand_over": (begun_s - computed["done_s"]) * 1000,
            "encode": (encoded_s - begun_s) * 1000,
            "hold": (released_s - encoded_s) * 1000,
            "total": (released_s - spoken_s) * 1000,
        }
        if spoken_s >= warm_s:
            done.rows.append(row)
            done.stages.append({**own, "encode": row["encode"]})
            steady = steady + 1 if runner.counters.slipped_samples == slipped else 0
            slipped = runner.counters.slipped_samples
            for at in np.flatnonzero(frame.audio.samples == 1.0):
                if steady >= _STEADY_FRAMES:
                    click_s = min(
                        (runner.clock.wall_s(c) for c in clicks),
                        key=lambda s: abs(s - spoken_s - at / SAMPLE_RATE_HZ),
                    )
                    # A click comes `at` samples after the first sample of its frame.
                    lag_s = released_s + at / SAMPLE_RATE_HZ - click_s
                    done.clicks.append((lag_s * 1000, row["total"]))
        if source.done():
            break
    await source
    subscription.close()
    runner.close()
    counters = runner.counters
    done.late_frames, done.dropped_frames = counters.late_frames, counters.dropped_frames
    done.repeated_frames = counters.repeated_frames
    done.slipped_ms, done.error = counters.slipped_samples * 1000 / SAMPLE_RATE_HZ, runner.error
    return done


def _shifted(speech: F32, number: int, seconds: float) -> F32:
    """The speech of conversation `number`."""
    shifted: F32 = np.roll(speech, -round(number * _VOICE_SHIFT_S * SAMPLE_RATE_HZ))
    return shifted[: round(seconds * SAMPLE_RATE_HZ)]


async def _speak(runner: SessionRunner, sound: F32) -> None:
    """Push each 20 ms when their last sample is due by the clock of the conversation."""
    for start in range(0, len(sound) - STEP_SAMPLES + 1, STEP_SAMPLES):
        end_s = runner.clock.wall_s(start + STEP_SAMPLES)
        await asyncio.sleep(max(0.0, end_s - time.monotonic()))
        runner.push_audio(sound[start : start + STEP_SAMPLES], start)


def _clicked(sound: F32) -> tuple[F32, list[int]]:
    """The sound, limited to ±0.8, with single samples of 1.0; and the samples of these clicks."""
    sound = np.clip(sound, -0.8, 0.8)
    at = list(range(7, len(sound), round(_CLICK_S * SAMPLE_RATE_HZ)))
    sound[at] = 1.0
    return sound, at


def in_time(conversations: Sequence[Conversation]) -> list[float]:
    """ms from complete sound to encoded picture, without the hold, of every frame."""
    names = ("queue", "compute", "hand_over", "encode")
    return [sum(row[name] for name in names) for done in conversations for row in done.rows]
