"""The footage's audio, on the clock of its video."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import av
import numpy as np

from lipstream.calibration.media.opening import media_errors, open_media, video_stream
from lipstream.calibration.media.probe import probe
from lipstream.engine.channels import ChannelMixer
from lipstream.engine.errors import MediaError
from lipstream.engine.sound_frames import PACKED, channels_of, require_format
from lipstream.engine.types import F32, SAMPLE_RATE_HZ

_JUMP_S: Final = 0.05  # a smaller difference of timestamp and sample count is rounding
_LONGEST_GAP_S: Final = 3600.0  # silence before or in the audio of any footage


def read_sound(
    path: str | Path, start_s: float | None = None, end_s: float | None = None
) -> F32 | None:
    """The audio of a video, f32 [samples], mono 16 kHz; None if it has none.

    Sample 0 belongs to frame 0 of `open_footage(path, start_s, end_s)`: earlier audio is cut off,
    and audio that starts later is padded with silence.

    Raises:
        MediaError: not a video, or audio that cannot be decoded.
    """
    path = Path(path)
    with open_media(path) as container:
        video_stream(container, path)
        if not container.streams.audio:
            return None
    source = probe(path, start_s, end_s)
    parts: list[F32] = []
    length = 0
    with open_media(path) as container:
        for time_s, samples in _stamped(container, path, source.origin_s):
            if math.isfinite(time_s):
                gap = round((time_s - source.origin_s) * SAMPLE_RATE_HZ) - length
                if gap > _LONGEST_GAP_S * SAMPLE_RATE_HZ:
                    raise MediaError(
                        f"{path}: its audio jumps to {time_s:.0f} s; the timestamps are damaged: "
                        "re-encode the file"
                    )
                if length == 0 and not parts and gap < 0:
                    samples = samples[-gap:]
                    if not samples.size:
                        continue
                elif gap > (0 if not parts else _JUMP_S * SAMPLE_RATE_HZ):
                    parts.append(np.zeros(gap, np.float32))
                    length += gap
                elif gap < -_JUMP_S * SAMPLE_RATE_HZ:
                    samples = samples[min(-gap, samples.size) :]
            elif not parts:
                continue
            parts.append(samples.astype(np.float32, copy=False))
            length += samples.size
            if source.end_s is not None and length > _samples(source.end_s - source.origin_s):
                break
    sound = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if source.end_s is not None:
        sound = sound[: _samples(source.end_s - source.origin_s)]
    if not np.isfinite(sound).all():
        raise MediaError(f"{path}: its audio holds numbers that are not finite")
    return sound if sound.size else None


def _samples(seconds: float) -> int:
    return max(0, round(seconds * SAMPLE_RATE_HZ))


def _stamped(
    container: av.container.InputContainer, path: Path, origin_s: float
) -> Iterator[tuple[float, F32]]:
    """Pairs of a time on the file's clock and samples f32 [n], from shortly before the origin."""
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise MediaError(f"{path}: its audio codec is unknown; re-encode the file")
    mono = _Mono()
    due_s = math.nan  # time of the resampler's next sample
    with media_errors(path):
        if origin_s > 1.0 and stream.time_base:
            container.seek(int((origin_s - 0.5) / stream.time_base), stream=stream, backward=True)
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue  # the timestamps keep the rest in place
            for frame in frames:
                if frame.pts is not None and frame.time_base is not None:
                    stamp_s = float(frame.pts * frame.time_base)
                    # The resampler delays a few samples; only a real jump sets the clock.
                    if not abs(stamp_s - due_s) < _JUMP_S:
                        due_s = stamp_s
                try:
                    require_format(frame)
                except MediaError as error:
                    raise MediaError(f"{path}: {error}") from None
                for samples in mono.push(frame):
                    yield due_s, samples
                    due_s += samples.size / SAMPLE_RATE_HZ
        for samples in mono.flush():
            yield due_s, samples


class _Mono:
    """16 kHz mono of frames, whose format may change on the way."""

    def __init__(self) -> None:
        self._format: tuple[str, str, int] | None = None
        self._resampler: av.AudioResampler | None = None
        self._mixer = ChannelMixer(1, SAMPLE_RATE_HZ)

    def push(self, frame: av.AudioFrame) -> Iterator[F32]:
        """Pieces f32 [n] that are ready."""
        known = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or known != self._format:
            yield from self.flush()
            self._format = known
            self._resampler = av.AudioResampler(PACKED, frame.layout, SAMPLE_RATE_HZ)
            self._mixer = ChannelMixer(frame.layout.nb_channels, SAMPLE_RATE_HZ)
        yield from (self._mixer.push(channels_of(out)) for out in self._resampler.resample(frame))

    def flush(self) -> Iterator[F32]:
        """What the resampler kept back."""
        resampler, self._resampler = self._resampler, None
        for out in resampler.resample(None) if resampler is not None else ():
            yield self._mixer.push(channels_of(out))
