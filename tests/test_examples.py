"""The examples run, with the arguments of their docstrings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.streaming.fake_engine import FakeEngine
from tests.streaming.sound_files import dub, write_wav

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "arguments", "prints"),
    [
        ("dub_a_file.py", ("target", "speech", "out"), "25 frames at "),
        ("live_loop.py", ("target", "speech"), "25 frames, each 40 ms behind its sound"),
        ("lips_to_avatar.py", ("speech",), "  0.50 s"),
        ("contact_sheet.py", ("sheet", "video"), "1296x144 px, 1 rows"),
    ],
)
def test_example(
    tmp_path: Path, target: Path, name: str, arguments: tuple[str, ...], prints: str
) -> None:
    paths = {
        "target": target,
        "speech": write_wav(tmp_path / "speech.wav", np.zeros(16_000, np.float32)),
        "out": tmp_path / "out.mp4",
        "video": tmp_path / "video.mp4",
        "sheet": tmp_path / "sheet.png",
    }
    dub(FakeEngine(), paths["speech"], paths["video"])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *(str(paths[key]) for key in arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert prints in done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_without_arguments_an_example_shows_its_usage(path: Path) -> None:
    """Also where the framework that it needs is not installed."""
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert done.returncode in (1, 2)
    assert path.name in done.stderr and "Traceback" not in done.stderr


def test_the_pipecat_example_shows_a_sound_file(tmp_path: Path, target: Path) -> None:
    pytest.importorskip("pipecat", reason="no Pipecat: pip install 'lipstream[pipecat]'")
    path = write_wav(tmp_path / "speech.wav", np.zeros(16_000, np.float32))
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "pipecat_avatar.py"), str(target), str(path)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "pictures with 1.00 s of speech" in done.stdout


def test_the_livekit_example_names_the_variables_it_needs(target: Path) -> None:
    pytest.importorskip("livekit.agents", reason="no LiveKit: pip install 'lipstream[livekit]'")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "livekit_avatar.py"), str(target)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1 and "set LIVEKIT_URL" in done.stderr


def test_every_example_is_tested() -> None:
    tested = {
        "dub_a_file.py", "live_loop.py", "lips_to_avatar.py", "contact_sheet.py",
        "pipecat_avatar.py", "livekit_avatar.py",
    }  # fmt: skip
    assert {p.name for p in EXAMPLES.glob("*.py")} == tested
