"""A disk that fills up at any file of any command: one line, and nothing is left on it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lipstream.calibration.assets import find
from lipstream.made_inputs import photo_file, portrait, voice, wav_file
from tests.cli.conftest import Cli
from tests.cli.test_cli import assert_one_line


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of so many KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root, to mount a small tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(find() is None, reason="no face_landmarker.task (lipstream assets fetch)")
@pytest.mark.parametrize("disk", [9_000], indirect=True)
def test_calibrate(cli_here: Cli, tmp_path: Path, disk: Path) -> None:
    """The frames fit, and the track does not."""
    photo = photo_file(tmp_path / "face.png", portrait())
    done = cli_here("calibrate", photo, "-o", disk / "a.target")
    assert_one_line(done, "a.target/track.safetensors: cannot be written")
    assert "No space left on device" in done.stderr and "free some space" in done.stderr
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("disk", [16], indirect=True)
@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_dub(cli_here: Cli, tiny_target: Path, tmp_path: Path, disk: Path, ending: str) -> None:
    sound = wav_file(tmp_path / "v.wav", voice(2.0))
    output = disk / f"a{ending}"
    done = cli_here("dub", tiny_target, sound, "-o", output, "--renderer", "none")
    assert_one_line(done, f"cannot write {output}: No space left on device; free some space")
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("disk", [16], indirect=True)
def test_express(cli_here: Cli, tmp_path: Path, disk: Path) -> None:
    sound = wav_file(tmp_path / "v.wav", voice(2.0))
    done = cli_here("express", sound, "-o", disk / "a.jsonl", "--profile", "low")
    assert_one_line(done, f"cannot write {disk / 'a.jsonl'}: No space left on device; free some")
    assert list(disk.iterdir()) == []
