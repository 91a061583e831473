"""The trace id: one name for a conversation in the logs of every process that touches it.

Whoever works for a conversation says so by `begin` or `continue_with`; what is then logged by the
same task or thread, and by those that it starts, carries the id.
"""

from __future__ import annotations

import logging
import secrets
from contextvars import ContextVar
from typing import Final

HEADER: Final = "Lipstream-Trace"  # of every answer, so that a user can quote it

_current: ContextVar[str] = ContextVar("lipstream_trace", default="")


def begin() -> str:
    """A new id, for what this task or thread does from now on."""
    return continue_with(secrets.token_hex(8))


def continue_with(trace: str) -> str:
    """Go on under an id that was begun elsewhere; returns it."""
    _current.set(trace)
    return trace


def current() -> str:
    """The id of this task or thread; "" outside of any conversation."""
    return _current.get()


class TraceFilter(logging.Filter):
    """Gives each record the field `trace`, where there is one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true: no record is left out."""
        if trace := current():
            record.trace = trace
        return True


class TraceFormatter(logging.Formatter):
    """`2026-11-29 10:00:00,000 INFO [trace] message`, for processes without a console."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback of an exception."""
        trace = getattr(record, "trace", "")
        record.bracketed = f"[{trace}] " if trace else ""
        return super().format(record)


def log_to_stderr(level: int) -> None:
    """Where a process of ours has no console: lines on standard error, with the trace id."""
    handler = logging.StreamHandler()
    handler.addFilter(TraceFilter())
    handler.setFormatter(TraceFormatter("%(asctime)s %(levelname)s %(bracketed)s%(message)s"))
    ours = logging.getLogger("lipstream")
    ours.addHandler(handler)
    ours.setLevel(level)
    ours.propagate = False
