"""Where a command writes: never onto what it reads; names of temporary files; the remedy for a
write error.
"""

from __future__ import annotations

import errno
import hashlib
import os
import unicodedata
from pathlib import Path
from typing import Final

from lipstream.engine.errors import UsageError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAX_CHARACTERS: Final = 40  # of a name that go into those of its temporary files
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


def refuse_to_overwrite(output: str | Path, *inputs: str | Path | None) -> None:
    """Refuse an output that is one of the inputs, lies in one, or is a folder that holds one.

    The same file by another name counts: through a link, a hard link, or in letters of another
    case, which many file systems take for one name. Inputs that are None are left out.

    Raises: UsageError.
    """
    for path in (Path(one) for one in inputs if one is not None):
        for applies, why in (
            (_same(Path(output), path), f"{path} is that file, and this command reads it"),
            (path.is_dir() and _within(output, path), f"it lies in {path}, which is read"),
            (_within(path, output), f"it holds {path}, which is read"),
        ):
            if applies:
                raise UsageError(f"cannot write {output}: {why}; choose another name")


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them does not exist yet, so only names can tell
        return _spelling(one) == _spelling(other)


def _within(path: str | Path, folder: str | Path) -> bool:
    """Whether `path` lies somewhere below `folder`, with all links followed."""
    return any(_same(parent, Path(folder)) for parent in Path(os.path.realpath(path)).parents)


def _spelling(path: Path) -> str:
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()


def temporary_prefix(name: str) -> str:
    """How the names of temporary files for this name begin, and for no other name."""
    if len(name) <= _MAX_CHARACTERS:
        return f".{name}."
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return f".{name[: _MAX_CHARACTERS - 9]}~{digest}."


def remedy(error: OSError) -> str:
    """What helps against this error of writing."""
    if error.errno in _FULL:
        return "free some space or choose another folder"
    if error.errno in _FORBIDDEN:
        return "choose a folder that you may write to"
    if error.errno == errno.ENAMETOOLONG:
        return "choose a shorter name"
    return "choose another name or folder"
