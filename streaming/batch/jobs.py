"""A job of a batch, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Job:
    """One item: what a command is called with. Paths are absolute."""

    number: int  # from 0, in the order of the manifest
    command: str
    output: str
    options: dict[str, Any]  # by the names of the command's options, `output` left out
    version: str  # of lipstream: every machine must have the same


@dataclass(frozen=True, slots=True)
class Done:
    """The output is there."""

    report: dict[str, Any]  # of the command's `--json`
    sha256: str  # of the output as it lies there, its signature included
    content_sha256: str  # of what two runs have in common, see `lipstream.batch_work`
    notes: tuple[str, ...] = ()  # warnings


@dataclass(frozen=True, slots=True)
class Failed:
    """No output was made."""

    reason: str  # one line
    again: bool  # whether another attempt may end otherwise


Outcome: TypeAlias = Done | Failed
Perform: TypeAlias = Callable[[Job], Outcome]  # of a module: workers import it by its name


class Executor(Protocol):
    """Where jobs are performed."""

    @property
    def room(self) -> int:
        """How many more jobs it takes now."""
        ...

    def submit(self, job: Job) -> None:
        """Hand in a job; there must be room."""
        ...

    def wait(self, timeout_s: float) -> list[tuple[Job, Outcome]]:
        """What has ended; waits for the first, at most `timeout_s`.

        A worker that was lost is a `Failed` that may be tried again.
        """
        ...

    def close(self) -> None:
        """Stop what still runs, its incomplete files removed, and let all workers go."""
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended."""

    job: Job
    outcome: Outcome | None  # None: skipped, since its output was there
    attempts: int

    @property
    def state(self) -> str:
        """done, skipped or failed."""
        if self.outcome is None:
            return "skipped"
        return "done" if isinstance(self.outcome, Done) else "failed"

    def as_json(self) -> dict[str, Any]:
        """A line of `--json`."""
        line = {"item": self.job.number, "output": self.job.output, "state": self.state}
        if isinstance(self.outcome, Done):
            line |= {"sha256": self.outcome.sha256, "content_sha256": self.outcome.content_sha256}
            line["report"] = self.outcome.report
        elif self.outcome is not None:
            line["reason"] = self.outcome.reason
        return line | {"attempts": self.attempts}


@dataclass(slots=True)
class Summary:
    """Of a whole batch."""

    results: list[Result] = field(default_factory=list)

    def count(self, state: str) -> int:
        """Of results in a state."""
        return sum(result.state == state for result in self.results)

    @property
    def failed(self) -> list[Result]:
        """In the order of the manifest."""
        found = (result for result in self.results if result.state == "failed")
        return sorted(found, key=lambda result: result.job.number)


def folder_of(job: Job) -> Path:
    """Where its output lies."""
    return Path(job.output).parent
