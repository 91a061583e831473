"""The output of the command line, kept apart from what libraries write to the same streams."""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

_LEVEL_WORDS = {logging.WARNING: "warning: ", logging.ERROR: "error: "}


class ReaderGone(Exception):
    """The reader of standard output has seen enough (`lipstream express … | head`)."""


class Console:
    """The two streams of a command: results on `out`, everything else on `err`."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self.out = out
        self.err = err

    def result(self, values: dict[str, Any], as_json: bool, sentence: str) -> None:
        """The result of a command: a JSON object, or a sentence for people."""
        self.lines([json.dumps(values, default=_plain, allow_nan=False) if as_json else sentence])

    def lines(self, lines: Iterable[str]) -> None:
        """Write lines on `out`. Raises: ReaderGone, and the rest is then not asked for."""
        for line in itertools.chain(lines, [None]):
            try:
                if line is None:
                    self.out.flush()
                else:
                    self.out.write(line + "\n")
            except BrokenPipeError:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.out.fileno())  # where the rest of the buffer goes
                os.close(nowhere)
                raise ReaderGone from None

    def note(self, line: str) -> None:
        """One line on standard error."""
        self.err.write(f"lipstream: {line}\n")
        self.err.flush()

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[str, float], None] | None]:
        """A function of (current step, share done) that draws a bar; None without a terminal.

        what: the first step, shown at once, while libraries and models are loaded.
        """
        if not self.err.isatty():
            yield None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        with Progress(*columns, console=RichConsole(file=self.err), transient=True) as bar:
            task = bar.add_task(what, total=1.0)

            def advance(what: str, share: float) -> None:
                bar.update(task, description=what, completed=share)

            yield advance


@contextmanager
def own_console(verbose: bool) -> Iterator[Console]:
    """Reserve standard output and standard error for the command while the block runs.

    libav, MediaPipe and OpenVINO write to the file descriptors 1 and 2 from C. These point to
    /dev/null meanwhile, or with `verbose` to standard error.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with ExitStack() as descriptors:

        def owned(descriptor: int) -> int:
            descriptors.callback(os.close, descriptor)
            return descriptor

        kept_out, kept_err = owned(os.dup(1)), owned(os.dup(2))
        noise = owned(os.dup(2) if verbose else os.open(os.devnull, os.O_WRONLY))
        with (
            # A file's name may hold bytes that are not UTF-8: they are written as they are.
            os.fdopen(kept_out, "w", -1, "utf-8", "surrogateescape", closefd=False) as out,
            os.fdopen(kept_err, "w", -1, "utf-8", "surrogateescape", closefd=False) as err,
            _logging_to(err, verbose),
        ):
            try:
                os.dup2(noise, 1)
                os.dup2(noise, 2)
                yield Console(out, err)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os.dup2(kept_out, 1)
                os.dup2(kept_err, 2)


@contextmanager
def _logging_to(stream: TextIO, verbose: bool) -> Iterator[None]:
    handler = logging.StreamHandler(stream)
    from lipstream.streaming.trace import TraceFilter

    handler.addFilter(TraceFilter())
    handler.setFormatter(_Lines())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    logging.captureWarnings(True)
    if verbose:
        root.setLevel(logging.INFO)
    else:
        # Warnings of lipstream; those of libraries need -v.
        handler.addFilter(lambda record: record.name.startswith("lipstream"))
        root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        logging.captureWarnings(False)


class _Lines(logging.Formatter):
    """`lipstream: warning: message (field=value)`."""

    _STANDARD = frozenset(vars(logging.makeLogRecord({})))

    def format(self, record: logging.LogRecord) -> str:
        fields = {k: v for k, v in vars(record).items() if k not in self._STANDARD}
        values = ", ".join(f"{k}={v}" for k, v in fields.items() if k not in ("message", "asctime"))
        line = f"lipstream: {_LEVEL_WORDS.get(record.levelno, '')}{record.getMessage()}"
        return f"{line} ({values})" if values else line


def as_json_reads(values: dict[str, Any]) -> dict[str, Any]:
    """The values as who reads `--json` gets them."""
    plain: dict[str, Any] = json.loads(json.dumps(values, default=_plain, allow_nan=False))
    return plain


def _plain(value: object) -> object:
    """NumPy scalars and arrays, paths and fractions as JSON types."""
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    if isinstance(value, Path):
        return str(value)
    return float(value)  # type: ignore[arg-type]
