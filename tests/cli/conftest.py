"""A command line to call."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]
# A shell's background job is started with Ctrl-C ignored, and so are its children: undo that.
STOPPABLE = ("env", "--default-signal=INT")


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
