"""The sound of any media file, as a stream: for the engine, and in full quality for the output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.error import FFmpegError, InvalidDataError

from lipstream.engine.channels import ChannelMixer
from lipstream.engine.errors import MediaError
from lipstream.engine.paths import open_with_libav, refuse_address, refuse_pipe
from lipstream.engine.sound_frames import PACKED, channels_of, packed, require_format
from lipstream.engine.types import F32
from lipstream.streaming.session.audio_in import SpeechResampler

OUTPUT_RATE_HZ: Final = 48_000  # every AAC decoder plays it, and nothing audible is lost

_CUT = "it is cut short or damaged; copy or record it again"
# What a synthesiser writes as the length of a WAV that it sends before it knows: 0, the largest
# number of 31 or 32 bits, or a little less (0x7FFFF024, 2000000036, 0x80000024).
_UNKNOWN_LENGTH: Final = 1_900_000_000
# Streams without an index or a length: what lies between two that were joined is left out.
_MADE_TO_BE_JOINED: Final = ("aac", "mp3", "mpeg", "mpegts")
_MAX_BAD_PACKETS: Final = 50
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
        refuse_pipe(self.path)
        self._length_unknown = _refuse_cut_wav(self.path)
        try:
            self._container = open_with_libav(self.path)
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
        layout = self._track.codec_context.layout
        return 1 if layout.nb_channels < 2 or _without_places(layout) else 2

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
        to_speech, to_output = SpeechResampler(), _OutputResampler(self.channels)
        empty = True
        for frame in without_holes(self._frames()):
            empty = False
            block = SoundBlock(to_speech.push(frame), to_output.push(frame))
            if not np.isfinite(block.speech).all():
                raise MediaError(f"{self.path}: its sound holds numbers that are not finite")
            yield block
        if empty:
            raise MediaError(f"{self.path}: its sound track is empty; expected speech")
        yield SoundBlock(to_speech.flush(), to_output.push(None))

    def _frames(self) -> Iterator[av.AudioFrame]:
        bad_packets = 0
        joins = self._container.format.name in _MADE_TO_BE_JOINED
        try:
            for packet in self._container.demux(self._track):
                try:
                    frames = packet.decode()
                except InvalidDataError:
                    bad_packets += 1
                    if not joins or bad_packets > _MAX_BAD_PACKETS:
                        raise
                    continue
                for frame in frames:
                    require_format(frame)
                    yield from packed(frame)
        except FFmpegError as error:
            raise MediaError(f"{self.path}: its sound cannot be decoded; {_CUT}") from error
        except MediaError as error:
            raise MediaError(f"{self.path}: {error}") from None

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _OutputResampler:
    """Frames, whose format may change on the way, to f32 [channels, n] at OUTPUT_RATE_HZ."""

    def __init__(self, channels: int) -> None:
        """`channels`: 1 or 2."""
        self._layout = "mono" if channels == 1 else "stereo"
        self._none = np.zeros((channels, 0), np.float32)
        self._format: tuple[str, str, int] | None = None
        self._resampler: av.AudioResampler | None = None
        self._mixer: ChannelMixer | None = None  # for what libswresample cannot mix

    def push(self, frame: av.AudioFrame | None) -> F32:
        """What is ready; with None, what was kept back."""
        if frame is None:
            resampler, self._resampler = self._resampler, None
            return self._joined(resampler.resample(None) if resampler is not None else [])
        known = (frame.format.name, frame.layout.name, frame.sample_rate)
        tail = self._none
        if self._resampler is None or known != self._format:
            tail, self._format = self.push(None), known
            mixes = not _without_places(frame.layout)
            self._resampler = av.AudioResampler(
                PACKED, self._layout if mixes else frame.layout, OUTPUT_RATE_HZ
            )
            count = frame.layout.nb_channels
            self._mixer = None if mixes else ChannelMixer(count, OUTPUT_RATE_HZ)
        output = self._joined(self._resampler.resample(frame))
        return np.concatenate([tail, output], axis=1) if tail.size else output

    def _joined(self, frames: list[av.AudioFrame]) -> F32:
        parts = [channels_of(frame) for frame in frames]
        if self._mixer is not None:
            mono = [self._mixer.push(part) for part in parts]
            parts = [np.repeat(part[None], len(self._none), axis=0) for part in mono]
        return np.concatenate(parts, axis=1) if parts else self._none


def _without_places(layout: av.AudioLayout) -> bool:
    """Whether nothing says where these channels stand, and they are too many to guess: the tracks
    of a recorder, which become one."""
    return layout.nb_channels > 8 and layout.name.endswith("channels")


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
