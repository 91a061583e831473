"""Cached arrays on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def save_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays to a temporary name, which is renamed to `path` when it is complete."""
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, allow_pickle=False, **arrays)
    partial.rename(path)
