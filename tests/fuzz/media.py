"""Sound, video and photo files with changed headers and contents, through what reads them."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from lipstream.calibration.media.video import is_photo, open_footage, read_photo, read_sound
from lipstream.streaming.files.audio_file import AudioFile
from tests.fuzz.mutation import mutated
from tests.streaming.sound_files import write_wav

_TONE = (0.3 * np.sin(np.arange(3200) / 20)).astype(np.float32)
_SOUNDS = {
    "a.flac": "flac", "a.mp3": "libmp3lame", "a.ogg": "libopus", "a.webm": "libopus",
    "a.m4a": "aac", "a.aiff": "pcm_s16be", "a.au": "pcm_s16be", "a.mka": "ac3",
}  # fmt: skip
_VIDEOS = {
    "v.mp4": "libx264", "v.mov": "mjpeg", "v.mkv": "libx264", "v.webm": "libvpx", "v.ts": "libx264",
    "v.avi": "mpeg4", "v.mpg": "mpeg2video", "v.h264": "libx264", "v.ivf": "libvpx-vp9",
}  # fmt: skip
_PHOTOS = ("p.jpg", "p.png", "p.webp", "p.bmp", "p.gif", "p.tiff", "p.jp2", "p.avif")
_MOST_BLOCKS = 3000


def sound_seeds(folder: Path) -> Iterator[Path]:
    """A fifth of a second in each container."""
    yield write_wav(folder / "a.wav", _TONE)
    yield write_wav(folder / "stereo.wav", np.stack([_TONE, _TONE], 1), 44_100)
    yield write_wav(folder / "tracks.wav", np.stack([_TONE[:1000]] * 12, 1), 48_000)
    for name, codec in _SOUNDS.items():
        with av.open(str(folder / name), "w") as file:
            stream = file.add_stream(codec, rate=48_000, layout="mono")
            for k in range(10):
                plane = np.tile(_TONE[:960], 1)[None]
                frame = av.AudioFrame.from_ndarray(plane, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 48_000, 960 * k
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        yield folder / name


def video_seeds(folder: Path) -> Iterator[Path]:
    """Six frames of 64 × 48 px in each container."""
    rng = np.random.default_rng(0)
    images = [np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))) for _ in range(6)]
    for name, codec in _VIDEOS.items():
        with av.open(str(folder / name), "w") as file:
            stream = file.add_stream(codec, rate=25)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.codec_context.thread_count = 1
            for k, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        yield folder / name


def photo_seeds(folder: Path) -> Iterator[Path]:
    """64 × 80 px, with EXIF where the format has it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 255, (10, 8, 3)).astype(np.uint8)
    image = Image.fromarray(np.kron(pixels, np.ones((8, 8, 1), np.uint8)))
    for name in _PHOTOS:
        options = {"exif": exif} if name.endswith(("jpg", "png", "webp", "tiff", "avif")) else {}
        buffer = io.BytesIO()
        kind = {"jpg": "JPEG", "jp2": "JPEG2000"}.get(name[2:], name[2:].upper())
        image.save(buffer, kind, **options)
        (folder / name).write_bytes(buffer.getvalue())
        yield folder / name


class _Files:
    """Seeds in memory, and a file that is another one in each case."""

    def __init__(self, folder: Path, seeds: Iterator[Path]) -> None:
        self._seeds = [(path.suffix, path.read_bytes()) for path in seeds]
        self._folder = folder

    def changed(self, rng: random.Random) -> Path:
        suffix, data = rng.choice(self._seeds)
        path = self._folder / f"case{suffix}"
        path.write_bytes(mutated(data, rng))
        return path


def sounds(folder: Path) -> Callable[[random.Random], None]:
    """As `dub` and `express` hear them."""
    files = _Files(folder, sound_seeds(folder))

    def case(rng: random.Random) -> None:
        with AudioFile(files.changed(rng)) as sound:
            assert sound.duration_s is None or sound.duration_s == sound.duration_s
            for count, block in enumerate(sound.blocks()):
                assert np.isfinite(block.speech).all()
                if count == _MOST_BLOCKS:  # a stream is read block by block, however long
                    break

    return case


def videos(folder: Path) -> Callable[[random.Random], None]:
    """As `calibrate` reads footage, up to 30 frames of it."""
    files = _Files(folder, video_seeds(folder))

    def case(rng: random.Random) -> None:
        path = files.changed(rng)
        if is_photo(path):
            read_photo(path)
            return
        start_s = rng.choice((None, None, None, 0.1))
        with open_footage(path, start_s) as footage:
            for count, frame in enumerate(footage):
                assert frame.rgb.shape == (footage.height, footage.width, 3)
                if count == 30:
                    break
        read_sound(path)

    return case


def photos(folder: Path) -> Callable[[random.Random], None]:
    """As `calibrate` reads photos."""
    files = _Files(folder, photo_seeds(folder))

    def case(rng: random.Random) -> None:
        path = files.changed(rng)
        if is_photo(path):
            assert read_photo(path).shape[2] == 3

    return case
