"""Inputs as people bring them, made on the spot: for `doctor --self-test` and for the tests.

The voice is the demo's synthetic speech, the face its public-domain portrait. Photos and footage
need what the extra `calibrate` installs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from lipstream.engine.types import F32, U8

VOICE_RATE_HZ: Final = 48_000
FACE_SIDE_PX: Final = 256
_VOICE_BEGINS_S: Final = 0.5  # in the demo's speech, after its pause
_BLOCK: Final = 960  # samples


@cache
def _whole_voice() -> F32:
    from importlib.resources import as_file, files

    from lipstream.streaming.files.audio_file import AudioFile

    speech = files("lipstream.calibration").joinpath("demo_speech.ogg")
    with as_file(speech) as path, AudioFile(path) as sound:
        return np.concatenate([block.output[0] for block in sound.blocks()])


def voice(seconds: float = 0.6, rate_hz: int = VOICE_RATE_HZ) -> F32:
    """Speech, f32 [samples], mono; its own rate is 48 kHz."""
    begin = round(_VOICE_BEGINS_S * VOICE_RATE_HZ)
    places = np.arange(round(seconds * rate_hz)) * (VOICE_RATE_HZ / rate_hz) + begin
    whole = _whole_voice()
    return np.interp(places, np.arange(whole.size), whole).astype(np.float32)


def sound_file(
    path: Path,
    samples: F32,
    rate_hz: int = VOICE_RATE_HZ,
    codec: str = "pcm_s16le",
    layout: str | None = None,
    holes_s: Sequence[tuple[float, float]] = (),
) -> Path:
    """Write a sound file of the kind that the name says.

    samples: f32 [n] or [channels, n]. holes_s: at each (time, length) the time stamps jump.
    """
    samples = np.atleast_2d(samples)
    layout = layout or {1: "mono", 2: "stereo"}.get(len(samples), f"{len(samples)} channels")
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate_hz, layout=layout)
        assert isinstance(stream, av.AudioStream)
        for start in range(0, samples.shape[1], _BLOCK):
            block = samples[:, start : start + _BLOCK]
            frame = av.AudioFrame("flt", layout, block.shape[1])
            frame.planes[0].update(np.ascontiguousarray(block.T, "<f4").tobytes())
            frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
            frame.pts = start
            _mux(file, stream.encode(frame), holes_s)
        _mux(file, stream.encode(None), holes_s)
    return path


def _mux(
    file: av.container.OutputContainer,
    packets: list[av.Packet[Any]],
    holes_s: Sequence[tuple[float, float]],
) -> None:
    for packet in packets:
        if packet.pts is not None and holes_s:
            at_s = float(packet.pts * packet.time_base)
            later_s = sum(length for begin, length in holes_s if at_s >= begin)
            packet.pts += round(later_s / float(packet.time_base))
            packet.dts = packet.pts
        file.mux(packet)


def wav_file(path: Path, samples: F32, rate_hz: int = VOICE_RATE_HZ, **stated: int) -> Path:
    """A WAV of 16 bits, samples f32 [n] or [channels, n], with other numbers in its header.

    stated: riff, data (lengths in bytes), format, channels, rate, block, bits.
    """
    samples = np.atleast_2d(samples)
    data = (np.clip(samples, -1, 1).T * 32767).astype("<i2").tobytes()
    channels = len(samples)
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", stated.get("riff", 36 + len(data)), b"WAVE", b"fmt ", 16,
        stated.get("format", 1), stated.get("channels", channels), stated.get("rate", rate_hz),
        rate_hz * 2 * channels & 0xFFFFFFFF, stated.get("block", 2 * channels & 0xFFFF),
        stated.get("bits", 16), b"data", stated.get("data", len(data)),
    )  # fmt: skip
    path.write_bytes(head + data)
    return path


def cut(path: Path, keep: float) -> Path:
    """The file without its end."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


@cache
def portrait() -> U8:
    """A face from the front, u8 [256, 256, 3]: NASA's of Eileen Collins, from scikit-image."""
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut()[0:FACE_SIDE_PX, 96 : 96 + FACE_SIDE_PX, :3])


def swaying(frames: int) -> list[U8]:
    """The portrait, moved by up to 4 px: u8 [256, 256, 3] each."""
    shifts = np.round(4 * np.sin(np.arange(frames) / 5)).astype(int)
    return [np.roll(portrait(), shift, axis=1) for shift in shifts]


def noise(height: int = FACE_SIDE_PX, width: int = FACE_SIDE_PX) -> U8:
    """No face: u8 [height, width, 3]."""
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def photo_file(path: Path, rgb: U8, mode: str = "RGB", **options: Any) -> Path:
    """Write a photo of the kind that the name says; `mode` and `options` are Pillow's."""
    from PIL import Image

    Image.fromarray(rgb).convert(mode).save(path, **options)
    return path


def turned_photo(path: Path, rgb: U8) -> Path:
    """The picture lies on its side, and EXIF says how to turn it."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise
    exif[0x010F] = "maker"
    return photo_file(path, np.ascontiguousarray(np.rot90(rgb)), exif=exif, quality=95)


def video_file(  # noqa: PLR0913 - each is one property of the file
    path: Path,
    images: Sequence[U8],
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    sound: F32 | None = None,
) -> Path:
    """Write a video of the kind that the name says, 25 fps unless `times` are given.

    images: u8 [h, w, 3] each. times: of each image, in 1/25 s. sound: f32 [n], mono, 48 kHz.
    """
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 25)
        speech = None
        if sound is not None:
            speech = file.add_stream("aac", rate=VOICE_RATE_HZ, layout="mono")
            assert isinstance(speech, av.AudioStream)
        for k, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (k if times is None else times[k]), Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if speech is not None and sound is not None:
            heard = av.AudioFrame("flt", "mono", sound.size)
            heard.planes[0].update(sound.astype("<f4").tobytes())
            heard.sample_rate, heard.pts = VOICE_RATE_HZ, 0
            file.mux(speech.encode(heard))
            file.mux(speech.encode(None))
    return path
