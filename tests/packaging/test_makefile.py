"""`make demo` and `make test` after something went wrong: nothing half made is taken for done."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAMPS = (".made", ".base", ".dev")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the rules for the environment look at."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".ci").mkdir()
    script(tmp_path / ".ci" / "system-packages", "exit 0")
    for name in ("pyproject.toml", "setup.py", "constraints.txt"):
        (tmp_path / name).touch()
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "build.py").touch()
    return tmp_path


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True)


def test_half_an_environment_is_made_anew(checkout: Path) -> None:
    """Debian's python3 without python3-venv leaves an environment that has no pip."""
    python = ".venv/bin/python"
    half = f"mkdir -p .venv/bin; printf '#!/bin/sh\\nexit 1' > {python}; chmod +x {python}"
    without = script(checkout / "without-venv", f"{half}; exit 1")
    failed = make(checkout, ".venv/.made", f"PYTHON={without}")
    assert failed.returncode != 0
    assert not (checkout / ".venv").exists()

    subprocess.run(["sh", "-c", half], cwd=checkout, check=True)  # or by hand, without make
    whole = half.replace("exit 1", "exit 0")
    made = make(checkout, ".venv/.made", f"PYTHON={script(checkout / 'with-venv', whole)}")
    assert made.returncode == 0, made.stderr
    assert subprocess.run([checkout / python]).returncode == 0


def test_a_failed_download_of_the_landmarker_is_tried_again(checkout: Path) -> None:
    """With everything stamped as installed, the second run asks for it once more."""
    for name in STAMPS:
        stamp = checkout / ".venv" / name
        stamp.parent.mkdir(exist_ok=True)
        stamp.touch()
    script(checkout / ".venv/bin/lipstream", 'echo "$@" >> asked; exit 1')
    script(checkout / ".venv/bin/python", 'echo "$@" >> asked')
    for _ in range(2):
        done = make(checkout, "test")
        assert done.returncode == 0, done.stderr
        assert "the face landmarker is missing" in done.stderr
    asked = (checkout / "asked").read_text().splitlines()
    assert asked[::2] == ["assets fetch"] * 2
    assert all(line.startswith("-m pytest") for line in asked[1::2])
    assert len(asked) == 4


def test_sizes_and_time_are_named_before_the_wait(checkout: Path) -> None:
    shown = make(checkout, "--dry-run", "demo").stdout
    before, pip, _ = shown.partition("-m pip --disable-pip-version-check install")
    assert pip and "MB" in before and "minute" in before
    assert "--quiet" not in shown
    assert "'.[calibrate]'" in shown
