"""Who uses a fetched bundle, and which is removed when all together are too large.

KEY.fetch           locked while it is fetched, so that two processes fetch it once
KEY.use             locked by all that use it, changed when one begins to
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from lipstream.engine.errors import UsageError

_DEFAULT_MB: Final = 8192
_ABANDONED_S: Final = 86_400.0  # after which a fetch that never ended is removed

_in_use: dict[Path, IO[bytes]] = {}  # locked for as long as this process lives


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among all processes while the block runs; waits for its turn."""
    with path.open("ab") as file:
        _lock(file)
        yield


def _lock(file: IO[bytes], shared: bool = False, wait: bool = True) -> bool:
    """False where another process holds it. Windows has no such locks: nothing is removed there."""
    try:
        import fcntl
    except ImportError:
        return wait
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        return False
    return True


def use(path: Path) -> None:
    """Keep a bundle from being removed for as long as this process lives."""
    if path not in _in_use:
        file = path.open("ab")
        _lock(file, shared=True)
        _in_use[path] = file
    os.utime(path)


def limit_bytes() -> int:
    """What all together may take. Raises: UsageError for a setting that is no number."""
    text = os.environ.get("LIPSTREAM_CACHE_MB", "")
    if text and not text.isdecimal():
        raise UsageError(f"LIPSTREAM_CACHE_MB is {text!r}; expected a number of megabytes")
    return (int(text) if text else _DEFAULT_MB) << 20


def make_room(folder: Path) -> None:
    """Remove what was used longest ago, until the rest fits."""
    entries = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process removes it
            if path.name.startswith("."):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir():
                used = path.with_name(f"{path.name}.use").stat().st_mtime
                entries.append((used, path, _bytes(path)))
    total, limit = sum(size for *_, size in entries), limit_bytes()
    for _, path, size in sorted(entries):
        if total <= limit:
            return
        if _remove(path):
            total -= size


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(entry: Path) -> bool:
    """Unless a process uses or fetches it."""
    fetch, use = (entry.with_name(f"{entry.name}.{kind}") for kind in ("fetch", "use"))
    with fetch.open("ab") as one, use.open("ab") as other:
        if use in _in_use or not _lock(one, wait=False) or not _lock(other, wait=False):
            return False
        shutil.rmtree(entry, ignore_errors=True)
    return True  # the two empty files stay: another process may hold them open
