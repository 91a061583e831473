"""A video service for Pipecat: put it after the text-to-speech, before the transport's output.

    Pipeline([transport.input(), stt, ..., tts, LipstreamVideoService(engine), transport.output()])

Set the transport's `video_out_enabled`, `video_out_is_live`, and width, height and frame rate to
the target's. Needs pipecat-ai: pip install 'lipstream[pipecat]'.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup

from lipstream.engine.pipeline import Engine
from lipstream.engine.types import SAMPLE_RATE_HZ
from lipstream.streaming.integrations.voice import AGENT_OPTIONS, OriginalSpeech, Voice
from lipstream.streaming.session.gc_policy import freeze
from lipstream.streaming.session.live_engine import warm_up
from lipstream.streaming.session.runner import SessionRunner
from lipstream.streaming.session.subscription import TimedFrame

_NANOSECONDS = 1_000_000_000


@dataclass(slots=True)
class _Segment:
    """The frames about a segment of speech that have not left."""

    started: TTSStartedFrame | None = None
    stopped: TTSStoppedFrame | None = None


class LipstreamVideoService(FrameProcessor):
    """Speech in; pictures and that speech out, together.

    TTSAudioRawFrame is taken in and comes out again, at its own rate, with the pictures that it
    belongs to: both carry the conversation's time as `pts`, ns, and leave when it comes. Without
    speech, pictures go on. TTSStartedFrame and TTSStoppedFrame follow when the speech
    between them does. InterruptionFrame drops what has not left, at every stage, and goes on at
    once.
    """

    def __init__(self, engine: Engine, **kwargs: Any) -> None:
        """One conversation of an engine, which others may share."""
        super().__init__(**kwargs)
        self._engine = engine
        self._runner = SessionRunner(engine, AGENT_OPTIONS)
        self._voice = Voice(self._runner)
        self._segments: list[_Segment] = []  # whose speech has not left
        self._task: asyncio.Task[None] | None = None

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Warm up; the conversation begins with StartFrame."""
        await super().setup(setup)
        await asyncio.to_thread(warm_up, self._engine)
        await asyncio.to_thread(freeze)

    async def cleanup(self) -> None:
        """End the conversation and its thread."""
        await self._close()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Speech stays here until its picture leaves; everything else passes."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            self._voice.push_pcm(frame.audio, frame.sample_rate, frame.num_channels)
        elif isinstance(frame, TTSStartedFrame):
            self._segments.append(_Segment(started=frame))
        elif isinstance(frame, TTSStoppedFrame):
            if not self._segments or self._segments[-1].stopped is not None:
                self._segments.append(_Segment())  # of a turn that was interrupted
            self._segments[-1].stopped = frame
            self._voice.end_segment()
        else:
            if isinstance(frame, InterruptionFrame):
                self._voice.interrupt()
                self._segments = []
            elif isinstance(frame, EndFrame):
                await self._all_left()
            if isinstance(frame, (EndFrame, CancelFrame)):
                await self._close()
            await self.push_frame(frame, direction)
            if isinstance(frame, StartFrame):
                self._runner.start()
                self._task = self.create_task(self._show())

    async def _all_left(self) -> None:
        """Return when all speech has left: an orderly end cuts nothing off."""
        while self._runner.speaking and self._runner.error is None:
            await asyncio.sleep(0.02)

    async def _show(self) -> None:
        subscription = self._runner.subscribe()
        try:
            async for item in subscription:
                await self._push(item)
        finally:
            subscription.close()
        if self._runner.error is not None:
            await self.push_error(f"lipstream: {self._runner.error}")

    async def _push(self, item: TimedFrame) -> None:
        leaving = self._voice.leaving(item)
        if leaving and isinstance(leaving[0], OriginalSpeech):
            await self._push_started()
        pts = item.media_sample * _NANOSECONDS // SAMPLE_RATE_HZ
        rgb = item.frame.image
        picture = OutputImageRawFrame(
            image=rgb.tobytes(), size=(rgb.shape[1], rgb.shape[0]), format="RGB"
        )
        picture.pts = pts
        await self.push_frame(picture)
        for part in leaving:
            await self._push_started()
            if isinstance(part, OriginalSpeech):
                sound = TTSAudioRawFrame(part.samples.tobytes(), part.rate_hz, 1)
                sound.pts = pts
                await self.push_frame(sound)
            elif self._segments:
                stopped = self._segments.pop(0).stopped
                if stopped is not None:
                    await self.push_frame(stopped)

    async def _push_started(self) -> None:
        """The first segment begins to leave."""
        if self._segments and (started := self._segments[0].started) is not None:
            self._segments[0].started = None
            await self.push_frame(started)

    async def _close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await self.cancel_task(task)
            await asyncio.to_thread(self._runner.close)
