"""Atomic writes: a file appears whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Final

from lipstream.engine.errors import MediaError
from lipstream.engine.output_paths import remedy, temporary_prefix
from lipstream.engine.paths import refuse_address

_SUFFIX: Final = ".part"
# What mkstemp puts between, and what the signing of a file appends; see `provenance`.
_RANDOM: Final = r"[a-z0-9_]{8}\.part(\.c2pa)?"


class PartialFile:
    """A temporary file beside `path` that `commit` renames to `path`; without it, it is removed.

    A link is followed: the file that it leads to is replaced, and the link stays.

    It is created at once, so that a folder that is not writable is known before any work is done.

        with PartialFile("out.mp4") as part:
            write(part.temporary)
            part.commit()

    Raises:
        MediaError: the folder is missing or cannot be written to, or `path` is a folder or a
            device.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._destination = Path(os.path.realpath(self.path))
        folder = self._destination.parent
        try:
            _refuse_folders_and_devices(self.path, folder)
            prefix = temporary_prefix(self.path.name)
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=_SUFFIX, dir=folder)
        except OSError as error:
            raise write_error(self.path, error) from error
        os.close(handle)
        self.temporary = Path(name)

    def commit(self) -> None:
        """Rename the file to `path`, replacing a file that is there."""
        try:
            # mkstemp makes files private; this is the mode of any other new file.
            mask = os.umask(0)
            os.umask(mask)
            self.temporary.chmod(0o666 & ~mask)
            self.temporary.replace(self._destination)
        except OSError as error:
            raise write_error(self.path, error) from error

    def discard(self) -> None:
        """Remove the temporary file; nothing happens after `commit`."""
        self.temporary.unlink(missing_ok=True)

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the temporary file, unless it was committed."""
        self.discard()


def remove_leftovers(path: Path) -> None:
    """Remove what a killed process has left of `path`; nothing else may be writing it.

    Raises: OSError.
    """
    destination = Path(os.path.realpath(path))
    prefix = temporary_prefix(path.name)
    for found in destination.parent.iterdir() if destination.parent.is_dir() else ():
        name = found.name
        if name.startswith(prefix) and re.fullmatch(_RANDOM, name[len(prefix) :]):
            found.unlink(missing_ok=True)


def _refuse_folders_and_devices(path: Path, folder: Path) -> None:
    if path.is_dir():
        raise MediaError(f"cannot write {path}: it is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise MediaError(f"cannot write {path}: it is not a file; choose another name")
    if not folder.is_dir():
        refuse_address(path)
        raise MediaError(f"cannot write {path}: there is no folder {path.parent}; make it first")


def write_error(path: Path, error: OSError) -> MediaError:
    """A system error in writing `path`, as one line."""
    why = os.strerror(error.errno) if error.errno else str(error)
    return MediaError(f"cannot write {path}: {why}; {remedy(error)}")
