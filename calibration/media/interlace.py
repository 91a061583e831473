"""Finds interlaced footage, and makes whole pictures of it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import av

logger = logging.getLogger(__name__)

Timed = tuple[float, av.VideoFrame]  # presentation time on the file's clock, s

_JUDGED_FRAMES: Final = 50
_CLEAR: Final = 0.5  # of the judged frames combed in one order of fields
_RARE: Final = 0.1  # of the judged frames at most in the other order


def deinterlacing_of(frames: Iterable[Timed]) -> str:
    """Which frames to deinterlace, from the beginning of footage: "all", "interlaced" or "".

    The frames' own flags count ("interlaced": those that carry it), unless the picture is plainly
    progressive, as film and 25p are in interlaced broadcast. Without a flag a picture counts as
    interlaced ("all") where FFmpeg's idet finds most of the frames combed in one order of fields.
    """
    graph: _Graph | None = None
    flagged = count = 0
    found = {"tff": 0, "bff": 0, "progressive": 0}
    try:
        for _, frame in islice(frames, _JUDGED_FRAMES):
            flagged += frame.interlaced_frame
            count += 1
            if graph is None:
                graph = _Graph(frame, ("idet", ""))
            elif not graph.takes(frame):
                break
            for judged in graph.push(frame):
                kind = judged.metadata.get("lavfi.idet.multiple.current_frame", "")
                if kind in found:
                    found[kind] += 1
    except av.error.FFmpegError as error:
        logger.debug("idet cannot judge the footage", extra={"reason": str(error)})
    first, second = sorted((found["tff"], found["bff"]), reverse=True)
    if flagged > count // 2:
        plainly_progressive = found["progressive"] > 4 * (first + second) + 5
        return "" if plainly_progressive else "interlaced"
    combed = count >= 10 and first >= _CLEAR * count and second <= _RARE * count
    return "all" if combed and found["progressive"] <= first / 4 else ""


def deinterlaced(frames: Iterator[Timed], which: str) -> Iterator[Timed]:
    """The same frames at the same times, each made of its first field and its neighbours (bwdif).

    which: "all" or "interlaced", from `deinterlacing_of`.
    """
    graph: _Graph | None = None
    times: deque[float] = deque()
    for time_s, frame in frames:
        if graph is not None and not graph.takes(frame):
            for out in graph.push(None):
                yield times.popleft(), out
            graph = None
        if graph is None:
            graph = _Graph(frame, ("bwdif", f"mode=send_frame:parity=auto:deint={which}"))
        times.append(time_s)
        for out in graph.push(frame):
            yield times.popleft(), out
    if graph is not None:
        for out in graph.push(None):
            yield times.popleft(), out


class _Graph:
    """One filter of libavfilter over frames of one size and format."""

    def __init__(self, frame: av.VideoFrame, filter_: tuple[str, str]) -> None:
        self._kind = (frame.width, frame.height, frame.format.name)
        self._pushed = 0
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base,
        )
        name, settings = filter_
        self._graph.link_nodes(
            source, self._graph.add(name, settings or None), self._graph.add("buffersink")
        ).configure()

    def takes(self, frame: av.VideoFrame) -> bool:
        """Whether a frame has the size and format of the first."""
        return (frame.width, frame.height, frame.format.name) == self._kind

    def push(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Frames that are ready, in order; None for the end."""
        if frame is not None:
            # One frame in is one frame out; the caller keeps their times, which may be missing.
            frame.pts = self._pushed
            self._pushed += 1
        self._graph.push(frame)
        while True:
            try:
                out = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert isinstance(out, av.VideoFrame)
            yield out
