"""A process that is ended, with all that it has started, when its time is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_END_S: Final = 2.0  # for ending by itself


def run_limited(
    command: Sequence[str], limit_s: float, log: Path, environment: Mapping[str, str] | None = None
) -> int | None:
    """Its exit status, or None if it was ended; what it says goes to `log`.

    SIGTERM ends it too, and then this process.
    """
    with log.open("wb") as output, _sigterm_exits():
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            return child.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if child.poll() is None:
                _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """With its group; what it limits itself, in a group of its own, it ends at SIGTERM."""
    os.killpg(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_END_S)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@contextmanager
def _sigterm_exits() -> Iterator[None]:
    """As an exception, so that blocks are left in order; where signals come, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    status = 128 + signal.SIGTERM
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(status))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
