"""An avatar for LiveKit Agents: a `VideoGenerator` for its `AvatarRunner`.

    generator = LipstreamGenerator(engine)
    runner = AvatarRunner(room, audio_recv=DataStreamAudioReceiver(room), video_gen=generator,
                          options=generator.options(audio_sample_rate=24_000))
    await runner.start()

Needs livekit-agents: pip install 'lipstream[livekit]'.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator

from lipstream.engine.pipeline import Engine
from lipstream.streaming.integrations.voice import AGENT_OPTIONS, OriginalSpeech, Voice
from lipstream.streaming.session.gc_policy import freeze
from lipstream.streaming.session.live_engine import warm_up
from lipstream.streaming.session.runner import SessionRunner


class LipstreamGenerator(VideoGenerator):
    """One conversation: speech in, pictures with that speech out, while somebody iterates.

    Made and used on one event loop. Pictures come at the target's rate, I420, speech or not. Sound
    comes only where there is speech, as it was pushed, with the pictures that it belongs to.
    """

    def __init__(self, engine: Engine) -> None:
        """One conversation of an engine, which others may share."""
        self._engine = engine
        self._runner = SessionRunner(engine, AGENT_OPTIONS)
        self._voice = Voice(self._runner)
        self._started = False

    def options(self, audio_sample_rate: int = 24_000, audio_channels: int = 1) -> AvatarOptions:
        """For `AvatarRunner`: the target's size and rate, and the speech's."""
        target = self._engine.target
        return AvatarOptions(
            video_width=target.width,
            video_height=target.height,
            video_fps=float(target.fps),
            audio_sample_rate=audio_sample_rate,
            audio_channels=audio_channels,
        )

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Speech, as fast as it is synthesised, or the end of a segment."""
        if isinstance(frame, AudioSegmentEnd):
            self._voice.end_segment()
        else:
            pcm = frame.data.cast("B")
            self._voice.push_pcm(pcm, frame.sample_rate, frame.num_channels)

    def clear_buffer(self) -> None:
        """Barge-in: what has not left is dropped, at every stage."""
        self._voice.interrupt()

    async def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        if not self._started:
            self._started = True
            await asyncio.to_thread(warm_up, self._engine)
            await asyncio.to_thread(freeze)
            self._runner.start()
        subscription = self._runner.subscribe()
        try:
            async for item in subscription:
                height, width = item.frame.i420.shape[0] * 2 // 3, item.frame.i420.shape[1]
                yield rtc.VideoFrame(
                    width, height, rtc.VideoBufferType.I420, item.frame.i420.tobytes()
                )
                for part in self._voice.leaving(item):
                    if isinstance(part, OriginalSpeech):
                        pcm = part.samples
                        yield rtc.AudioFrame(pcm.tobytes(), part.rate_hz, 1, pcm.size)
                    else:
                        yield AudioSegmentEnd()
        finally:
            subscription.close()
        if self._runner.error is not None:
            raise RuntimeError(self._runner.error)

    async def aclose(self) -> None:
        """End the conversation and its thread."""
        await asyncio.to_thread(self._runner.close)
