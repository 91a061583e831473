"""What voice-agent frameworks have in common: speech that is made, faster than it is said.

The engine hears 16 kHz; whoever listens gets the speech as it was made, at its own rate, cut to the
frames that it belongs to.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import UsageError
from lipstream.engine.types import SAMPLE_RATE_HZ
from lipstream.streaming.session.runner import RunnerOptions, SessionRunner
from lipstream.streaming.session.subscription import TimedFrame

I16: TypeAlias = NDArray[np.int16]

# An agent may make minutes of speech at once, and none of it may be lost.
AGENT_OPTIONS: Final = RunnerOptions(sound_capacity_s=600)


_NOTHING: Final = np.zeros(0, np.int16)


@dataclass(frozen=True, slots=True)
class Spoken:
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
        self._resampler: av.AudioResampler | None = None
        self._rate_hz = 0
        self._held: list[I16] = []  # of which the resampler has given nothing yet
        self._end_sample = 0

    def say(self, samples: I16, rate_hz: int, channels: int = 1) -> None:
        """More of the segment; it is said after what waits already.

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
            self._resampler = av.AudioResampler("fltp", "mono", SAMPLE_RATE_HZ)
            self._rate_hz = rate_hz
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate_hz
        self._held.append(samples)
        self._hear(frame)

    def end(self) -> None:
        """The segment is complete; `leaves` tells when its last sample has left."""
        self._flush()
        self._pieces.append(_Piece(self._end_sample, self._end_sample, _NOTHING, 0))

    def interrupt(self) -> float:
        """Barge-in: nothing that waits is said; returns the ms of this turn that were."""
        self._pieces.clear()
        self._resampler, self._held = None, []
        return self.runner.interrupt()

    def leaves(self, item: TimedFrame) -> tuple[list[Spoken], bool]:
        """What leaves with a frame: speech, and whether a segment ends with it."""
        frame_end = item.media_sample + item.frame.audio.samples.size
        spoken: list[Spoken] = []
        ended = False
        while self._pieces and self._pieces[0].start_sample < frame_end:
            piece = self._pieces[0]
            if not piece.original.size:
                ended = True
                self._pieces.popleft()
                continue
            heard = min(frame_end, piece.end_sample) - piece.start_sample
            length = piece.end_sample - piece.start_sample
            until = round(piece.original.size * heard / length)
            spoken.append(Spoken(piece.original[piece.given : until], piece.rate_hz))
            piece.given = until
            if piece.end_sample > frame_end:
                break
            self._pieces.popleft()
        return [one for one in spoken if one.samples.size], ended

    def _hear(self, frame: av.AudioFrame | None) -> None:
        assert self._resampler is not None
        parts = [out.to_ndarray()[0] for out in self._resampler.resample(frame)]
        heard = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        if not heard.size:
            return
        start = self.runner.push_audio(heard)
        self._end_sample = start + heard.size
        if self._held:
            original = np.concatenate(self._held)
            self._pieces.append(_Piece(start, self._end_sample, original, self._rate_hz))
            self._held = []

    def _flush(self) -> None:
        """What the resampler holds back is said as well."""
        if self._resampler is not None:
            self._hear(None)
            self._resampler, self._held = None, []
