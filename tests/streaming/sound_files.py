"""Sound files, good and bad, for the tests that read or write media."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import numpy as np

from lipstream.streaming.files.audio_file import AudioFile
from lipstream.streaming.files.dub import write_dub
from lipstream.streaming.files.mp4_writer import Mp4Writer, PictureFormat
from lipstream.streaming.files.partial_file import PartialFile
from tests.streaming.fake_engine import FakeEngine


def write_wav(path: Path, samples: np.ndarray, rate_hz: int = 16_000) -> Path:
    """`samples` f32 [n] or [n, channels]."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return path


def dub(engine: FakeEngine, sound: Path, out: Path) -> dict[str, object]:
    with AudioFile(sound) as source, PartialFile(out) as part:
        return write_dub(engine, source, part)


def truncated(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def bad_inputs(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name -> (file, what the message must contain)."""
    tone = 0.2 * np.sin(np.arange(48_000) / 20).astype(np.float32)
    whole = folder / "whole.mp4"
    dub(FakeEngine(), write_wav(folder / "tone.wav", tone), whole)
    text = folder / "text.mp4"
    text.write_text("not a video\n" * 300)
    empty = folder / "empty.wav"
    empty.touch()
    silent = folder / "silent.mp4"
    picture = PictureFormat(64, 48, Fraction(25))
    with PartialFile(silent) as part, Mp4Writer(part, picture, channels=0) as writer:
        session = FakeEngine().session()
        session.sound = np.zeros(16_000, np.float32)
        for frame in session.flush():
            writer.write_frame(frame)
        writer.finish()
    return {
        "missing": (folder / "none.wav", "no such file"),
        "folder": (folder, "folder"),
        "text": (text, "not an audio or video file"),
        "empty": (empty, "not an audio or video file"),
        "no sound": (silent, "no sound"),
        "no samples": (write_wav(folder / "zero.wav", tone[:0]), "empty"),
        "cut wav": (truncated(write_wav(folder / "cut.wav", tone), 0.6), "cut short"),
        "cut mp4": (truncated(whole, 0.7), "cut short"),
    }
