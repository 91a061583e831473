"""Reads footage of any kind as 8-bit frames with even sides at a constant rate.

Cameras write variable frame rates, rotation flags, odd sizes, ten bits, full-range color, and audio
that starts before the video. Everything after this module sees one kind of frame: index k is shown
k / fps after the origin, and sample 0 of the audio belongs to that same origin.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Final

import av

from lipstream.calibration.media.audio import read_sound
from lipstream.calibration.media.color import Converter, FrameConversion, conversion_of
from lipstream.calibration.media.decoding import decoded
from lipstream.calibration.media.interlace import deinterlaced, deinterlacing_of
from lipstream.calibration.media.opening import open_media, video_stream
from lipstream.calibration.media.probe import declared_end_s, probe, refuse_truncated
from lipstream.calibration.media.still_image import is_photo, read_photo
from lipstream.engine.errors import MediaError
from lipstream.engine.types import U8

__all__ = ["Footage", "FootageFrame", "is_photo", "open_footage", "read_photo", "read_sound"]

logger = logging.getLogger(__name__)

_MAX_GAP_S: Final = 10.0  # a longer gap in the timestamps is damage, not a variable rate
_SHORT_BY_S: Final = 1.0  # how much earlier than declared a file may end


@dataclass(frozen=True, slots=True)
class FootageFrame:
    """One frame on the constant-rate grid."""

    index: int  # shown at index / fps after the origin
    rgb: U8  # u8 [h, w, 3], contiguous; always the RGB of `i420`
    i420: U8  # u8 [h*3/2, w], BT.709 limited range
    repeated: bool  # the same source frame as index - 1, where the footage is slower


class Footage:
    """An open video: iterate once for its frames. Use as a context manager.

    `width` and `height` are those of the frames that come out (upright, even, at most 1920 on the
    long side). `notes` names each conversion, for the report.
    """

    def __init__(self, path: Path, start_s: float | None, end_s: float | None) -> None:
        """Use `open_footage`."""
        self._path = path
        self._container = open_media(path)
        try:
            self._stream = video_stream(self._container, path)
            self._source = probe(path, start_s, end_s)
            refuse_truncated(self._stream, path, self._source.end_s)
            self._conversion, self._deinterlacing = self._first_frames()
        except BaseException:
            self._container.close()
            raise
        self._iterated = False
        self.fps: Fraction = self._source.fps
        self.width: int = self._conversion.width
        self.height: int = self._conversion.height
        self.notes: tuple[str, ...] = self._source.notes + self._conversion.notes
        if self._deinterlacing:
            self.notes += ("interlaced: made into whole pictures",)
        self.origin_s: float = self._source.origin_s

    @property
    def expected_frames(self) -> int | None:
        """Expected number of frames, for a progress bar; None if the file does not state it."""
        end_s = self._source.end_s
        if self._stream.duration is not None and self._stream.time_base is not None:
            start = self._stream.start_time or 0
            last_s = float((start + self._stream.duration) * self._stream.time_base)
            end_s = last_s if end_s is None else min(end_s, last_s)
        if end_s is None:
            return None
        return max(1, round((end_s - self.origin_s) * float(self.fps)))

    def __enter__(self) -> Footage:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._container.close()

    def __iter__(self) -> Iterator[FootageFrame]:
        """Frames in order, converted one at a time: memory does not grow with the length."""
        if self._iterated:
            raise MediaError(f"{self._path}: footage can be iterated once; open it again")
        self._iterated = True
        return self._frames()

    def _decoded(self) -> Iterator[tuple[float, av.VideoFrame]]:
        return decoded(self._path, self._source.origin_s, self._source.end_s)

    def _first_frames(self) -> tuple[FrameConversion, str]:
        """The conversion of the first frame to show, which holds for all, and how to deinterlace
        (`deinterlacing_of`)."""
        frames = self._decoded()
        first = next(frames, None)
        if first is None:
            raise MediaError(f"{self._path}: no frame could be decoded; is the file whole?")
        conversion = conversion_of(first[1], self._stream)
        return conversion, deinterlacing_of(chain([first], frames))

    def _frames(self) -> Iterator[FootageFrame]:
        converter = Converter(self._conversion)
        origin_s, end_s, fps = self._source.origin_s, self._source.end_s, float(self.fps)
        index = 0
        held: av.VideoFrame | None = None
        held_s = 0.0

        def show(frame: av.VideoFrame, until_s: float) -> Iterator[FootageFrame]:
            nonlocal index
            image: tuple[U8, U8] | None = None
            while index / fps < until_s and (end_s is None or origin_s + index / fps < end_s):
                repeated = image is not None
                if image is None:
                    image = converter(frame)
                yield FootageFrame(index, image[0], image[1], repeated)
                index += 1

        frames = self._decoded()
        if self._deinterlacing:
            frames = deinterlaced(frames, self._deinterlacing)
        for time_s, frame in frames:
            shown_s = time_s - origin_s
            if held is not None:
                if shown_s <= held_s:
                    logger.debug("frame out of order left out", extra={"pts_s": time_s})
                    continue
                if shown_s - held_s > _MAX_GAP_S:
                    raise MediaError(
                        f"{self._path}: nothing between {held_s:.1f} s and {shown_s:.1f} s; "
                        "the timestamps are damaged: re-encode the file, or use --start/--end"
                    )
                # The frame changes half-way between two presentation times.
                yield from show(held, (held_s + shown_s) / 2)
            held, held_s = frame, shown_s
        if held is not None:
            yield from show(held, held_s + 0.5 / fps)
        if index == 0:
            raise MediaError(f"{self._path}: no frame in the part asked for")
        self._refuse_short(held_s)

    def _refuse_short(self, last_s: float) -> None:
        declared_s = declared_end_s(self._stream)
        if self._source.end_s is not None or declared_s is None:
            return
        ends_s = self.origin_s + last_s + 1 / float(self.fps)
        if declared_s - ends_s > max(_SHORT_BY_S, 0.02 * declared_s):
            raise MediaError(
                f"{self._path}: the picture ends at {ends_s:.1f} s of {declared_s:.1f} s; the file "
                f"is cut short: copy it again, or use --end {max(0.0, ends_s - 0.1):.1f}"
            )


def open_footage(
    path: str | Path, start_s: float | None = None, end_s: float | None = None
) -> Footage:
    """Open a video for one pass over its frames.

    Args:
        path: any file that FFmpeg reads.
        start_s: begin here, in seconds from the first picture; None for the beginning.
        end_s: stop before this time, on the same clock; None for the end.

    Raises:
        MediaError: not a video, no picture, cut short, or nothing between start and end.
    """
    return Footage(Path(path), start_s, end_s)
