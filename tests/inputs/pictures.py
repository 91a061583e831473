"""Photos and footage as people bring them to `calibrate`."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from lipstream.made_inputs import (
    cut,
    noise,
    photo_file,
    portrait,
    sound_file,
    swaying,
    turned_photo,
    video_file,
    voice,
)
from lipstream.self_test import Trial
from tests.inputs.sounds import written

Make = Callable[[Path], Path]
_GOP = {"g": "250", "crf": "18"}
_STILL = 8  # frames: enough to see that there is no face


def photo(name: str, mode: str = "RGB", **options: object) -> Make:
    return lambda folder: photo_file(folder / name, portrait(), mode, **options)


def film(name: str, codec: str = "libx264", pixels: str = "yuv420p", frames: int = 15) -> Make:
    return lambda folder: video_file(
        folder / name, swaying(frames), codec, _GOP if codec == "libx264" else {}, pixels
    )


def without_face(name: str, codec: str = "libx264", pixels: str = "yuv420p") -> Make:
    return lambda folder: video_file(folder / name, [noise(96, 128)] * _STILL, codec, {}, pixels)


def two_people(folder: Path) -> Path:
    both = np.concatenate([portrait(), portrait()[:, ::-1]], axis=1)
    return photo_file(folder / "two.png", both)


def without_mouth(folder: Path) -> Path:
    """The picture ends above the chin, as a photo that was cropped too far."""
    return photo_file(folder / "chin.jpg", np.ascontiguousarray(portrait()[:150]), quality=95)


def bomb(folder: Path) -> Path:
    """A PNG of a few bytes that says it is 30000 pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(90_000)))
    (folder / "bomb.png").write_bytes(data + chunk(b"IEND", b""))
    return folder / "bomb.png"


def animation(name: str) -> Make:
    def make(folder: Path) -> Path:
        frames = [Image.fromarray(np.roll(noise(96, 128), k, 1)) for k in range(3)]
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], duration=40)
        return folder / name

    return make


def two_shapes(folder: Path) -> Path:
    parts = [
        video_file(folder / f"{k}.ts", [image] * 25, times=list(range(25 * k, 25 * k + 25)))
        for k, image in enumerate((noise(96, 96), noise(96, 192)))
    ]
    (folder / "shapes.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    return folder / "shapes.ts"


def torn(folder: Path) -> Path:
    """A minute is missing in the time stamps."""
    times = [k if k < 4 else k + 1500 for k in range(_STILL)]
    return video_file(folder / "torn.mkv", [noise(96, 128)] * _STILL, times=times)


def swapped(name: str, codec: str) -> Make:
    """Half of the file's bytes, in its middle, are noise."""

    def make(folder: Path) -> Path:
        path = video_file(folder / name, [noise(96, 128)] * _STILL, codec)
        data = bytearray(path.read_bytes())
        middle = len(data) // 4
        data[middle : 3 * middle] = np.random.default_rng(0).bytes(2 * middle)
        path.write_bytes(data)
        return path

    return make


WHOLE = [
    Trial("AVIF on its side", "calibrate",
          lambda folder: turned_photo(folder / "e.avif", portrait())),
    Trial("MJPEG in MOV", "calibrate", film("m.mov", "mjpeg", "yuvj420p"), 0.6),
]  # fmt: skip

REFUSED = [
    Trial(name, "calibrate", make, refusal=refusal)
    for name, make, refusal in (
        ("two people", two_people, "crop the photo to one person"),
        ("a photo without a mouth", without_mouth, "beyond the border"),
        ("a photo of 40 pixels",
         lambda folder: photo_file(folder / "s.png", noise(40, 40)), "expected 64 pixels"),
        ("a photo of one pixel",
         lambda folder: photo_file(folder / "s.bmp", noise(1, 1)), "expected 64 pixels"),
        ("a bomb", bomb, "bomb.png"),
        ("a cut PNG", lambda folder: cut(photo("c.png")(folder), 0.5), "damaged or cut short"),
        ("a cut AVIF", lambda folder: cut(photo("c.avif")(folder), 0.5), "c.avif"),
        ("a cut TIFF", lambda folder: cut(photo("c.tiff")(folder), 0.5), "c.tiff"),
        ("a HEIC",
         written("h.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)), "save it as JPEG"),
        ("an SVG", written("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>'), "a.svg"),
        ("a text for a photo", written("t.png", b"no photo\n" * 50), "t.png"),
        ("an animated GIF", animation("a.gif"), "no face was found"),
        ("an animated WebP", animation("a.webp"), "a.webp"),
        ("footage without a face", without_face("n.mp4"), "no face was found"),
        ("AVI without a face", without_face("n.avi", "mpeg4"), "no face was found"),
        ("FLV without a face", without_face("n.flv", "flv"), "no face was found"),
        ("10 bits without a face", without_face("n.mkv", "libx264", "yuv420p10le"),
         "no face was found"),
        ("4:4:4 without a face", without_face("n.nut", "ffv1", "yuv444p"), "no face was found"),
        ("Y4M without a face", without_face("n.y4m", "rawvideo"), "no face was found"),
        ("footage of 16 pixels",
         lambda folder: video_file(folder / "s.mp4", [noise(16, 16)] * 3), "at least 32x32"),
        ("a cut MP4",
         lambda folder: cut(without_face("c.mp4")(folder), 0.6), "c.mp4"),
        ("a cut MKV", lambda folder: cut(without_face("c.mkv")(folder), 0.3), "c.mkv"),
        ("a cut TS", lambda folder: cut(without_face("c.ts")(folder), 0.1), "c.ts"),
        ("an MP4 that is half noise", swapped("h.mp4", "libx264"), "no face was found"),
        ("an MPEG-PS that is half noise", swapped("h.mpg", "mpeg2video"),
         "no face was found"),
        ("a picture that changes its shape", two_shapes, "from 96x96 to 192x96"),
        ("time stamps with a hole", torn, "timestamps are damaged"),
        ("sound for footage",
         lambda folder: sound_file(folder / "s.m4a", voice(), codec="aac"), "no picture"),
        ("text for footage", written("t.mov", b"no film\n" * 90), "t.mov"),
        ("an empty file", written("e.mp4", b""), "is empty"),
        ("a playlist for footage", written("l.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n"
         b"#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n"), "l.m3u8"),
        ("a device", lambda folder: Path("/dev/zero"), "pipe or a device"),
        ("no file", lambda folder: folder / "none.mp4", "no such file"),
        ("a folder", lambda folder: folder, "folder"),
    )
]  # fmt: skip
