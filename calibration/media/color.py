"""Converts decoded frames to upright 8-bit BT.709 with even sides."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from lipstream.engine.errors import MediaError
from lipstream.engine.types import U8

MAX_SIDE_PX: Final = 1920
LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)  # weights of R, G, B, BT.601


@dataclass(frozen=True, slots=True)
class FrameConversion:
    """How a decoded frame becomes an upright frame with even sides."""

    decoded_width: int  # size after scaling, before cropping and turning
    decoded_height: int
    width: int  # of the result
    height: int
    turn: Callable[[U8], U8] | None  # u8 [a, b] -> u8 [b, a] or [a, b]
    colorspace: int
    color_range: int
    notes: tuple[str, ...]


def _display_matrix(frame: av.VideoFrame) -> tuple[float, float, float, float]:
    """a, b, c, d of shown = (a x + c y, b x + d y); the identity without a display matrix."""
    try:
        side: Any = frame.side_data.get(str(SideDataType.DISPLAYMATRIX.name))
    except ValueError:
        # PyAV cannot list the side data of a frame if it does not know one kind (EXIF); the angle
        # it still tells. Counter-clockwise, degrees.
        turn = math.radians(frame.rotation)
        return math.cos(turn), -math.sin(turn), math.sin(turn), math.cos(turn)
    if side is None:
        return 1.0, 0.0, 0.0, 1.0
    # Fixed point 16.16, rows (a b u)(c d v)(x y w).
    m = np.frombuffer(bytes(side), np.int32)[:9].astype(np.float64) / 65536.0
    return float(m[0]), float(m[1]), float(m[3]), float(m[4])


def _display_turn(frame: av.VideoFrame) -> tuple[Callable[[U8], U8] | None, bool, str]:
    """The display matrix as a rotation of planes; whether it swaps the sides; a note on it."""
    a, b, c, d = _display_matrix(frame)
    size = math.sqrt(abs(a * d - b * c))
    if size < 1e-6:
        return None, False, ""
    a, b, c, d = (round(v / size) for v in (a, b, c, d))
    if (a, b, c, d) == (1, 0, 0, 1) or abs(a * d - b * c) != 1:
        return None, False, ""
    swaps = a == 0

    def turn(plane: U8) -> U8:
        out = plane.T if swaps else plane
        # Source x goes to shown x through a (or y through b); a minus sign is a flip.
        flip_x = (c if swaps else a) < 0
        flip_y = (b if swaps else d) < 0
        return out[:: -1 if flip_y else 1, :: -1 if flip_x else 1]

    angle = round(math.degrees(math.atan2(b, a))) % 360
    mirrored = a * d - b * c < 0
    return turn, swaps, ("mirrored and " if mirrored else "") + f"turned by {angle} degrees"


def conversion_of(frame: av.VideoFrame, stream: av.VideoStream) -> FrameConversion:
    """The conversion of all frames, from the first; raises MediaError if it is too small."""
    notes: list[str] = []
    width, height = frame.width, frame.height
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    if aspect and abs(float(aspect) - 1) > 0.02 and 0.3 < float(aspect) < 3.5:
        width = round(width * float(aspect))
        notes.append(f"pixels of {float(aspect):.2f}:1 made square")
    if max(width, height) > MAX_SIDE_PX:
        scale = MAX_SIDE_PX / max(width, height)
        notes.append(f"scaled down from {width}x{height}")
        width, height = round(width * scale), round(height * scale)
    if min(width, height) < 32:
        raise MediaError(f"the picture is {width}x{height}; expected at least 32x32 pixels")
    turn, swaps, words = _display_turn(frame)
    if words:
        notes.append(words)
    even_width, even_height = width // 2 * 2, height // 2 * 2
    if (even_width, even_height) != (width, height):
        notes.append(f"cropped from {width}x{height} to even sides")
    if "10" in frame.format.name or "12" in frame.format.name:
        notes.append(f"{frame.format.name} converted to 8 bits")
    if int(frame.color_trc) in (16, 18):  # SMPTE 2084 (PQ), ARIB STD-B67 (HLG)
        notes.append("high dynamic range is not tone-mapped: colors look flat")
    matrix, value_range = _color_of(frame)
    if swaps:
        out_width, out_height = even_height, even_width
    else:
        out_width, out_height = even_width, even_height
    return FrameConversion(
        width, height, out_width, out_height, turn, matrix, value_range, tuple(notes)
    )


def _color_of(frame: av.VideoFrame) -> tuple[int, int]:
    """Matrix and range; unstated ones as players assume them, BT.601 for small frames."""
    matrix = int(frame.colorspace)
    known = {1: Colorspace.ITU709, 5: Colorspace.ITU601, 6: Colorspace.SMPTE170M}
    known |= {4: Colorspace.FCC, 7: Colorspace.SMPTE240M, 9: Colorspace.BT2020}
    unstated = Colorspace.ITU709 if frame.height > 576 else Colorspace.ITU601
    full = int(frame.color_range) == 2 or frame.format.name.startswith("yuvj")
    if frame.format.name.startswith("gray"):
        full = int(frame.color_range) != 1
    return int(known.get(matrix, unstated)), int(ColorRange.JPEG if full else ColorRange.MPEG)


class Converter:
    """Converts decoded frames to RGB and I420; keeps FFmpeg's scaler between frames."""

    def __init__(self, shape: FrameConversion) -> None:
        """For frames of one shape."""
        self._shape = shape
        self._to_yuv = VideoReformatter()
        self._to_rgb = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> tuple[U8, U8]:
        """RGB u8 [h, w, 3] and I420 u8 [h*3/2, w] of one frame."""
        shape = self._shape
        upright = self._i420(frame)
        picture = av.VideoFrame.from_ndarray(upright, format="yuv420p")
        rgb = self._to_rgb.reformat(
            picture,
            format="rgb24",
            src_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        ).to_ndarray()
        assert rgb.shape == (shape.height, shape.width, 3)
        # At many widths rows are padded, with which MediaPipe finds no face.
        return np.ascontiguousarray(rgb, np.uint8), upright

    def _i420(self, frame: av.VideoFrame) -> U8:
        shape = self._shape
        rgb_coded = frame.format.is_rgb
        settings: dict[str, Any] = {
            "width": shape.decoded_width,
            "height": shape.decoded_height,
            "format": "yuv420p",
            "dst_colorspace": Colorspace.ITU709,
            "src_color_range": ColorRange.JPEG if rgb_coded else shape.color_range,
            "dst_color_range": ColorRange.MPEG,
            "interpolation": Interpolation.BICUBIC,
            "threads": 1,
        }
        if not rgb_coded:
            settings["src_colorspace"] = shape.colorspace
        yuv = self._to_yuv.reformat(frame, **settings)
        even_w, even_h = shape.decoded_width // 2 * 2, shape.decoded_height // 2 * 2
        planes: list[U8] = []
        for plane, divisor in zip(yuv.planes, (1, 2, 2), strict=True):
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            part: U8 = rows[: even_h // divisor, : even_w // divisor]
            planes.append(shape.turn(part) if shape.turn else part)
        return np.concatenate([plane.reshape(-1) for plane in planes]).reshape(
            shape.height * 3 // 2, shape.width
        )
