"""How much the proof does: all of it on a card, a sample of each on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lipstream.engine.networks.signatures import CROP_SHAPE


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the pictures, the batches and the repeats."""

    crop: tuple[int, int] = CROP_SHAPE
    batches: tuple[int, ...] = (1, 3, 64)  # of the kernels' checks; times are of the last
    rows: tuple[int, ...] = (1, 16, 64, 256)  # of networks and stage
    rounds: int = 21  # of a measured time
    launches: int = 24  # in each round
    calls: int = 200  # of the stage in a batch size
    sessions: int = 10_000
    at_once: int = 64  # of these sessions
    copy_bytes: int = 4 << 30  # what the largest copy reads
    side: int = 8192  # of the matrices that are multiplied


ON_CARD: Final = Sizes()
ON_HOST: Final = Sizes(
    (40, 48),
    (1, 3),
    (1, 3),
    rounds=1,
    launches=2,
    calls=3,
    sessions=24,
    at_once=4,
    copy_bytes=1 << 20,
    side=64,
)
# For a checker of memory, which makes everything slower by far.
CHECKED: Final = Sizes(
    (40, 48), (1, 3), (1, 3), rounds=2, launches=2, calls=3, sessions=64, at_once=4,
    copy_bytes=1 << 20, side=64,
)  # fmt: skip
