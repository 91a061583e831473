"""The video service inside Pipecat's own pipeline and output transport.

On the wall clock: Pipecat paces its output by it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pipecat", reason="no Pipecat: pip install 'lipstream[pipecat]'")

from pipecat.frames.frames import (  # noqa: E402
    EndFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputImageRawFrame,
    StartFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineWorker  # noqa: E402
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor  # noqa: E402
from pipecat.tests.utils import SleepFrame  # noqa: E402
from pipecat.transports.base_output import BaseOutputTransport  # noqa: E402
from pipecat.transports.base_transport import TransportParams  # noqa: E402
from pipecat.workers.runner import WorkerRunner  # noqa: E402

from lipstream.bench.bench_target import voice  # noqa: E402
from lipstream.engine.pipeline import Engine  # noqa: E402
from lipstream.streaming.integrations.pipecat import LipstreamVideoService  # noqa: E402

RATE_HZ = 24_000


class Sink(FrameProcessor):  # type: ignore[misc]
    """Remembers what comes, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[float, Any]] = []

    async def process_frame(self, frame: Any, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.got.append((time.monotonic(), frame))
        await self.push_frame(frame, direction)

    def of(self, *kinds: type) -> list[Any]:
        return [frame for _, frame in self.got if isinstance(frame, kinds)]


def speech(seconds: float, seed: int = 0) -> bytes:
    """Of the demo, from another place for each seed."""
    source = voice(seconds + seed)[-round(16_000 * seconds) :]
    at = np.arange(round(seconds * RATE_HZ)) * 16_000 / RATE_HZ
    wave = np.interp(at, np.arange(source.size), source)
    return (32767 * wave).astype(np.int16).tobytes()


def tts(sound: bytes, chunk_s: float = 0.3) -> list[Any]:
    size = 2 * round(chunk_s * RATE_HZ)
    parts = [sound[k : k + size] for k in range(0, len(sound), size)]
    return [
        TTSStartedFrame(),
        *(TTSAudioRawFrame(part, RATE_HZ, 1) for part in parts),
        TTSStoppedFrame(),
    ]


async def play(processors: list[Any], script: list[Any]) -> None:
    worker = PipelineWorker(Pipeline(processors), cancel_on_idle_timeout=False)
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")  # type: ignore[untyped-decorator]
    async def on_started(worker: Any, frame: Any) -> None:
        started.set()

    async def send() -> None:
        await asyncio.wait_for(started.wait(), 10)
        for frame in script:
            if isinstance(frame, SleepFrame):
                await asyncio.sleep(frame.sleep)
            else:
                await worker.queue_frame(frame)
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), send())


def test_speech_comes_out_whole_with_its_pictures(engine: Engine) -> None:
    sound = speech(2.0)
    sink = Sink()
    script = [SleepFrame(0.6), *tts(sound), TextFrame("and"), *tts(speech(0.5, 1)), SleepFrame(0.1)]
    asyncio.run(play([LipstreamVideoService(engine), sink], script))
    frames = [frame for _, frame in sink.got]
    kinds = [type(frame).__name__ for frame in frames]
    pictures = sink.of(OutputImageRawFrame)
    assert {(p.size, p.format, len(p.image)) for p in pictures} == {
        ((512, 512), "RGB", 512 * 512 * 3)
    }
    steps = np.diff([p.pts for p in pictures])
    assert set(steps) == {40_000_000}
    times = [at_s for at_s, frame in sink.got if isinstance(frame, OutputImageRawFrame)]
    assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(25, abs=1)

    sent = b"".join(frame.audio for frame in sink.of(TTSAudioRawFrame))
    assert sent == sound + speech(0.5, 1), "both turns, each sample once"
    assert {frame.sample_rate for frame in sink.of(TTSAudioRawFrame)} == {RATE_HZ}
    for before, frame in zip(frames, frames[1:], strict=False):
        if isinstance(frame, TTSAudioRawFrame) and isinstance(before, OutputImageRawFrame):
            assert frame.pts == before.pts
    first, last = kinds.index("TTSStartedFrame"), kinds.index("TTSStoppedFrame")
    spoken = [k for k, kind in enumerate(kinds) if kind == "TTSAudioRawFrame"]
    assert first < spoken[0] and spoken[0] < last
    assert kinds.count("TTSStartedFrame") == kinds.count("TTSStoppedFrame") == 2
    assert kinds.index("OutputImageRawFrame") < first, "frames come before speech"
    # The mouth moves during speech: pictures change there more than in the idle beginning.
    mouths = [
        np.frombuffer(p.image, np.uint8).reshape(512, 512, 3)[224:280, 214:294].astype(np.float32)
        for p in pictures
    ]
    moved = np.array([np.abs(b - a).mean() for a, b in zip(mouths, mouths[1:], strict=False)])
    with_speech = {frame.pts for frame in sink.of(TTSAudioRawFrame)}
    talking = np.array([p.pts in with_speech for p in pictures[1:]])
    assert moved[talking].mean() > 2 * moved[: int(talking.argmax())].mean()


def test_an_interruption_drops_what_waits_and_the_next_turn_is_whole(engine: Engine) -> None:
    second = speech(0.8, 2)
    sink = Sink()
    service = LipstreamVideoService(engine)
    script = [
        *tts(speech(8.0)), SleepFrame(1.5), InterruptionFrame(), SleepFrame(0.8), *tts(second),
    ]  # fmt: skip
    asyncio.run(play([service, sink], script))
    (at_s,) = [at for at, frame in sink.got if isinstance(frame, InterruptionFrame)]
    before = [f for at, f in sink.got if isinstance(f, TTSAudioRawFrame) and at < at_s]
    after = [(at, f) for at, f in sink.got if isinstance(f, TTSAudioRawFrame) and at >= at_s]
    said_s = sum(len(frame.audio) for frame in before) / 2 / RATE_HZ
    assert 0.8 < said_s < 1.6
    assert after[0][0] - at_s > 0.7, "nothing of the old turn"
    assert b"".join(frame.audio for _, frame in after) == second
    pictures_s = [at for at, frame in sink.got if isinstance(frame, OutputImageRawFrame)]
    between = [at for at in pictures_s if at_s < at < at_s + 0.7]
    assert 15 <= len(between) <= 19, "the picture goes on"
    assert len(sink.of(TTSStoppedFrame)) == 1


class VideoOutput(BaseOutputTransport):  # type: ignore[misc]
    """Pipecat's own output, which takes sound in real time."""

    def __init__(self, params: TransportParams) -> None:
        super().__init__(params)
        self.pictures: list[float] = []
        self.sounds: list[tuple[float, int]] = []
        self._free_s = 0.0

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        now_s = time.monotonic()
        self._free_s = max(self._free_s, now_s)
        self.sounds.append((self._free_s, len(frame.audio) // 2))
        self._free_s += len(frame.audio) / 2 / frame.sample_rate
        await asyncio.sleep(max(0.0, self._free_s - now_s))
        return True

    async def write_video_frame(self, frame: OutputImageRawFrame) -> bool:
        self.pictures.append(time.monotonic())
        return True


def test_through_the_output_transport_picture_and_sound_stay_together(engine: Engine) -> None:
    screen = VideoOutput(
        TransportParams(
            audio_out_enabled=True, audio_out_sample_rate=RATE_HZ, video_out_enabled=True,
            video_out_is_live=True, video_out_width=512, video_out_height=512,
            video_out_framerate=25,
        )
    )  # fmt: skip
    script = [SleepFrame(0.5), *tts(speech(3.0)), SleepFrame(0.2)]
    asyncio.run(play([LipstreamVideoService(engine), screen], script))
    assert sum(size for _, size in screen.sounds) >= 3.0 * RATE_HZ * 0.99
    begin_s, end_s = screen.sounds[0][0], screen.sounds[-1][0]
    shown = np.array([at for at in screen.pictures if begin_s <= at <= end_s])
    assert (len(shown) - 1) / (shown[-1] - shown[0]) == pytest.approx(25, abs=1.5)
    assert end_s - begin_s == pytest.approx(3.0, abs=0.25), (
        "sound does not pile up behind the picture"
    )
