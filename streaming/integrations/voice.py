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

from lipstream.engine.errors import UsageError
from lipstream.engine.types import F32
from lipstream.streaming.session.audio_in import SpeechResampler
from lipstream.streaming.session.runner import RunnerOptions, SessionRunner
from lipstream.streaming.session.subscription import TimedFrame

I16: TypeAlias = NDArray[np.int16]

# An agent may synthesise minutes of speech at once, and none of it may be lost.
AGENT_OPTIONS: Final = RunnerOptions(sound_capacity_s=600)

_NOTHING: Final = np.zeros(0, np.int16)


@dataclass(frozen=True, slots=True)
class OriginalSpeech:
    """Speech that leaves with a frame."""

    samples: I16  # i16 [n], mono
    rate_hz: int


@dataclass(slots=True)
class _Piece:
    """Speech on its way, or (empty) the end of a segment."""

    start_sample: int  # of the session
    end_sample: int
    original: I16
    rate_hz: int
    given: int = 0  # of `original`


class Voice:
    """Speech into a conversation, and out again with its frames. Used on one event loop."""

    def __init__(self, runner: SessionRunner) -> None:
        self.runner = runner
        self._pieces: deque[_Piece] = deque()
        self._resampler: SpeechResampler | None = None
        self._rate_hz = 0
        self._held: list[I16] = []  # of which the resampler has given nothing yet
        self._end_sample = 0

    def push_audio(self, samples: I16, rate_hz: int, channels: int = 1) -> None:
        """More of the segment; it follows what waits already.

        Args:
            samples: i16 [n * channels], interleaved.
            rate_hz: 8000 to 96000; may change between segments.
            channels: mixed to one.

        Raises:
            UsageError: a rate or a length that cannot be.
        """
        if not 8_000 <= rate_hz <= 96_000 or channels < 1 or samples.size % channels:
            raise UsageError(
                f"{samples.size} samples of {channels} channels at {rate_hz} Hz: "
                "expected whole PCM16 frames at 8000 to 96000 Hz"
            )
        if not samples.size:
            return
        if channels > 1:
            mixed = samples.reshape(-1, channels).mean(axis=1, dtype=np.float32)
            samples = mixed.round().astype(np.int16)
        if self._resampler is None or rate_hz != self._rate_hz:
            self._flush()
            self._resampler, self._rate_hz = SpeechResampler(), rate_hz
        self._held.append(samples)
        self._queue(self._resampler.push_samples(samples, rate_hz))

    def end_segment(self) -> None:
        """The segment is complete; `leaving` reports when its last sample leaves."""
        self._flush()
        self._pieces.append(_Piece(self._end_sample, self._end_sample, _NOTHING, 0))

    def interrupt(self) -> float:
        """Barge-in: what waits is dropped; returns the ms of this turn that have left."""
        self._pieces.clear()
        self._resampler, self._held = None, []
        return self.runner.interrupt()

    def leaving(self, item: TimedFrame) -> tuple[list[OriginalSpeech], bool]:
        """What leaves with a frame: speech, and whether a segment ends with it."""
        frame_end = item.media_sample + item.frame.audio.samples.size
        speech: list[OriginalSpeech] = []
        ended = False
        while self._pieces and self._pieces[0].start_sample < frame_end:
            piece = self._pieces[0]
            if not piece.original.size:
                ended = True
                self._pieces.popleft()
                continue
            covered = min(frame_end, piece.end_sample) - piece.start_sample
            length = piece.end_sample - piece.start_sample
            until = round(piece.original.size * covered / length)
            speech.append(OriginalSpeech(piece.original[piece.given : until], piece.rate_hz))
            piece.given = until
            if piece.end_sample > frame_end:
                break
            self._pieces.popleft()
        return [part for part in speech if part.samples.size], ended

    def _queue(self, speech: F32) -> None:
        """What the resampler gave, and the original that it was made of."""
        if not speech.size:
            return
        start = self.runner.push_audio(speech)
        self._end_sample = start + speech.size
        if self._held:
            original = np.concatenate(self._held)
            self._pieces.append(_Piece(start, self._end_sample, original, self._rate_hz))
            self._held = []

    def _flush(self) -> None:
        """What the resampler holds back is queued as well."""
        if self._resampler is not None:
            self._queue(self._resampler.flush())
            self._resampler, self._held = None, []
