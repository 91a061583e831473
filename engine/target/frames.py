"""The footage of a target, with random access to its frames.

Frames lie one after another as JPEG pictures in one file; the track has the offset of each. The
samples are the I420 planes as the engine uses them (BT.709, limited range), so nothing is converted
on the way in or out; a JPEG viewer, which assumes full range, shows them a little pale.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import TargetError
from lipstream.engine.profiling import span
from lipstream.engine.types import U8

_QUALITY_STEP = 118  # FFmpeg's FF_QP2LAMBDA
_LARGE_PIXELS = 800_000
_CACHED_FRAMES = 8


def as_picture(i420: U8, pixels: str = "yuv420p") -> av.VideoFrame:
    """I420 u8 [h*3/2, w] as a picture for an encoder, without a copy where PyAV allows it."""
    if len(i420) % 6:  # PyAV 18 rounds such a height down
        return av.VideoFrame.from_ndarray(i420, format=pixels)
    return av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(i420), format=pixels)


class FrameWriter:
    """Appends I420 frames to a file; `offsets` grows by one entry a frame."""

    def __init__(self, path: Path, width: int, height: int) -> None:
        """Create the file. Raises: OSError where that fails."""
        # Decoding has to stay within 5 ms: large frames get a little less quality.
        quality = 2 if width * height < _LARGE_PIXELS else 3
        codec = av.CodecContext.create("mjpeg", "w")
        assert isinstance(codec, av.VideoCodecContext)
        codec.width, codec.height, codec.pix_fmt = width, height, "yuvj420p"
        codec.framerate = 25  # type: ignore[assignment]  # required, but not used
        codec.thread_count = 1
        codec.options = {
            "flags": "+qscale",
            "global_quality": str(quality * _QUALITY_STEP),
            "qmin": str(quality),
            "qmax": str(quality),
        }
        self._codec = codec
        self._file = path.open("wb")
        self.offsets: list[int] = [0]

    def append(self, i420: U8) -> None:
        """Encode one frame, u8 [h*3/2, w]."""
        picture = as_picture(i420, "yuvj420p")
        picture.pts = len(self.offsets)
        data = b"".join(bytes(packet) for packet in self._codec.encode(picture))
        self._file.write(data)
        self.offsets.append(self.offsets[-1] + len(data))

    def __enter__(self) -> FrameWriter:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()


class FrameReader:
    """Random access to the frames of a bundle; keeps the last few decoded ones."""

    def __init__(self, path: Path, offsets: NDArray[np.int64], width: int, height: int) -> None:
        """`offsets` i64 [frames + 1], already checked against the size of the file."""
        self._path, self._offsets = path, offsets
        self._shape = (height * 3 // 2, width)
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without its map: another process opens the file itself."""
        height, width = self._shape
        return type(self), (self._path, self._offsets, width, height * 2 // 3)

    def decoder(self) -> FrameDecoder:
        """A decoder with its own state, for one session: sessions run in several threads."""
        return FrameDecoder(self)

    def jpeg(self, index: int) -> bytes:
        """The compressed frame."""
        return self._bytes[int(self._offsets[index]) : int(self._offsets[index + 1])]

    @property
    def path(self) -> Path:
        """Of the file."""
        return self._path

    @property
    def shape(self) -> tuple[int, int]:
        """Of an I420 frame: (h*3/2, w)."""
        return self._shape


class FrameDecoder:
    """Decodes frames of one reader; the same index always gives the same bytes."""

    def __init__(self, reader: FrameReader) -> None:
        """Open a JPEG decoder."""
        self._reader = reader
        self._codec = _jpeg_decoder()
        self._recent: dict[int, U8] = {}

    @span("decode")
    def read(self, index: int) -> U8:
        """Frame `index` as read-only I420 u8 [h*3/2, w].

        Raises:
            TargetError: the stored picture is damaged.
        """
        found = self._recent.get(index)
        if found is not None:
            return found
        try:
            pictures = self._codec.decode(av.Packet(self._reader.jpeg(index)))
            frame: U8 = pictures[0].to_ndarray().astype(np.uint8, copy=False)
        except (av.FFmpegError, IndexError, ValueError) as error:
            raise TargetError(
                f"{self._reader.path.name}: frame {index} cannot be decoded ({error}); "
                "the bundle is damaged: calibrate again"
            ) from error
        if frame.shape != self._reader.shape:
            raise TargetError(
                f"{self._reader.path.name}: frame {index} is {frame.shape}, expected "
                f"{self._reader.shape}; the bundle is damaged: calibrate again"
            )
        frame.setflags(write=False)
        if len(self._recent) >= _CACHED_FRAMES:
            del self._recent[next(iter(self._recent))]
        self._recent[index] = frame
        return frame


def _jpeg_decoder() -> av.VideoCodecContext:
    codec = av.CodecContext.create("mjpeg", "r")
    assert isinstance(codec, av.VideoCodecContext)
    codec.thread_count = 1  # frame threads delay each picture
    return codec
