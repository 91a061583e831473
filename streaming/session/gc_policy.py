"""When a process that holds conversations collects garbage, and when it returns memory.

A full collection holds the interpreter's lock while it visits every object: 60 to 80 ms once an
engine and its libraries are loaded, which is a gap in everybody's sound. The policy:

- `freeze` runs once a process, after its first engines are loaded and warm. It collects, and moves
  what is left out of reach of every later collection, automatic ones included. It does nothing
  while a conversation runs: it would be audible, and the live cycles of that conversation would
  never be freed. An engine loaded later stays within reach; it is 120 objects, 0.2 ms.
- `collect` runs when a conversation has ended. A closed call is a web of objects that refer to each
  other, about 1 MiB that only a full collection finds. While another conversation runs it only
  trims; the next one that ends alone collects for both.
- `trim` returns free memory to the system and may run at any time. glibc keeps freed memory in the
  arena of the thread that freed it; left alone, a server holds 60 MiB more after fifty calls.

`SessionRunner` and the worker processes mark a running conversation by `conversation`.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

_M_ARENA_MAX: Final = -8  # of mallopt, malloc.h
_ARENAS: Final = 2


class _Process:
    """What is true of this process; there is one garbage collector in it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.conversations = 0
        self.frozen = False


_PROCESS: Final = _Process()


@cache
def _libc(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # not glibc
        return lambda *_: 0


def few_arenas() -> None:
    """Two heaps for all threads (glibc only); before the threads begin.

    The interpreter's lock keeps most threads apart anyway. A dozen calls hold 131 to 136 MiB with
    two heaps and 147 to 156 MiB with glibc's own number, and frames are as timely.
    """
    _libc("mallopt")(_M_ARENA_MAX, _ARENAS)


@contextmanager
def conversation() -> Iterator[None]:
    """While it is open, a conversation runs in this process."""
    with _PROCESS.lock:
        _PROCESS.conversations += 1
    try:
        yield
    finally:
        with _PROCESS.lock:
            _PROCESS.conversations -= 1


def freeze() -> bool:
    """Exempt what is loaded from every later collection: once a process, before conversations.

    Returns:
        whether it was done now.
    """
    with _PROCESS.lock:
        if _PROCESS.frozen or _PROCESS.conversations:
            return False
        _PROCESS.frozen = True
    gc.collect()
    gc.freeze()
    return True


def collect() -> None:
    """Free what an ended conversation held; without the collection while another one runs."""
    with _PROCESS.lock:
        alone = not _PROCESS.conversations
    if alone:
        gc.collect()
    trim()


def trim() -> None:
    """Return free memory to the system (glibc only); in any thread, without Python's lock."""
    _libc("malloc_trim")(0)
