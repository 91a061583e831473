"""The generator inside LiveKit Agents' own avatar runner; only the room is ours.

On the wall clock: LiveKit paces sound and frames by `time.perf_counter`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("livekit.agents", reason="no LiveKit: pip install 'lipstream[livekit]'")

from livekit import rtc  # noqa: E402
from livekit.agents.voice.avatar import (  # noqa: E402
    AudioSegmentEnd,
    AvatarRunner,
    QueueAudioOutput,
)

from lipstream.engine.pipeline import Engine  # noqa: E402
from lipstream.streaming.integrations.livekit import LipstreamGenerator  # noqa: E402

RATE_HZ = 24_000

pytestmark = pytest.mark.alone


def speech(seconds: float, seed: int = 0) -> list[rtc.AudioFrame]:
    """In pieces of 200 ms."""
    random = np.random.default_rng(seed)
    samples = np.clip(random.normal(0, 3000, round(seconds * RATE_HZ)), -32e3, 32e3)
    pcm = samples.astype(np.int16)
    size = RATE_HZ // 5
    return [
        rtc.AudioFrame(part.tobytes(), RATE_HZ, 1, part.size)
        for part in (pcm[k : k + size] for k in range(0, pcm.size, size))
    ]


def bytes_of(frames: list[Any]) -> bytes:
    return b"".join(bytes(f.data) for f in frames if isinstance(f, rtc.AudioFrame))


async def collect(generator: LipstreamGenerator, got: list[tuple[float, Any]]) -> None:
    async for one in generator:
        got.append((time.monotonic(), one))


def test_pictures_speech_and_the_ends_of_segments(engine: Engine) -> None:
    first, second = speech(1.0), speech(0.6, 1)
    got: list[tuple[float, Any]] = []

    async def test() -> None:
        generator = LipstreamGenerator(engine)
        options = generator.options()
        assert (options.video_width, options.video_height, options.video_fps) == (512, 512, 25)
        task = asyncio.create_task(collect(generator, got))
        await asyncio.sleep(1.0)
        for segment in (first, second):
            for frame in segment:
                await generator.push_audio(frame)
            await generator.push_audio(AudioSegmentEnd())
        await asyncio.sleep(2.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await generator.aclose()

    asyncio.run(test())
    frames = [one for _, one in got]
    pictures = [one for one in frames if isinstance(one, rtc.VideoFrame)]
    assert {(p.width, p.height, p.type) for p in pictures} == {(512, 512, rtc.VideoBufferType.I420)}
    times = [at for at, one in got if isinstance(one, rtc.VideoFrame)]
    assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(25, abs=1)
    assert bytes_of(frames) == bytes_of([*first, *second])
    ends = [k for k, one in enumerate(frames) if isinstance(one, AudioSegmentEnd)]
    assert len(ends) == 2
    first_s = len(bytes_of(frames[: ends[0]])) / 2 / RATE_HZ
    assert first_s == pytest.approx(1.0, abs=0.045), "a frame may carry the end of one and more"
    assert isinstance(frames[0], rtc.VideoFrame), "frames come before speech"


class Room:
    """Connected to nobody: takes tracks, and reports a subscription at once."""

    def __init__(self) -> None:
        self.local_participant = self
        self.published: list[Any] = []

    def isconnected(self) -> bool:
        return True

    def on(self, *about: Any) -> None:
        pass

    off = on

    async def publish_track(self, track: Any, options: Any) -> Room:
        self.published.append(track)
        return self

    async def wait_for_subscription(self) -> None:
        pass


def test_inside_the_avatar_runner_a_turn_plays_and_another_is_interrupted(engine: Engine) -> None:
    async def test() -> None:
        room: Any = Room()
        output = QueueAudioOutput(sample_rate=RATE_HZ)
        ends: list[Any] = []
        output.on("playback_finished", ends.append)
        generator = LipstreamGenerator(engine)
        runner = AvatarRunner(
            room, audio_recv=output, video_gen=generator, options=generator.options(RATE_HZ)
        )
        await runner.start()
        try:
            for frame in speech(1.2):
                await output.capture_frame(frame)
            output.flush()
            await asyncio.wait_for(output.wait_for_playout(), 10)
            assert len(room.published) == 2, "sound and picture"
            assert (ends[0].interrupted, ends[0].playback_position) == (
                False, pytest.approx(1.2, abs=0.01),
            )  # fmt: skip
            for frame in speech(6.0):
                await output.capture_frame(frame)
            output.flush()
            await asyncio.sleep(1.2)
            at_s = time.monotonic()
            output.clear_buffer()
            await asyncio.wait_for(output.wait_for_playout(), 5)
            assert time.monotonic() - at_s < 0.2
            assert ends[1].interrupted and 0.5 < ends[1].playback_position < 1.4
        finally:
            await runner.aclose()
            await generator.aclose()

    asyncio.run(test())
