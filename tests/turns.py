"""Who may run beside whom, where several processes run the tests of one checkout."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ALONE = "alone"


@contextmanager
def _locked(place: Path, how: int) -> Iterator[None]:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Turns:
    """Tests of one kind run beside one another, those of ALONE beside nothing.

    `gate` and each of `kinds` is a file or a folder that is locked, whatever it holds.
    """

    gate: Path
    kinds: dict[str, Path]

    @contextmanager
    def take(self, kind: str) -> Iterator[None]:
        """Wait for a turn, and have it."""
        with ExitStack() as held:
            # Who waits for the others to end holds the gate, so that nobody begins meanwhile.
            with _locked(self.gate, fcntl.LOCK_EX), ExitStack() as passed:
                for other, place in self.kinds.items():
                    if kind == other:
                        held.enter_context(_locked(place, fcntl.LOCK_SH))
                    else:
                        stack = held if kind == ALONE else passed
                        stack.enter_context(_locked(place, fcntl.LOCK_EX))
            yield
