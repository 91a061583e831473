"""The kinds of cases, and how many of each a run has."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

Case = Callable[[random.Random], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """`module.function(folder)` prepares what the cases change, and returns what runs one."""

    function: str
    module: str
    quick: int  # of 10 000 cases
    full: int  # of 1 000 000 cases: the dear kinds take a smaller part

    def prepare(self, folder: Path) -> Case:
        """In the process that runs the cases."""
        module = importlib.import_module(self.module)
        return cast(Case, getattr(module, self.function)(folder))


KINDS: Final = {
    kind.function: kind
    for kind in (
        Kind("socket", "tests.fuzz.messages", 3800, 480_000),
        Kind("offers", "tests.fuzz.messages", 3000, 300_000),
        Kind("calls", "tests.fuzz.messages", 100, 1_000),
        Kind("descriptions", "tests.fuzz.bundles", 700, 120_000),
        Kind("loading", "tests.fuzz.bundles", 700, 30_000),
        Kind("speaking", "tests.fuzz.bundles", 100, 1_000),
        Kind("sounds", "tests.fuzz.media", 800, 40_000),
        Kind("videos", "tests.fuzz.media", 200, 4_000),
        Kind("photos", "tests.fuzz.media", 600, 24_000),
        Kind("planted", "tests.fuzz.planted", 0, 0),  # for the test of the command itself
    )
}


def cases_of(total: int) -> dict[str, int]:
    """How many of `total` cases each kind has: as in a quick run, or as in a full one."""
    full = total > 100_000
    shares = {name: kind.full if full else kind.quick for name, kind in KINDS.items()}
    whole = sum(shares.values())
    counts = {name: total * share // whole for name, share in shares.items()}
    counts[next(iter(counts))] += total - sum(counts.values())
    return counts
