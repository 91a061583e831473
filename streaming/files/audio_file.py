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
from lipstream.engine.types import F32
from lipstream.streaming.session.audio_in import SpeechResampler

OUTPUT_RATE_HZ: Final = 48_000  # every AAC decoder plays it, and nothing audible is lost

_CUT = "it is cut short or damaged; copy or record it again"


@dataclass(frozen=True, slots=True)
class SoundBlock:
    """One stretch of sound in two forms, which cover the same time to within a block."""

    speech: F32  # f32 [samples], mono, SAMPLE_RATE_HZ
    output: F32  # f32 [channels, samples], OUTPUT_RATE_HZ


class AudioFile:
    """Decodes the first sound track of an audio or video file, block by block.

    The first sample is time 0 whatever the file's timestamps say; memory does not grow with the
    length of the file. Three and more channels become stereo in the output; the engine gets
    the mean of all channels.

    Raises:
        MediaError: no such file, not media, no sound, cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        _refuse_cut_wav(self.path)
        try:
            # Only this file: a playlist must not make us fetch what it names.
            self._container = av.open(
                str(self.path), "r", container_options={"protocol_whitelist": "file"}
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
        for frame in self._frames():
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
    if isinstance(error, FileNotFoundError):
        return MediaError(f"{path}: no such file")
    if isinstance(error, IsADirectoryError):
        return MediaError(f"{path}: it is a folder; expected an audio or video file")
    if isinstance(error, PermissionError):
        return MediaError(f"{path}: not allowed to read it")
    return MediaError(
        f"{path}: not an audio or video file, or cut short; expected WAV, FLAC, MP3, MP4, …"
    )


def _refuse_cut_wav(path: Path) -> None:
    """libav plays a truncated WAV as a shorter one, but its header states the full length."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
        size = path.stat().st_size
    except OSError as error:
        raise _read_error(path, error) from error
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return
    claimed = int.from_bytes(head[4:8], "little")
    streamed = claimed in (0, 0xFFFFFFFF) or claimed >= 0xFFFFFF00  # length unknown when written
    if not streamed and claimed + 8 > size + 1:
        raise MediaError(f"{path}: {size} bytes of {claimed + 8}; {_CUT}")


def _refuse_cut_index(path: Path, track: av.AudioStream) -> None:
    """The index of an MP4 has the position of each packet, which must lie within the file."""
    entries = track.index_entries
    size = path.stat().st_size
    if len(entries) and entries[len(entries) - 1].pos + entries[len(entries) - 1].size > size:
        raise MediaError(f"{path}: its sound runs on behind the end of the file; {_CUT}")
