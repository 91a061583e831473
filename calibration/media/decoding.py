"""Decodes the frames of a part of footage, each with its presentation time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Final

import av

from lipstream.calibration.media.opening import media_errors, open_media, video_stream
from lipstream.engine.errors import MediaError

# How far before the wanted time a file is entered, in this order; then it is read from its start.
_ENTRIES_S: Final = (0.0, 2.0, 8.0, 32.0)
_MAX_BAD_PACKETS: Final = 50
_SAME_SHAPE: Final = 0.02  # natural logarithm of a ratio of sides


def decoded(
    path: Path, origin_s: float, end_s: float | None = None
) -> Iterator[tuple[float, av.VideoFrame]]:
    """(presentation time on the file's clock, frame) from `origin_s` to a second after `end_s`.

    Formats without an index of key frames (MPEG-TS, MPEG-PS) may be entered between two key frames
    or after the wanted time, and an elementary stream cannot be entered at all. So decoding begins
    at a packet that is marked as a key frame, its first presentation time is checked, and if it
    lies too late the file is entered earlier, in the end at its start.

    Raises:
        MediaError: the file cannot be read, most of its packets are damaged, or the shape of the
            picture changes.
    """
    for before_s in (*_ENTRIES_S, math.inf):
        with open_media(path) as container, media_errors(path):
            stream = video_stream(container, path)
            start_s = float((stream.start_time or 0) * (stream.time_base or 0))
            entry_s = origin_s - 1e-3 - before_s
            if entry_s <= start_s:
                frames = _from_start(container, stream)
            else:
                frames = _from_key_frame(container, stream, entry_s)
                first = next(frames, None)
                if first is None or first[0] > origin_s:
                    continue
                frames = chain([first], frames)
            shape: _Shape | None = None
            for time_s, frame in frames:
                if time_s < origin_s - 1e-6:
                    continue
                if end_s is not None and time_s > end_s + 1.0:
                    return
                now = _Shape.of(frame, stream)
                shape = shape or now
                if now.differs(shape):
                    if end_s is not None and time_s > end_s - 0.01:  # it is not shown
                        return
                    at_s = time_s - start_s
                    raise MediaError(
                        f"{path}: the picture changes from {shape} to {now} at {at_s:.2f} s; "
                        f"choose one part with --end {at_s:.2f} or --start {at_s:.2f}"
                    )
                yield time_s, frame
            return


@dataclass(frozen=True, slots=True)
class _Shape:
    width: int
    height: int
    pixel_aspect: float  # width over height of a pixel, 1 if unknown
    rotation: int  # degrees

    @classmethod
    def of(cls, frame: av.VideoFrame, stream: av.VideoStream) -> _Shape:
        aspect = float(stream.codec_context.sample_aspect_ratio or 1)
        return cls(frame.width, frame.height, aspect, frame.rotation)

    def differs(self, other: _Shape) -> bool:
        """Whether one cannot be scaled to the other; another size of one shape can."""
        if self == other:
            return False
        ratio = self.width / self.height * self.pixel_aspect
        other_ratio = other.width / other.height * other.pixel_aspect
        return abs(math.log(ratio / other_ratio)) > _SAME_SHAPE or self.rotation != other.rotation

    def __str__(self) -> str:
        text = f"{self.width}x{self.height}"
        if self.pixel_aspect != 1:
            text += f" (pixels {self.pixel_aspect:.2f}:1)"
        return text + (f" (turned by {self.rotation} degrees)" if self.rotation else "")


def _from_start(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[tuple[float, av.VideoFrame]]:
    """All frames that can be decoded; frames without a time stamp follow each other at the rate."""
    step_s = float(1 / stream.average_rate) if stream.average_rate else 0.04
    base = stream.time_base or Fraction(1, 1000)
    return _frames(container.demux(stream), stream, float((stream.start_time or 0) * base), step_s)


def _from_key_frame(
    container: av.container.InputContainer, stream: av.VideoStream, entry_s: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames from the first key frame after the place to which the format jumps."""
    base = stream.time_base or Fraction(1, 1000)
    try:
        container.seek(int(entry_s / base), stream=stream, backward=True)
    except av.error.FFmpegError:
        return  # the format cannot jump
    packets = container.demux(stream)
    for packet in packets:
        if packet.is_keyframe and packet.size:
            if packet.pts is None and packet.dts is None:
                return
            yield from _frames(chain([packet], packets), stream, float("nan"), 0.0)
            return


def _frames(
    packets: Iterator[av.Packet[Any]], stream: av.VideoStream, start_s: float, step_s: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    base = stream.time_base or Fraction(1, 1000)
    time_s = start_s - step_s
    bad_packets = 0
    for packet in packets:
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            # One damaged packet costs a frame; many mean that this is no video.
            bad_packets += 1
            if bad_packets > _MAX_BAD_PACKETS:
                raise
            continue
        for frame in frames:
            ticks = frame.pts if frame.pts is not None else frame.dts
            frame_base = frame.time_base or base
            time_s = float(ticks * frame_base) if ticks is not None else time_s + step_s
            yield time_s, frame
