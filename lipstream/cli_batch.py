"""`--batch`, and folders in place of files: many items by one call of `dub` or `calibrate`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lipstream.engine.errors import UsageError

if TYPE_CHECKING:
    from lipstream.console import Console
    from lipstream.streaming.batch.jobs import Executor, Result, Summary

_Given = TypeVar("_Given", Path, str)

EXIT_SOME_FAILED = 1
VIDEO_ENDINGS = ".mp4 .mov .mkv .webm"

Batch = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.jsonl",
        help="A list of items: one JSON object a line, with input, output and options by name.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        help="Of a folder or list: how many items at once. Default: one for each core.", min=1
    ),
]
Retries = Annotated[
    int,
    typer.Option(help="Of a folder or list: further attempts if a worker process dies.", min=0),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Of a folder or list: run on the nodes of this Ray cluster; HOST:PORT or auto.",
    ),
]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Where the items come from and where they run."""

    batch: Path | None = None
    jobs: int | None = None
    retries: int = 2
    ray: str | None = None

    def refuse_for_one(self) -> None:
        """Of a single file. Raises: UsageError."""
        for name, value in (("--jobs", self.jobs), ("--ray", self.ray)):
            if value is not None:
                raise UsageError(f"{name} is for many items: give a folder, or --batch FILE.jsonl")


def is_many(options: BatchOptions, given: Path | None, output: Path | None, one: str) -> bool:
    """Whether a command is called for many items.

    A folder counts unless the output is named as a single one.

    one: endings of a single output's name.
    """
    if options.batch is not None:
        return True
    if given is None or not given.is_dir() or output is None:
        return False
    return output.suffix.lower() not in one.split()


def refuse_folder(given: Path, output: Path, usage: str) -> None:
    """Of the input of a single output: a folder of files, or the target in the sound's place.

    Raises: UsageError.
    """
    if (given / "target.json").is_file():
        raise UsageError(f"{given}: is a target; expected: lipstream {usage}")
    if given.is_dir():
        raise UsageError(
            f"{given}: is a folder, and {output} a single output; for all files of the folder, "
            "give -o a folder too"
        )


def required(value: _Given | None, what: str, command: str) -> _Given:
    """An argument that only a batch leaves out. Raises: UsageError."""
    if value is None:
        raise UsageError(f"Missing {what}. (see: lipstream {command} --help)")
    return value


def run_many(
    console: Console,
    command: str,
    paths: tuple[Path | None, Path | None],
    options: Mapping[str, Any],
    setting: BatchOptions,
    as_json: bool,
) -> None:
    """Run a batch, show it, and exit with 1 if an item failed.

    paths: a folder of inputs, and the folder of outputs.
    options: what items say nothing of.

    Raises: UsageError before anything is made.
    """
    from lipstream.batch_items import items_of_folder, items_of_manifest
    from lipstream.batch_work import KINDS, perform
    from lipstream.streaming.batch.journal import Journal
    from lipstream.streaming.batch.run import run_batch

    given, output = paths
    told = {name: value for name, value in options.items() if value is not None}
    if setting.batch is not None:
        if given is not None:
            raise UsageError(f"{given}: --batch names the inputs; leave this out")
        items = items_of_manifest(command, setting.batch, output, told)
    else:
        assert given is not None and output is not None
        items = items_of_folder(command, given, output, told)
    if items.left_out and not as_json:
        console.note(
            f"left out, since {command} does not read files of this kind: {_some(items.left_out)}"
        )
    began_s = time.monotonic()
    executor, journal = _executor(setting, len(items.jobs), perform), Journal(KINDS)
    try:
        with console.progress("starting") as progress:
            show = _Show(console, len(items.jobs), as_json, progress)
            summary = run_batch(items.jobs, executor, journal, setting.retries, show.result)
    finally:
        try:
            executor.close()
        finally:
            journal.stopped()
    show.summary(summary, time.monotonic() - began_s)
    if summary.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


@dataclass(slots=True)
class _Show:
    """Results as they come: a line of JSON each, or a bar on the terminal."""

    console: Console
    items: int
    as_json: bool
    progress: Callable[[str, float], None] | None
    ended: int = 0
    failed: int = 0

    def result(self, result: Result) -> None:
        """One item has ended."""
        self.ended += 1
        self.failed += result.state == "failed"
        if self.as_json:
            self.console.lines([json.dumps(result.as_json())])
        if self.progress is not None:
            failed = f", {self.failed} failed" if self.failed else ""
            self.progress(f"{self.ended} of {self.items}{failed}", self.ended / self.items)

    def summary(self, summary: Summary, seconds: float) -> None:
        """Of all items; the reason of each that failed."""
        counts = {state: summary.count(state) for state in ("done", "skipped", "failed")}
        if not self.as_json:
            for note in dict.fromkeys(note for result in summary.results for note in notes(result)):
                self.console.note(note)
            for result in summary.failed:
                reason = getattr(result.outcome, "reason", "")
                self.console.note(f"failed: {result.job.output}: {reason}")
        values = {"items": self.items, **counts, "seconds": round(seconds, 3)}
        sentence = (
            f"{self.items} items in {seconds:.1f} s: {counts['done']} done, "
            f"{counts['skipped']} skipped (their outputs are there), {counts['failed']} failed"
        )
        self.console.result(values, self.as_json, sentence)


def notes(result: Result) -> tuple[str, ...]:
    """Warnings of an item."""
    return getattr(result.outcome, "notes", ())


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _executor(setting: BatchOptions, count: int, perform: Any) -> Executor:
    if setting.ray is not None:
        if setting.jobs is not None:
            raise UsageError("--jobs is for this machine; with --ray the cluster's cores decide")
        from lipstream.streaming.cluster.batch import RayExecutor

        return RayExecutor(perform, setting.ray)
    from lipstream.engine.cores import usable_cores
    from lipstream.streaming.batch.local import LocalExecutor

    return LocalExecutor(perform, min(setting.jobs or usable_cores(), count))
