"""Runs cases in a process of their own, so that one that crashes or hangs ends nothing else.

parent ── Job: a kind and its cases from one number to another ──► worker
       ◄─ the number of the case that runs, in shared memory
       ◄─ a Failure for each case that is none of: done, or refused by a LipstreamError
"""

from __future__ import annotations

import logging
import multiprocessing
import random
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from ctypes import c_int64
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

MOST_CPU_S: Final = 1.0  # of one case
MOST_WALL_S: Final = 60.0  # after which a case that takes no CPU time hangs
MOST_MEMORY_MIB: Final = 512  # above what the process held before its first case
_SPAWN: Final = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Job:
    """The cases `first` to `last` - 1 of a kind; each is a function of seed, kind and number."""

    kind: str
    seed: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that went wrong."""

    kind: str
    seed: int
    case: int
    what: str

    def __str__(self) -> str:
        again = f"python -m tests.fuzz --kind {self.kind} --seed {self.seed} --case {self.case}"
        return f"{self.what.rstrip()}\n    again: {again}"


@dataclass(slots=True)
class Outcome:
    """Of a job."""

    done: int = 0
    refused: int = 0  # by an error of ours
    worst_cpu_s: float = 0.0
    peak_mib: float = 0.0  # above what the process held before its first case
    failures: list[Failure] = field(default_factory=list)


def run_cases(job: Job, case_now: Any, place: str) -> Iterator[Outcome]:
    """In this process; yields what came out, once, and a new one after each failure."""
    from lipstream.engine.errors import LipstreamError
    from tests.fuzz.kinds import KINDS

    with tempfile.TemporaryDirectory(dir=place) as folder:
        run = KINDS[job.kind].prepare(Path(folder))
        before_mib = _peak_mib()
        outcome = Outcome()
        for case in range(job.first, job.last):
            case_now.value = case
            rng = random.Random(f"{job.kind} {job.seed} {case}")
            what, began_s = "", time.process_time()
            try:
                run(rng)
                outcome.done += 1
            except LipstreamError as error:
                outcome.refused += 1
                if "\n" in str(error):
                    what = f"a message of several lines: {error}"
            except Exception:
                what = traceback.format_exc(limit=-6)
            cpu_s = time.process_time() - began_s
            outcome.worst_cpu_s = max(outcome.worst_cpu_s, cpu_s)
            outcome.peak_mib = max(outcome.peak_mib, _peak_mib() - before_mib)
            if cpu_s > MOST_CPU_S:
                what += f"took {cpu_s:.1f} s of CPU time, expected {MOST_CPU_S:g} at most"
            if outcome.peak_mib > MOST_MEMORY_MIB:
                what += f"took {outcome.peak_mib:.0f} MiB, expected {MOST_MEMORY_MIB} at most"
                before_mib = _peak_mib()
            if what:
                outcome.failures.append(Failure(job.kind, job.seed, case, what))
                yield outcome
                outcome = Outcome()
        yield outcome


def _shared_memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _peak_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def _serve(connection: Connection, case_now: Any, place: str) -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    while (job := connection.recv()) is not None:
        for outcome in run_cases(job, case_now, place):
            connection.send(outcome)
        connection.send(None)


class Worker:
    """A process for one job at a time, made anew where a case ends it."""

    def __init__(self) -> None:
        self._case_now = _SPAWN.Value(c_int64, -1, lock=False)
        # Ours, since a process that crashes removes nothing.
        self._place = tempfile.TemporaryDirectory(prefix="lipstream-fuzz-", dir=_shared_memory())
        self._start()

    def _start(self) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=_serve,
            args=(theirs, self._case_now, self._place.name),
            daemon=True,
            name="fuzz",
        )
        self._process.start()
        theirs.close()

    def run(self, job: Job) -> Iterator[Outcome]:
        """Outcomes of a job, and of what is left of it after a case that ended the process."""
        first: int | None = job.first
        while first is not None and first < job.last:
            self._case_now.value = -1
            self._connection.send(Job(job.kind, job.seed, first, job.last))
            first = yield from self._outcomes(job)

    def _outcomes(self, job: Job) -> Any:
        """Returns the case to go on with, or None when all are done."""
        case, since_s = -1, time.monotonic()
        while True:
            try:
                if self._connection.poll(0.5):
                    outcome = self._connection.recv()
                    if outcome is None:
                        return None
                    yield outcome
                    continue
            except (EOFError, OSError):
                self._process.join()
                what = f"ended the process, exit code {self._process.exitcode}"
                break
            if case != (case := self._case_now.value):
                since_s = time.monotonic()
            elif time.monotonic() - since_s > MOST_WALL_S:
                self._process.kill()
                what = f"hangs: nothing for {MOST_WALL_S:g} s"
                break
        case = self._case_now.value
        if case < 0:
            raise RuntimeError(f"{job.kind} cannot be prepared: the process {what}")
        self._start()
        yield Outcome(failures=[Failure(job.kind, job.seed, case, what)])
        return max(case, job.first) + 1

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._place.cleanup()
