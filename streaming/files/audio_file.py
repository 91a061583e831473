"""The sound of any media file, as a stream: for the engine, and in full quality for the output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.error import FFmpegError

from lipstream.engine.errors import MediaError
from lipstream.engine.paths import libav_url, refuse_address
from lipstream.engine.types import F32
from lipstream.streaming.session.audio_in import SpeechResampler

OUTPUT_RATE_HZ: Final = 48_000  # every AAC decoder plays it, and nothing audible is lost

_CUT = "it is cut short or damaged; copy or record it again"
# What a synthesiser writes as the length of a WAV that it sends before it knows: 0, the largest
# number of 31 or 32 bits, or a little less (0x7FFFF024, 2000000036, 0x80000024).
_UNKNOWN_LENGTH: Final = 1_900_000_000
_HOLE_S: Final = 0.01  # between frames; less is the rounding of a container's time stamps
# No pause in speech: the clock jumped, as where broadcasts are joined, and the sound goes on.
_LONGEST_HOLE_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class SoundBlock:
    """One stretch of sound in two forms, which cover the same time to within a block."""

    speech: F32  # f32 [samples], mono, SAMPLE_RATE_HZ
    output: F32  # f32 [channels, samples], OUTPUT_RATE_HZ


class AudioFile:
    """Decodes the first sound track of an audio or video file, block by block.

    The first sample is time 0 whatever the file's timestamps say, and a hole in them is silence.
    Memory does not grow with the length of the file. Three and more channels become stereo in the
    output; the engine gets all channels mixed to one (`engine.channels`).

    Raises:
        MediaError: no such file, not media, no sound, cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._length_unknown = _refuse_cut_wav(self.path)
        try:
            # Only this file: a playlist must not make us fetch what it names.
            self._container = av.open(
                libav_url(self.path), "r", container_options={"protocol_whitelist": "file"}
            )
        except (FFmpegError, OSError) as error:
            raise _read_error(self.path, error) from error
        tracks = [t for t in self._container.streams.audio if t.codec_context is not None]
        if not tracks:
            self._container.close()
            raise MediaError(f"{self.path}: no sound in it; expected a file with an audio track")
        self._track = tracks[0]
        _refuse_cut_index(self.path, self._track)

    @property
    def channels(self) -> int:
        """Channels of the output sound: 1 or 2."""
        return min(2, self._track.codec_context.layout.nb_channels)

    @property
    def duration_s(self) -> float | None:
        """What the file claims; None when it claims nothing."""
        if self._length_unknown:
            bits_per_s = self._track.codec_context.bit_rate
            return self.path.stat().st_size * 8 / bits_per_s if bits_per_s else None
        if self._track.duration and self._track.time_base:
            return float(self._track.duration * self._track.time_base)
        if self._container.duration:
            return self._container.duration / av.time_base
        return None

    def blocks(self) -> Iterator[SoundBlock]:
        """Every block of the file in order, once.

        Raises:
            MediaError: the file breaks off, or holds no sample at all.
        """
        layout = "mono" if self.channels == 1 else "stereo"
        to_speech = SpeechResampler()
        to_output = av.AudioResampler("fltp", layout, OUTPUT_RATE_HZ)
        empty = True
        for frame in without_holes(self._frames()):
            empty = False
            try:
                block = _block(to_speech, to_output, frame, self.channels)
            except ValueError as error:  # from the output's resampler
                raise MediaError(
                    f"{self.path}: its sound changes format half-way; convert it to WAV first"
                ) from error
            if not np.isfinite(block.speech).all():
                raise MediaError(f"{self.path}: its sound holds numbers that are not finite")
            yield block
        if empty:
            raise MediaError(f"{self.path}: its sound track is empty; expected speech")
        yield _block(to_speech, to_output, None, self.channels)

    def _frames(self) -> Iterator[av.AudioFrame]:
        try:
            yield from self._container.decode(self._track)
        except FFmpegError as error:
            raise MediaError(f"{self.path}: its sound cannot be decoded; {_CUT}") from error

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def without_holes(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """The frames of a track, with silent ones where their timestamps leave a hole."""
    due_s: float | None = None  # where the next frame begins if nothing is missing
    for frame in frames:
        length_s = frame.samples / frame.sample_rate
        if frame.pts is None or frame.time_base is None:
            due_s = None if due_s is None else due_s + length_s
        else:
            begin_s = float(frame.pts * frame.time_base)
            hole_s = 0.0 if due_s is None else begin_s - due_s
            if _HOLE_S <= hole_s <= _LONGEST_HOLE_S:
                yield from _silence(frame, round(hole_s * frame.sample_rate))
            due_s = begin_s + length_s
        yield frame


def _silence(like: av.AudioFrame, samples: int) -> Iterator[av.AudioFrame]:
    """So many silent samples of a frame's format, at most a second in each."""
    while samples > 0:
        count = min(samples, like.sample_rate)
        silent = av.AudioFrame(like.format.name, like.layout.name, count)
        silent.sample_rate = like.sample_rate
        level = 0x80 if like.format.name in ("u8", "u8p") else 0
        for plane in silent.planes:
            plane.update(bytes([level]) * plane.buffer_size)
        yield silent
        samples -= count


def read_speech(path: str | Path) -> F32:
    """The whole of a file's sound as f32 [samples], mono at SAMPLE_RATE_HZ.

    Raises:
        MediaError: as `AudioFile`.
    """
    with AudioFile(path) as sound:
        return np.concatenate([block.speech for block in sound.blocks()])


def _block(
    to_speech: SpeechResampler,
    to_output: av.AudioResampler,
    frame: av.AudioFrame | None,
    channels: int,
) -> SoundBlock:
    speech = to_speech.flush() if frame is None else to_speech.push(frame)
    output = [out.to_ndarray() for out in to_output.resample(frame)]
    return SoundBlock(
        speech,
        np.concatenate(output, axis=1) if output else np.zeros((channels, 0), np.float32),
    )


def _read_error(path: Path, error: Exception) -> MediaError:
    refuse_address(path)
    if isinstance(error, FileNotFoundError):
        return MediaError(f"{path}: no such file")
    if isinstance(error, IsADirectoryError):
        return MediaError(f"{path}: it is a folder; expected an audio or video file")
    if isinstance(error, PermissionError):
        return MediaError(f"{path}: not allowed to read it")
    if isinstance(error, OSError) and not isinstance(error, FFmpegError):
        return MediaError(f"{path}: cannot be read ({error.strerror or error})")
    return MediaError(
        f"{path}: not an audio or video file, or cut short; expected WAV, FLAC, MP3, MP4, …"
    )


def _refuse_cut_wav(path: Path) -> bool:
    """libav plays a truncated WAV as a shorter one, but its header states the full length.

    Returns whether the length was not known when the header was written.
    """
    try:
        with path.open("rb") as file:
            head = file.read(12)
        size = path.stat().st_size
    except OSError as error:
        raise _read_error(path, error) from error
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return False
    claimed = int.from_bytes(head[4:8], "little")
    if claimed + 8 <= size + 1:
        return claimed == 0
    if claimed < _UNKNOWN_LENGTH:
        raise MediaError(f"{path}: {size} bytes of {claimed + 8}; {_CUT}")
    return True


def _refuse_cut_index(path: Path, track: av.AudioStream) -> None:
    """The index of an MP4 has the position of each packet, which must lie within the file."""
    entries = track.index_entries
    size = path.stat().st_size
    if len(entries) and entries[len(entries) - 1].pos + entries[len(entries) - 1].size > size:
        raise MediaError(f"{path}: its sound runs on behind the end of the file; {_CUT}")
