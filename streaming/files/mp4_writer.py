"""Frames and sound into a file: MP4, MOV or MKV by H.264 and AAC, WebM by VP9 and Opus."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import av
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from lipstream.engine.errors import MediaError, UsageError
from lipstream.engine.paths import libav_url
from lipstream.engine.target.frames import as_picture
from lipstream.engine.types import F32, VideoFrame
from lipstream.streaming.files.audio_file import OUTPUT_RATE_HZ
from lipstream.streaming.files.partial_file import PartialFile, write_error

# At CRF 18 the eye sees no difference. superfast with veryfast's mbtree (more bits for blocks that
# later frames refer to) takes 0.6 of veryfast's time, for 12 % more bytes, at 46.2 dB against 46.6.
# Without B-frames presentation order equals decoding order, so no player starts the video late.
_X264: Final = {
    "preset": "superfast",
    "crf": "18",
    "bf": "0",
    "x264-params": "mbtree=1:rc-lookahead=10",
}
# About the quality of the H.264 files. Slower settings take more time than the frames themselves.
_VP9: Final = {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "crf": "24", "b": "0"}
_BITS_PER_CHANNEL: Final = 96_000
# The number is part of the result. With two threads x264 filters one frame's half pixels while it
# weighs the next one's blocks, both in one scratch buffer: decision 072. libvpx promises the same
# file whatever its threads do, if they are more than one.
_X264_THREADS: Final = 1
_VP9_THREADS: Final = 2


class Container(NamedTuple):
    """A kind of file: FFmpeg's muxer and its options, and the encoders."""

    muxer: str
    options: dict[str, str]
    video: str
    video_options: dict[str, str]
    video_threads: int  # the same on any machine
    sound: str


_INDEX_FIRST: Final = {"movflags": "+faststart"}
_NO_RANDOM_IDS: Final = {"fflags": "+bitexact"}  # of the segment and its tracks
CONTAINERS: Final = {
    ".mp4": Container("mp4", _INDEX_FIRST, "libx264", _X264, _X264_THREADS, "aac"),
    ".mov": Container("mov", _INDEX_FIRST, "libx264", _X264, _X264_THREADS, "aac"),
    ".mkv": Container("matroska", _NO_RANDOM_IDS, "libx264", _X264, _X264_THREADS, "aac"),
    ".webm": Container("webm", _NO_RANDOM_IDS, "libvpx-vp9", _VP9, _VP9_THREADS, "libopus"),
}


def container_of(path: str | Path) -> Container:
    """The kind of file that the name asks for. Raises: UsageError for any other ending."""
    container = CONTAINERS.get(Path(path).suffix.lower())
    if container is None:
        *some, last = CONTAINERS
        raise UsageError(
            f"cannot write {path}: the ending of its name says what kind of video it is; "
            f"expected {', '.join(some)} or {last}"
        )
    return container


# Signs a finished file before it has its name; what it returns is called afterwards, and may write
# a second file beside it.
Seal: TypeAlias = Callable[[PartialFile], Callable[[], Path | None]]


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """Size and rate of every frame."""

    width: int  # px, even
    height: int  # px, even
    fps: Fraction

    def __post_init__(self) -> None:
        """Refuse what I420 or H.264 cannot hold."""
        if min(self.width, self.height) < 2 or self.width % 2 or self.height % 2:
            raise UsageError(f"picture is {self.width}x{self.height}; expected even sizes")
        if self.fps <= 0:
            raise UsageError(f"frame rate is {self.fps}; expected more than 0")


class Mp4Writer:
    """Writes frames by their index and sound from time 0; the file appears on `finish`.

    Picture and sound need not arrive in step: the container interleaves them. Frame k is shown
    from k / fps, sample n of the sound is played at n / OUTPUT_RATE_HZ; the encoder's own delay is
    taken out by an edit list, or in Matroska and WebM by their CodecDelay.

    Raises:
        UsageError: the name ends in none of CONTAINERS.
        MediaError: the folder cannot be written to, or the disk is full.
    """

    def __init__(self, part: PartialFile, picture: PictureFormat, channels: int) -> None:
        self._part = part
        self._kind = container_of(part.path)
        self._picture = picture
        self._layout = {0: None, 1: "mono", 2: "stereo"}[channels]
        self._samples = 0
        self._open = True
        try:
            self._container = av.open(
                libav_url(part.temporary),
                "w",
                format=self._kind.muxer,
                options=self._kind.options,
            )
        except (FFmpegError, OSError) as error:
            raise write_error(part.path, _as_os_error(error)) from error
        self._video = self._video_stream()
        self._sound = self._sound_stream(self._layout) if self._layout else None

    @property
    def path(self) -> Path:
        """The path of the finished file."""
        return self._part.path

    def _video_stream(self) -> av.VideoStream:
        rate, options = self._picture.fps, self._kind.video_options
        stream = self._container.add_stream(self._kind.video, rate=rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = self._picture.width, self._picture.height
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.time_base = Fraction(1, self._picture.fps.numerator)
        codec.thread_count = self._kind.video_threads
        codec.color_range = ColorRange.MPEG
        codec.colorspace = Colorspace.ITU709
        codec.color_primaries = ColorPrimaries.BT709
        codec.color_trc = ColorTrc.BT709
        return stream

    def _sound_stream(self, layout: str) -> av.AudioStream:
        stream = self._container.add_stream(self._kind.sound, rate=OUTPUT_RATE_HZ, layout=layout)
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = _BITS_PER_CHANNEL * (2 if layout == "stereo" else 1)
        return stream

    def write_frame(self, frame: VideoFrame) -> None:
        """Encode one frame at the time of its index."""
        if (frame.width, frame.height) != (self._picture.width, self._picture.height):
            raise MediaError(
                f"frame {frame.frame_index} is {frame.width}x{frame.height}; "
                f"expected {self._picture.width}x{self._picture.height} like the first"
            )
        # The planes go in as they are: PyAV's own conversion costs 1.2 ms a frame at 512x512.
        picture = as_picture(frame.i420)
        picture.pts = frame.frame_index * self._picture.fps.denominator
        picture.time_base = Fraction(1, self._picture.fps.numerator)
        picture.color_range = ColorRange.MPEG
        picture.colorspace = Colorspace.ITU709
        self._mux(self._video, picture)

    def write_sound(self, samples: F32) -> None:
        """Append sound: f32 [channels, samples] at OUTPUT_RATE_HZ."""
        if self._sound is None or self._layout is None:
            raise UsageError("this file was opened without sound; open it with channels 1 or 2")
        if not samples.shape[1]:
            return
        sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self._layout)
        sound.sample_rate = OUTPUT_RATE_HZ
        sound.time_base = Fraction(1, OUTPUT_RATE_HZ)
        sound.pts = self._samples
        self._samples += samples.shape[1]
        self._mux(self._sound, sound)

    def _mux(
        self,
        stream: av.VideoStream | av.AudioStream,
        frame: av.VideoFrame | av.AudioFrame | None,
    ) -> None:
        try:
            self._container.mux(stream.encode(frame))  # type: ignore[arg-type]
        except (FFmpegError, OSError) as error:
            raise write_error(self._part.path, _as_os_error(error)) from error

    def finish(self, seal: Seal | None = None) -> Path | None:
        """Encode the remaining frames, write the index, sign the file, and rename it.

        Returns:
            the file beside it that `seal` wrote, if it did.
        """
        self._mux(self._video, None)
        if self._sound is not None:
            self._mux(self._sound, None)
        self._open = False
        try:
            self._container.close()
        except (FFmpegError, OSError) as error:
            raise write_error(self._part.path, _as_os_error(error)) from error
        write_beside = seal(self._part) if seal is not None else None
        self._part.commit()
        return write_beside() if write_beside is not None else None

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(self, *error: object) -> None:
        """Without `finish`, close the encoders; the caller's PartialFile removes the file."""
        if self._open:
            self._open = False
            # An earlier exception, the reason why the file is given up, is already being raised.
            with suppress(FFmpegError, OSError):
                self._container.close()


def _as_os_error(error: Exception) -> OSError:
    if isinstance(error, OSError):
        return error
    return OSError(getattr(error, "errno", 0) or 0, str(error))
