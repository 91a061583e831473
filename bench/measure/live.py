"""From sound in to frame out on the clock: conversations as the server holds them.

Each conversation has its `SessionRunner`; a source hands it 20 ms of sound every 20 ms; frames are
encoded in its thread when they are painted, and leave at their release times. What a frame waited
for is kept apart from what was computed for it.
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

# What a frame's way consists of, in order; their sum is the whole.
PARTS: Final = (
    "algorithmic", "chunking", "queue", "compute", "hand_over", "encode", "hold",
)  # fmt: skip
_CLICK_S: Final = 1.013  # so that clicks fall everywhere between two frames
_SPREAD_S: Final = 2.0  # in which several conversations begin
_APART_S: Final = 1.7  # of the voice, from one conversation to the next
_STEADY_FRAMES: Final = 25  # after time was skipped, until a frame's sound is where it says again


@dataclass
class _Watched:
    """The engine, with a note of when each frame was begun, done and by which sound."""

    engine: LiveEngine
    recorder: Recorder | None = None
    notes: dict[int, dict[str, float]] = field(default_factory=dict)  # by frame index
    stages: dict[int, dict[str, float]] = field(default_factory=dict)
    _session: LiveSession | None = None

    @property
    def delay_ms(self) -> float:
        return self.engine.delay_ms

    def session(self) -> _Watched:
        self._session = self.engine.session()
        return self

    def push(self, chunk: AudioChunk, paint: bool = True) -> list[VideoFrame]:
        assert self._session is not None
        began_s = time.monotonic()
        frames = self._session.push(chunk, paint)
        done_s = time.monotonic()
        own = own_ms(self.recorder.take()) if self.recorder is not None else {}
        for frame in frames:
            self.notes[frame.frame_index] = {
                "began_s": began_s,
                "done_s": done_s,
                "heard_sample": chunk.start_sample + chunk.samples.size,
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
    """What one conversation left behind."""

    rows: list[dict[str, float]] = field(default_factory=list)  # ms, by PARTS and "total"
    stages: list[dict[str, float]] = field(default_factory=list)
    # A click's way, ms from said to sent; and its frame's total.
    clicks: list[tuple[float, float]] = field(default_factory=list)
    first_frame_ms: float = 0.0  # from start to the first frame sent
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
    """One conversation in real time; figures after the warm-up."""
    engine = setting.engine(target)
    warm_ms = warm_up(engine) * 1000
    freeze()
    load = Load()
    recorder = Recorder(slowed)
    with recording(recorder):
        done = converse(engine, target.fps, 1, seconds, recorder)[0]
    if done.error is not None:
        raise RuntimeError(f"the conversation ended by {done.error}")
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
            "parts_sum_ms": round(whole, 3),  # of the frames that carried a click
            "measured_ms": round(took, 3),
            "difference_ms": round(difference, 3),  # median over clicks
            "clicks": len(done.clicks),
        },
        "late_frames": done.late_frames,
        "dropped_frames": done.dropped_frames,
        "unpainted_frames": done.repeated_frames,
        "slipped_ms": done.slipped_ms,
        "samples_ms": {
            **{name: [round(x, 4) for x in values] for name, values in parts.items()},
            "click": [round(x, 4) for x, _ in done.clicks],
        },
    }


def converse(
    engine: LiveEngine, fps: Fraction, count: int, seconds: float, recorder: Recorder | None = None
) -> list[Conversation]:
    """`count` conversations at once over one engine, in real time, for warm-up + `seconds`.

    Callers do not speak in step: they begin one after another, and each says something else, or all
    would come to the end of the footage, and to its dear frames, in the same moment.
    """
    waits_s = [k * (_SPREAD_S + 1 / float(fps)) / count for k in range(count)]
    warm_s = [WARM_UP_S + waits_s[-1] - wait_s for wait_s in waits_s]
    said = voice(WARM_UP_S + waits_s[-1] + seconds)  # read before the clock starts

    async def all_at_once() -> list[Conversation]:
        told = [
            _converse(engine, fps, warm_s[k], _from(said, k, warm_s[k] + seconds), recorder, wait_s)
            for k, wait_s in enumerate(waits_s)
        ]
        return list(await asyncio.gather(*told))

    return asyncio.run(all_at_once())


async def _converse(
    engine: LiveEngine, fps: Fraction, warm_up_s: float, said: F32, recorder: Recorder | None,
    wait_s: float,
) -> Conversation:  # fmt: skip
    sound, clicks = _clicked(said)
    await asyncio.sleep(wait_s)
    watched, done = _Watched(engine, recorder), Conversation()
    runner = SessionRunner(watched)
    encoding, encoded = Encoding(fps), dict[int, tuple[float, float]]()

    def painted(item: TimedFrame) -> None:
        begun_s = time.monotonic()
        encoding.encode(item.frame)
        encoded[item.frame.frame_index] = begun_s, time.monotonic()

    subscription = runner.subscribe(painted)
    runner.start()
    source = asyncio.create_task(_speak(runner, sound))
    warm_s = runner.clock.origin_s + warm_up_s
    steady, slipped = _STEADY_FRAMES, 0
    while (item := await subscription.next()) is not None:
        frame = item.frame
        index = frame.frame_index
        begun_s, encoded_s = encoded.pop(index)
        left_s = time.monotonic()
        if not done.first_frame_ms:
            done.first_frame_ms = (left_s - runner.clock.origin_s) * 1000
        note = watched.notes.pop(index)
        own = watched.stages.pop(index)
        slip = item.media_sample - frame_sample(index, frame.fps)
        spoken_s = runner.clock.wall_s(item.media_sample)
        ready_s = runner.clock.wall_s(int(note["heard_sample"]) + slip)
        row = {
            "algorithmic": engine.delay_ms,
            "chunking": (ready_s - spoken_s) * 1000 - engine.delay_ms,
            "queue": (note["began_s"] - ready_s) * 1000,
            "compute": (note["done_s"] - note["began_s"]) * 1000,
            "hand_over": (begun_s - note["done_s"]) * 1000,
            "encode": (encoded_s - begun_s) * 1000,
            "hold": (left_s - encoded_s) * 1000,
            "total": (left_s - spoken_s) * 1000,
        }
        if spoken_s >= warm_s:
            done.rows.append(row)
            done.stages.append({**own, "encode": row["encode"]})
            steady = steady + 1 if runner.counters.slipped_samples == slipped else 0
            slipped = runner.counters.slipped_samples
            for at in np.flatnonzero(frame.audio.samples == 1.0):
                if steady >= _STEADY_FRAMES:
                    said_s = min(
                        (runner.clock.wall_s(c) for c in clicks),
                        key=lambda s: abs(s - spoken_s - at / SAMPLE_RATE_HZ),
                    )
                    # Within its frame a click is heard later than the picture begins.
                    lag_s = left_s + at / SAMPLE_RATE_HZ - said_s
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


def _from(voice: F32, number: int, seconds: float) -> F32:
    """What caller `number` says."""
    said: F32 = np.roll(voice, -round(number * _APART_S * SAMPLE_RATE_HZ))
    return said[: round(seconds * SAMPLE_RATE_HZ)]


async def _speak(runner: SessionRunner, sound: F32) -> None:
    """Each 20 ms at the moment when they have been said, by the conversation's own clock."""
    for start in range(0, len(sound) - STEP_SAMPLES + 1, STEP_SAMPLES):
        end_s = runner.clock.wall_s(start + STEP_SAMPLES)
        await asyncio.sleep(max(0.0, end_s - time.monotonic()))
        runner.push_audio(sound[start : start + STEP_SAMPLES], start)


def _clicked(sound: F32) -> tuple[F32, list[int]]:
    """The sound with single samples of exactly 1.0, and where they are."""
    sound = np.clip(sound, -0.8, 0.8)
    at = list(range(7, len(sound), round(_CLICK_S * SAMPLE_RATE_HZ)))
    sound[at] = 1.0
    return sound, at


def in_time(conversations: Sequence[Conversation]) -> list[float]:
    """ms from complete sound to encoded picture, without the hold, of all frames."""
    timely = ("queue", "compute", "hand_over", "encode")
    return [sum(row[name] for name in timely) for done in conversations for row in done.rows]
