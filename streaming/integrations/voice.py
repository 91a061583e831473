"""What voice-agent frameworks have in common: speech that is synthesised faster than real time.

The engine takes 16 kHz. The listener gets the original samples, at their own rate, cut to the
frames that they belong to.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.channels import ChannelMixer
from lipstream.engine.errors import UsageError
from lipstream.engine.types import F32
from lipstream.streaming.session.audio_in import SpeechResampler
from lipstream.streaming.session.pcm import Pcm16
from lipstream.streaming.session.runner import RunnerOptions, SessionRunner
from lipstream.streaming.session.subscription import TimedFrame

I16: TypeAlias = NDArray[np.int16]

# An agent may synthesise minutes of speech at once, and none of it may be lost.
AGENT_OPTIONS: Final = RunnerOptions(sound_capacity_s=600)


@dataclass(frozen=True, slots=True)
class OriginalSpeech:
    """Speech that leaves with a frame."""

    samples: I16  # i16 [n], mono
    rate_hz: int


@dataclass(frozen=True, slots=True)
class SpeechEnd:
    """A segment's last sample has left."""


@dataclass(slots=True)
class _Piece:
    """Speech on its way."""

    start_sample: int  # of the session
    end_sample: int
    original: I16
    rate_hz: int
    given: int = 0  # of `original`


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a segment on its way."""

    start_sample: int  # of the session


@dataclass(slots=True)
class _Input:
    """Speech of one format on its way in."""

    rate_hz: int
    channels: int
    resampler: SpeechResampler
    mixer: ChannelMixer
    pcm: Pcm16


class Voice:
    """Speech into a conversation, and out again with its frames. Used on one event loop."""

    def __init__(self, runner: SessionRunner) -> None:
        self.runner = runner
        self._on_the_way: deque[_Piece | _End] = deque()
        self._input: _Input | None = None
        self._held: list[I16] = []  # of which the resampler has given nothing yet
        self._end_sample = 0  # of the session, where the speech on the way ends; 0: there is none

    def push_pcm(self, data: bytes | memoryview, rate_hz: int, channels: int = 1) -> None:
        """`push_audio` for PCM16 of any number of bytes: half a sample waits for its other half.

        Raises: UsageError for a rate or a number of channels that cannot be.
        """
        self.push_audio(self._format(rate_hz, channels).pcm.push(data), rate_hz, channels)

    def push_audio(self, samples: I16, rate_hz: int, channels: int = 1) -> None:
        """More of the segment; it follows what waits already.

        Args:
            samples: i16 [n * channels], interleaved.
            rate_hz: 8000 to 96000; may change between segments.
            channels: mixed to one by `ChannelMixer`.

        Raises:
            UsageError: a rate or a length that cannot be.
        """
        known = self._format(rate_hz, channels)
        if samples.size % channels:
            raise UsageError(
                f"{samples.size} samples of {channels} channels: expected whole PCM16 frames"
            )
        if not samples.size:
            return
        if channels > 1:
            apart = np.ascontiguousarray(samples.reshape(-1, channels).T, np.float32)
            samples = known.mixer.push(apart).round().astype(np.int16)
        self._held.append(samples)
        self._queue(known.resampler.push_samples(samples, rate_hz), rate_hz)

    def end_segment(self) -> None:
        """The segment is complete; `leaving` reports when its last sample leaves."""
        self._flush()
        self._on_the_way.append(_End(self._end_sample))

    def interrupt(self) -> float:
        """Barge-in: what waits is dropped; returns the ms of this turn that have left.

        The end of a segment that comes after it leaves with the next frame.
        """
        self._on_the_way.clear()
        self._input, self._held, self._end_sample = None, [], 0
        return self.runner.interrupt()

    def leaving(self, item: TimedFrame) -> list[OriginalSpeech | SpeechEnd]:
        """What leaves with a frame, in order: speech, and the ends of segments."""
        frame_end = item.media_sample + item.frame.audio.samples.size
        out: list[OriginalSpeech | SpeechEnd] = []
        while self._on_the_way and self._on_the_way[0].start_sample < frame_end:
            first = self._on_the_way[0]
            if isinstance(first, _End):
                out.append(SpeechEnd())
                self._on_the_way.popleft()
                continue
            length = first.end_sample - first.start_sample
            covered = min(frame_end, first.end_sample) - first.start_sample
            # A few samples may be too short for one of the session.
            until = round(first.original.size * covered / length) if length else None
            part = first.original[first.given : until]
            if part.size:
                out.append(OriginalSpeech(part, first.rate_hz))
            first.given += part.size
            if first.end_sample > frame_end:
                break
            self._on_the_way.popleft()
        return out

    def _format(self, rate_hz: int, channels: int) -> _Input:
        """What takes in this format; speech of another one is complete."""
        if not 8_000 <= rate_hz <= 96_000 or channels < 1:
            raise UsageError(
                f"{channels} channels at {rate_hz} Hz: expected one or more at 8000 to 96000 Hz"
            )
        known = self._input
        if known is None or (known.rate_hz, known.channels) != (rate_hz, channels):
            self._flush()
            mixer, pcm = ChannelMixer(channels, rate_hz), Pcm16(channels)
            known = self._input = _Input(rate_hz, channels, SpeechResampler(), mixer, pcm)
        return known

    def _queue(self, speech: F32, rate_hz: int) -> None:
        """What the resampler gave, and the original that it was made of."""
        start = self._end_sample
        if speech.size:
            start = self.runner.push_audio(speech)
            self._end_sample = start + speech.size
        elif self._input is not None:
            return  # the resampler holds it back
        if self._held:
            original = np.concatenate(self._held)
            self._on_the_way.append(_Piece(start, self._end_sample, original, rate_hz))
            self._held = []

    def _flush(self) -> None:
        """What the resampler holds back is queued as well."""
        known, self._input = self._input, None
        if known is not None:
            self._queue(known.resampler.flush(), known.rate_hz)
