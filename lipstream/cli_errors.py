"""An error becomes one line on standard error, and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lipstream.console import ReaderGone
from lipstream.engine.errors import LipstreamError

if TYPE_CHECKING:
    from types import FrameType

EXIT_BAD_INPUT = 2
EXIT_BUG = 70  # sysexits.h: internal software error
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM


def run_app(app: Callable[..., object], arguments: Sequence[str]) -> int:
    """Run one command of a typer app; its exit code."""
    verbose = "-v" in arguments or "--verbose" in arguments
    stopping: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        stopping.append(number)
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        code = app(list(arguments), prog_name="lipstream", standalone_mode=False)
        if code == EXIT_INTERRUPTED:  # typer turns KeyboardInterrupt into this code
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except LipstreamError as error:
        return _fail(str(error), EXIT_BAD_INPUT, verbose)
    except KeyboardInterrupt:
        return _fail("stopped" + _left_over(arguments), EXIT_INTERRUPTED, False)
    except _Terminated:
        return _fail("terminated" + _left_over(arguments), EXIT_TERMINATED, False)
    except ReaderGone:
        return 0
    except MemoryError:
        return _fail("out of memory; use shorter or smaller footage", EXIT_BAD_INPUT, verbose)
    except OSError as error:
        return _fail(_system_message(error), EXIT_BAD_INPUT, verbose)
    except ImportError as error:
        return _fail(_import_message(error), EXIT_BAD_INPUT, verbose)
    except Exception as error:
        # ctypes makes its own error of an exception in the middle of a call.
        if stopping:
            return _fail("terminated" + _left_over(arguments), EXIT_TERMINATED, False)
        if type(error).__name__ == "ArgumentError" and "KeyboardInterrupt" in str(error):
            return _fail("stopped" + _left_over(arguments), EXIT_INTERRUPTED, False)
        if hasattr(error, "format_message"):  # typer: a wrong option or argument
            return _wrong_usage(error)
        kind = type(error).__name__
        line = f"internal error, please report it: {kind}: {_one_line(str(error))}"
        return _fail(line + ("" if verbose else " (-v shows where)"), EXIT_BUG, verbose)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _wrong_usage(error: Any) -> int:
    message: str = error.format_message()
    if message.startswith("Usage:"):  # no arguments: typer raises its help as an error
        sys.stdout.write(message + "\n")
        return 0
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "lipstream"
    return _fail(f"{message} (see: {command} --help)", EXIT_BAD_INPUT, False)


class _Terminated(BaseException):
    """SIGTERM as an exception, so that context managers remove incomplete files."""


def _fail(line: str, code: int, traceback: bool) -> int:
    if traceback:
        import traceback as tracebacks

        tracebacks.print_exc()
    with contextlib.suppress(OSError):
        sys.stderr.write(f"lipstream: {_one_line(line)}\n")
        sys.stderr.flush()
    return code


def _left_over(arguments: Sequence[str]) -> str:
    """What a command that writes files leaves when it is stopped."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    writes = command in {"demo", "calibrate", "dub", "assets", "bench", "train"} or (
        command == "express" and any(word.startswith(("-o", "--output")) for word in arguments)
    )
    return "; no incomplete file is left" if writes else ""


def _import_message(error: ImportError | OSError) -> str:
    """What is missing, a Python package or a library of the system, and how to install it."""
    from lipstream.calibration.tracking.system_libraries import missing_packages
    from lipstream.engine.extras import extra_of, pip_install

    extra = extra_of(error.name or "") if isinstance(error, ModuleNotFoundError) else None
    if extra is not None:
        return f"{error}; this command needs it: {pip_install(extra)}"
    packages = missing_packages() if ".so" in str(error) else []
    if packages:
        return f"{error}; on Debian: apt-get install {' '.join(packages)}"
    return f"{error}; this command needs it: lipstream doctor shows how to install it"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _system_message(error: OSError) -> str:
    if error.errno is None and ".so" in str(error):  # a library that does not load
        return _import_message(error)
    why = os.strerror(error.errno) if error.errno else str(error)
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        why += "; free some space or choose another folder"
    return f"{where}{why}"
