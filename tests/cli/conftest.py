"""A command line to call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lipstream.cli import run

Cli = Callable[..., subprocess.CompletedProcess[str]]
# A shell's background job is started with Ctrl-C ignored, and so are its children: undo that.
STOPPABLE = ("env", "--default-signal=INT")


def stopped(
    arguments: Sequence[str | Path],
    under_way: Callable[[], bool],
    number: int = signal.SIGINT,
) -> subprocess.CompletedProcess[str]:
    """A command that gets a signal, Ctrl-C by default, once it is under way."""
    process = subprocess.Popen(
        [*STOPPABLE, sys.executable, "-m", "lipstream", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and process.poll() is None and not under_way():
        time.sleep(0.02)
    process.send_signal(number)
    with process:
        try:
            stdout, stderr = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()  # or it would go on during the next tests
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.fixture(scope="session")
def cli() -> Cli:
    """`cli("dub", …)`: the real process, so that exit codes and streams are the real ones."""

    def call(
        *arguments: str | Path, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lipstream", *map(str, arguments)],
            cwd=cwd,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call


@pytest.fixture
def cli_here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """As `cli`, in this process: for many wrong inputs, since libraries take seconds to import."""

    def call(
        *arguments: str | Path, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = [*map(str, arguments)]
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("default")
            for name, value in environment.items():
                patch.setenv(name, value)
            if cwd is not None:
                patch.chdir(cwd)
            capfd.readouterr()
            code = run(command)
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(command, code, out, err)

    return call
