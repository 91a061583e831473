"""Sound as programs write it: headers without a length, holes, channels that cancel, odd names."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lipstream.engine.errors import MediaError
from lipstream.engine.target.bundle import load_target
from lipstream.streaming.files.audio_file import AudioFile, read_speech
from lipstream.streaming.files.partial_file import PartialFile
from tests.streaming.fake_engine import FakeEngine
from tests.streaming.sound_files import dub, write_wav

TONE = (0.3 * np.sin(np.arange(16_000) / 20)).astype(np.float32)


@pytest.mark.parametrize(
    "riff", [0, 36, 0x7FFFF024, 2_000_000_036, 0x7FFFFFFF, 0x80000024, 2**32 - 1]
)
@pytest.mark.parametrize("data", [0, 0x7FFFF000, 2_000_000_000, 0x7FFFFFFF, 0x80000000, 2**32 - 1])
def test_a_wav_whose_length_was_not_known_plays_whole(tmp_path: Path, riff: int, data: int) -> None:
    path = write_wav(tmp_path / "in.wav", TONE)
    raw = bytearray(path.read_bytes())
    raw[4:8], raw[40:44] = riff.to_bytes(4, "little"), data.to_bytes(4, "little")
    path.write_bytes(raw)
    with AudioFile(path) as sound:
        speech = np.concatenate([block.speech for block in sound.blocks()])
        duration_s = sound.duration_s
    assert np.abs(speech - TONE).max() < 1e-4
    if riff > 36:
        assert duration_s == pytest.approx(1.0, abs=0.01)


def with_holes(path: Path, holes: list[tuple[float, float]], rate_hz: int = 48_000) -> Path:
    """2 s of tone as Opus, of which the packets in each (start, end), s, come that much later."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libopus", rate=rate_hz, layout="mono")
        for k in range(100):
            at = np.arange(960 * k, 960 * (k + 1))
            frame = av.AudioFrame.from_ndarray(
                (0.3 * np.sin(at / 60)).astype(np.float32)[None], format="flt", layout="mono"
            )
            frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
            frame.pts = 960 * k
            _mux(file, stream.encode(frame), holes)
        _mux(file, stream.encode(None), holes)
    return path


def _mux(file: av.container.OutputContainer, packets: list[av.Packet], holes: list) -> None:  # type: ignore[type-arg]
    for packet in packets:
        later_s = sum(length for at, length in holes if packet.pts * packet.time_base >= at)
        packet.pts += round(later_s / packet.time_base)
        packet.dts = packet.pts
        file.mux(packet)


@pytest.mark.parametrize(
    "holes", [[(1.0, 1.5)], [(0.5, 0.02), (1.0, 0.04), (1.5, 0.3)], [(1.0, 70.0)]]
)
def test_holes_in_the_timestamps_are_silence(
    tmp_path: Path, holes: list[tuple[float, float]]
) -> None:
    speech = read_speech(with_holes(tmp_path / "in.webm", holes))
    missing_s = sum(length for _, length in holes)
    assert speech.size / 16_000 == pytest.approx(2.0 + missing_s, abs=0.02)
    began_s = 0.0
    for at_s, length_s in holes:
        # Packets of 20 ms begin 6.5 ms, the pre-skip, before its multiples: the next one is late.
        middle = int((at_s + began_s + length_s / 2 + 0.0135) * 16_000)
        assert np.abs(speech[middle - 80 : middle + 80]).max() < 0.1
        began_s += length_s
    assert np.abs(speech[-8000:-1600]).max() > 0.2


def test_without_holes_nothing_is_added(tmp_path: Path) -> None:
    assert read_speech(with_holes(tmp_path / "in.webm", [])).size / 16_000 == pytest.approx(
        2, abs=0.02
    )


def test_a_file_whose_channels_cancel_is_spoken(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "in.wav", np.stack([TONE, -TONE], 1))
    assert np.abs(read_speech(path) - TONE).max() < 1e-3


NAMES = [
    "take:2", "a b\n", "%41?x=1#y", "-o", "\udcff\udcfe", "é" * 120, "n" * 250, "http:x",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_files_of_any_name_are_read_and_written(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sound = write_wav(Path(f"{name}.wav"), TONE)
    report = dub(FakeEngine(), sound, Path(f"{name}.mp4"))
    assert report["frames"] == 25
    assert sorted(os.listdir()) == sorted([f"{name}.wav", f"{name}.mp4"])


@pytest.mark.parametrize(
    "address", ["https://host/a.wav", "http://host", "s3://bucket/a", "file:///a"]
)
def test_an_address_is_refused_as_it_was_typed(tmp_path: Path, address: str) -> None:
    with pytest.raises(MediaError, match="download it") as caught:
        AudioFile(Path(address))
    host = address.split("/")[-1]
    assert "://" in str(caught.value) and host in str(caught.value)
    with pytest.raises(MediaError, match="is an address"):
        load_target(address)
    if address.count("/") > 2:
        with pytest.raises(MediaError, match="is an address"):
            PartialFile(address)
