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
from lipstream.engine.types import F32, SAMPLE_RATE_HZ

_JUMP_S: Final = 0.05  # a smaller difference of timestamp and sample count is rounding


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
    resampler = av.AudioResampler("fltp", None, SAMPLE_RATE_HZ)
    mixer: ChannelMixer | None = None
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
                if mixer is None:
                    mixer = ChannelMixer(frame.layout.nb_channels, SAMPLE_RATE_HZ)
                for out in resampler.resample(frame):
                    samples = mixer.push(np.asarray(out.to_ndarray(), np.float32))
                    yield due_s, samples
                    due_s += samples.size / SAMPLE_RATE_HZ
        if mixer is not None:
            for out in resampler.resample(None):
                yield due_s, mixer.push(np.asarray(out.to_ndarray(), np.float32))
