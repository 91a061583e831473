"""A Pipecat pipeline with an avatar: a sound file stands in for the text-to-speech service.

    python examples/pipecat_avatar.py me.target speech.wav

In an agent, put LipstreamVideoService between the TTS service and transport.output().
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

if __name__ == "__main__" and len(sys.argv) != 3:
    sys.exit(__doc__)  # before the imports, which need Pipecat

import av
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    OutputImageRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

import lipstream
from lipstream.streaming.integrations.pipecat import LipstreamVideoService


class Counter(FrameProcessor):
    """Counts frames in place of the output of a transport."""

    pictures = 0
    spoken_s = 0.0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputImageRawFrame):
            self.pictures += 1
        elif isinstance(frame, TTSAudioRawFrame):
            self.spoken_s += frame.num_frames / frame.sample_rate
        await self.push_frame(frame, direction)


def speech(path: str) -> list[Frame]:
    frames: list[Frame] = [TTSStartedFrame()]
    resampler = av.AudioResampler("s16", "mono", 24_000)
    with av.open(path) as file:
        for sound in [*file.decode(audio=0), None]:
            for part in resampler.resample(sound):
                frames.append(TTSAudioRawFrame(part.to_ndarray().tobytes(), 24_000, 1))
    return [*frames, TTSStoppedFrame()]


async def main(target: str, path: str) -> None:
    engine = lipstream.Engine(lipstream.load_target(target))
    counter = Counter()
    worker = PipelineWorker(Pipeline([LipstreamVideoService(engine), counter]))

    @worker.event_handler("on_pipeline_started")
    async def speak(worker: Any, frame: Any) -> None:
        await worker.queue_frames([*speech(path), EndFrame()])

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await runner.run()
    print(f"{counter.pictures} pictures with {counter.spoken_s:.2f} s of speech")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
