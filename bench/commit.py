"""Which commit is measured."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def commit() -> str | None:
    """Of the checkout that this runs from, "+" if it was changed; else what LIPSTREAM_COMMIT says,
    as of a kit that was copied; None for an installed wheel."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).resolve().parent, capture_output=True, text=True, timeout=10,
            check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        found = ""
    return found or os.environ.get("LIPSTREAM_COMMIT")
