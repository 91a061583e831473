"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lipstream.engine.errors import MediaError


class PartialFile:
    """A temporary name beside `path` that becomes `path` on `commit`, and else vanishes.

    Made at once, so that a folder that cannot be written to is known before any work is done.

        with PartialFile("out.mp4") as part:
            write(part.temporary)
            part.commit()

    Raises:
        MediaError: the folder is missing or cannot be written to, or `path` is a folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        folder = self.path.parent
        if self.path.is_dir():
            raise MediaError(f"cannot write {self.path}: it is a folder; name a file in it")
        if not folder.is_dir():
            raise MediaError(
                f"cannot write {self.path}: there is no folder {folder}; make it first"
            )
        try:
            handle, name = tempfile.mkstemp(
                prefix=f".{self.path.name[:100]}.", suffix=".part", dir=folder
            )
        except OSError as error:
            raise write_error(self.path, error) from error
        os.close(handle)
        self.temporary = Path(name)

    def commit(self) -> None:
        """Give the file its name, replacing what had it."""
        try:
            # mkstemp makes files private; a result gets the mode of any other new file.
            mask = os.umask(0)
            os.umask(mask)
            self.temporary.chmod(0o666 & ~mask)
            self.temporary.replace(self.path)
        except OSError as error:
            raise write_error(self.path, error) from error

    def discard(self) -> None:
        """Remove the temporary file; nothing happens after `commit`."""
        self.temporary.unlink(missing_ok=True)

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave nothing half-written behind."""
        self.discard()


def write_error(path: Path, error: OSError) -> MediaError:
    """What the system said about writing `path`, in one line."""
    why = os.strerror(error.errno) if error.errno else str(error)
    return MediaError(f"cannot write {path}: {why}; free some space or choose another folder")
