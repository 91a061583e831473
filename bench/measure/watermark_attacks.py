"""What happens to video on its way: codecs at low rates, scaling, crops, other levels.

An attack is a chain of steps, each of which takes and gives luma frames, u8 [h, w], one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Final

import av
import numpy as np

from lipstream.engine.types import U8

Lumas = Iterator[U8]
Step = Callable[[Lumas], Lumas]

FPS: Final = 25
_RATE: Final = 800_000  # bit/s
_H264: Final = {"preset": "ultrafast", "tune": "zerolatency"}  # as in a call; files are kinder
_VP8: Final = {"deadline": "realtime", "cpu-used": "8"}


@dataclass(frozen=True, slots=True)
class Attack:
    """Steps, one after another."""

    name: str
    steps: tuple[Step, ...] = ()

    @property
    def through_a_codec(self) -> bool:
        """Whether a frame depends on others."""
        return "H.264" in self.name or "VP8" in self.name

    def __call__(self, lumas: Iterable[U8]) -> Lumas:
        """What is left of the frames."""
        frames = iter(lumas)
        for step in self.steps:
            frames = step(frames)
        return frames


def encoded(frames: Lumas, codec: str, options: dict[str, str], fps: int = FPS) -> Lumas:
    """Through a codec at 800 kb/s, in grey."""
    first = next(frames)
    h, w = first.shape
    writer = av.CodecContext.create(codec, "w")
    assert isinstance(writer, av.VideoCodecContext)
    writer.width, writer.height, writer.pix_fmt = w, h, "yuv420p"
    writer.bit_rate, writer.framerate, writer.time_base = _RATE, Fraction(fps), Fraction(1, fps)
    writer.options, writer.thread_count = options, 1
    reader = av.CodecContext.create({"libx264": "h264", "libvpx": "vp8"}[codec], "r")
    assert isinstance(reader, av.VideoCodecContext)
    grey = np.full((h // 2, w), 128, np.uint8)

    def pictures() -> Iterator[av.VideoFrame | None]:
        for pts, luma in enumerate(itertools.chain([first], frames)):
            picture = av.VideoFrame.from_ndarray(np.concatenate([luma, grey]), format="yuv420p")
            picture.pts = pts
            yield picture
        yield None

    for picture in pictures():
        for packet in writer.encode(picture):
            yield from (luma_of(frame) for frame in reader.decode(packet))
    yield from (luma_of(frame) for frame in reader.decode(None))


def luma_of(frame: av.VideoFrame) -> U8:
    """Of a picture in I420 or in grey, u8 [h, w]."""
    return np.array(frame.to_ndarray()[: frame.height, : frame.width], np.uint8)


def scaled(frames: Lumas, ratio: float) -> Lumas:
    """Bicubic, to even sides."""
    for luma in frames:
        h, w = (round(side * ratio / 2) * 2 for side in luma.shape)
        yield luma_of(av.VideoFrame.from_ndarray(luma, format="gray").reformat(w, h))


def cropped(frames: Lumas, top: float, left: float) -> Lumas:
    """Nine tenths of each side; the offset as shares of what goes."""
    for luma in frames:
        h, w = (int(side * 0.9) // 2 * 2 for side in luma.shape)
        y, x = int(top * (luma.shape[0] - h)), int(left * (luma.shape[1] - w))
        yield np.ascontiguousarray(luma[y : y + h, x : x + w])


def levels(frames: Lumas, gain: float = 1.0, offset: float = 0.0) -> Lumas:
    """Contrast about mid grey, and brightness as a share of the whole range."""
    table = np.clip((np.arange(256) - 126) * gain + 126 + 219 * offset, 16, 235)
    look_up = np.rint(table).astype(np.uint8)
    for luma in frames:
        yield look_up[luma]


def recorded(frames: Lumas) -> Lumas:
    """A screen recording at 30 fps: every fifth frame is seen twice."""
    for index, luma in enumerate(frames):
        yield luma
        if index % 5 == 4:
            yield luma


_h264, _vp8 = partial(encoded, codec="libx264", options=_H264), partial(
    encoded, codec="libvpx", options=_VP8
)  # fmt: skip
_crop = partial(cropped, top=0.37, left=0.81)
ATTACKS: Final = (
    Attack("none"),
    Attack("H.264, 800 kb/s", (_h264,)),
    Attack("VP8, 800 kb/s", (_vp8,)),
    Attack("scaled by 0.5", (partial(scaled, ratio=0.5),)),
    Attack("scaled by 0.73", (partial(scaled, ratio=0.73),)),
    Attack("scaled by 1.5", (partial(scaled, ratio=1.5),)),
    Attack("10 % crop", (_crop,)),
    Attack("brightness +20 %", (partial(levels, offset=0.2),)),
    Attack("brightness -20 %", (partial(levels, offset=-0.2),)),
    Attack("contrast +20 %", (partial(levels, gain=1.2),)),
    Attack("contrast -20 %", (partial(levels, gain=0.8),)),
    Attack("screen recording at 30 fps, H.264",
           (recorded, partial(scaled, ratio=0.9), partial(_h264, fps=30))),
    Attack("scaled by 0.5, then H.264", (partial(scaled, ratio=0.5), _h264)),
    Attack("10 % crop, then VP8", (_crop, _vp8)),
    Attack("contrast -20 %, then H.264", (partial(levels, gain=0.8), _h264)),
    Attack("10 % crop, scaled by 0.73", (_crop, partial(scaled, ratio=0.73))),
)  # fmt: skip
