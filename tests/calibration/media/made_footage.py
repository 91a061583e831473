"""Footage made by FFmpeg, whose pictures say which they are and which way up."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

COLOURS = {"tl": (200, 40, 40), "tr": (40, 200, 40), "bl": (40, 40, 200), "br": (220, 220, 220)}


def corners(width: int, height: int) -> np.ndarray:
    """u8 [h, w, 3] whose four quarters differ in colour."""
    image = np.zeros((height, width, 3), np.uint8)
    x, y = width // 2, height // 2
    image[:y, :x], image[:y, x:] = COLOURS["tl"], COLOURS["tr"]
    image[y:, :x], image[y:, x:] = COLOURS["bl"], COLOURS["br"]
    return image


def numbered(width: int, height: int, number: int) -> np.ndarray:
    """u8 [h, w, 3] with `number` (below 256) in eight bright or dark stripes."""
    image = np.full((height, width, 3), 20, np.uint8)
    for bit in range(8):
        if number >> bit & 1:
            image[:, bit * width // 8 : (bit + 1) * width // 8] = 230
    return image


def number_of(rgb: np.ndarray) -> int:
    width = rgb.shape[1]
    middles = [rgb[rgb.shape[0] // 2, (2 * bit + 1) * width // 16, 1] for bit in range(8)]
    return sum(int(value > 128) << bit for bit, value in enumerate(middles))


def write_video(  # noqa: PLR0913 - each is one awkwardness
    path: Path,
    images: list[np.ndarray],
    *,
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    degrees: int = 0,
    hflip: bool = False,
    colours: dict[str, int] | None = None,
    options: dict[str, str] | None = None,
    sound: tuple[np.ndarray, int] | None = None,
) -> Path:
    container_options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=25, options=options or {"crf": "8"})
        stream.width, stream.height = images[0].shape[1], images[0].shape[0]
        stream.pix_fmt = pix_fmt
        stream.time_base = time_base
        stream.codec_context.time_base = time_base
        for name, value in (colours or {}).items():
            setattr(stream.codec_context, name, value)
        if degrees or hflip:
            stream.set_display_rotation(degrees, hflip=hflip)
        audio = None
        if sound is not None:
            audio = container.add_stream("aac", rate=48000, layout="mono")
        for k, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            settings = {}
            if colours:
                settings = {
                    "dst_colorspace": colours.get("colorspace"),
                    "dst_color_range": colours.get("color_range"),
                }
            frame = frame.reformat(format=pix_fmt, **settings)
            frame.pts = pts[k] if pts else k
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None and sound is not None:
            samples, first = sound
            block = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            block.sample_rate, block.pts = 48000, first
            block.time_base = Fraction(1, 48000)
            container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def corner_names(rgb: np.ndarray) -> list[str]:
    """Which quarter is in each corner, reading order."""
    height, width = rgb.shape[:2]
    out = []
    for y, x in ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
        pixel = rgb[int(y * height), int(x * width)].astype(int)
        out.append(min(COLOURS, key=lambda n: np.abs(pixel - COLOURS[n]).sum()))
    return out
