"""What a user gives in place of a local file, and how a path is shown."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lipstream.engine.errors import MediaError

if TYPE_CHECKING:
    from av.container import InputContainer

_REFERRING: Final = frozenset(
    {"concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "vobsub"}
    | {"webm_dash_manifest"}
)
# `Path` makes one slash of two: "https:/host/a.mp4".
_ADDRESS: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/+(?P<rest>.+)", re.DOTALL)


def cache_folder() -> Path:
    """Where what can be fetched again is kept: $XDG_CACHE_HOME/lipstream, or ~/.cache/lipstream."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lipstream"


def refuse_address(path: str | Path) -> None:
    """Refuse the address of something elsewhere. Raises: MediaError."""
    found = _ADDRESS.fullmatch(os.fspath(path))
    # A folder may be called "take:"; then it is meant.
    if found is not None and not Path(f"{found['scheme']}:").is_dir():
        address = f"{found['scheme']}://{found['rest']}"
        raise MediaError(f"{address}: is an address; expected a file on this machine: download it")


def refuse_pipe(path: Path) -> None:
    """Refuse what is neither a file nor a folder: it cannot be read twice, and perhaps never ends.

    Raises: MediaError.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise MediaError(f"{path}: is a pipe or a device; write it to a file first")


def libav_url(path: Path) -> str:
    """The file's name for FFmpeg, which takes "take:2.mp4" for something of a protocol "take"."""
    return f"file:{path}"


def open_with_libav(path: Path) -> InputContainer:
    """Open a media file of this machine, and no other: playlists and descriptions of streams are
    not read, since FFmpeg would fetch what they name and wait for it. Tags need not be UTF-8.

    Raises: what PyAV raises.
    """
    import av

    options = {"protocol_whitelist": "file", "format_whitelist": _formats()}
    return av.open(libav_url(path), "r", container_options=options, metadata_errors="replace")


@cache
def _formats() -> str:
    """FFmpeg's kinds of files, less those that name other files, streams or devices."""
    import av

    return ",".join(sorted(av.formats_available - _REFERRING))


def as_text(name: str) -> str:
    """A file's name as text that any encoding takes: bytes that are not UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")
