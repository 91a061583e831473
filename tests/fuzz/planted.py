"""Cases that go wrong on purpose: the command must find them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from lipstream.engine.errors import UsageError


def planted(folder: Path) -> Callable[[random.Random], None]:
    """Cases 2 to 6 go wrong, each in a way of its own."""
    numbers = iter(range(100))

    def case(rng: random.Random) -> None:
        number = next(numbers)
        if number == 1:
            raise UsageError("refused, as it should be")
        if number == 2:
            raise KeyError("no error of ours")
        if number == 3:
            began_s = time.process_time()
            while time.process_time() - began_s < 1.2:
                pass
        if number == 4:
            bytearray(os.urandom(1)) * (600 << 20)
        if number == 5:
            raise UsageError("one line\nand another")
        if number == 6:
            os.abort()

    return case
