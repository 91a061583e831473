"""Joining a Ray cluster as a driver, for batches and for calls."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any, Final

from lipstream.engine.errors import UsageError
from lipstream.engine.extras import require

NAMESPACE: Final = "lipstream"  # of our actors
_CONNECT_S: Final = 5.0


def connect(address: str, verbose: bool = False) -> Any:
    """The module `ray`, connected to a cluster; `shutdown()` leaves it. Ray reports nothing home.

    Args:
        address: auto, or HOST:PORT of the cluster's head.
        verbose: show what Ray says.

    Raises: UsageError without Ray, or where no cluster answers.
    """
    require("ray", "--ray")
    _require_listener(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its warning of a change
    import ray

    with _own_signals():
        try:
            ray.init(
                address=address,
                namespace=NAMESPACE,
                configure_logging=verbose,
                logging_level=logging.INFO,
                log_to_driver=verbose,
            )
        except Exception as error:  # Ray raises whatever comes first
            raise UsageError(
                f"--ray {address}: no cluster answers ({in_one_line(error)}); expected HOST:PORT "
                "of a head that `ray start --head` has started, or auto on one of its nodes"
            ) from error
    return ray


def in_one_line(error: BaseException) -> str:
    """The reason alone, of an error that Ray may have wrapped in a traceback."""
    cause = getattr(error, "cause", None) or error
    return str(cause).strip().split("\n")[-1] or type(cause).__name__


def _require_listener(address: str) -> None:
    """Ray itself asks for minutes where nobody listens."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise UsageError(f"--ray {address}: expected auto, or HOST:PORT of the cluster's head")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--ray {address}: no cluster answers ({error})") from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray sets a handler of SIGTERM that exits at once."""
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)
