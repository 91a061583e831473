"""What a user gives in place of a local file, and how a path is shown."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from lipstream.engine.errors import MediaError

# `Path` makes one slash of two: "https:/host/a.mp4".
_ADDRESS: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/+(?P<rest>.+)", re.DOTALL)


def refuse_address(path: str | Path) -> None:
    """Refuse the address of something elsewhere. Raises: MediaError."""
    found = _ADDRESS.fullmatch(os.fspath(path))
    # A folder may be called "take:"; then it is meant.
    if found is not None and not Path(f"{found['scheme']}:").is_dir():
        address = f"{found['scheme']}://{found['rest']}"
        raise MediaError(f"{address}: is an address; expected a file on this machine: download it")


def libav_url(path: Path) -> str:
    """The file's name for FFmpeg, which takes "take:2.mp4" for something of a protocol "take"."""
    return f"file:{path}"


def as_text(name: str) -> str:
    """A file's name as text that any encoding takes: bytes that are not UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")
