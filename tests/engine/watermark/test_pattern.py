"""The pattern of a mark."""

from __future__ import annotations

import os
import subprocess
import sys

_PRINT_HASHES = """
import hashlib
from lipstream.engine.watermark.pattern import plane
for session in (1, 2**31, 2**32 - 1):
    print(hashlib.sha256(plane(session, 512, 512)).hexdigest())
"""


def test_a_pattern_does_not_depend_on_how_many_threads_add_it_up() -> None:
    """Nodes of a cluster set numbers of their own, and make the same files."""
    said = {
        subprocess.run(
            [sys.executable, "-c", _PRINT_HASHES],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(said) == 1
    assert len(said.pop().split()) == 3
