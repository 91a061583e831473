"""Worker processes: results, deaths, and the end of a batch in the middle of its jobs."""

from __future__ import annotations

import contextlib
import multiprocessing.spawn
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lipstream.streaming.batch.jobs import Done, Failed, Job, Outcome
from lipstream.streaming.batch.local import LocalExecutor

FALSE = os.fsencode(shutil.which("false") or "")  # a program that ends at once


def perform(job: Job) -> Outcome:
    """Does what the job's only option says; in a worker."""
    what, output = job.options["do"], Path(job.output)
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        try:
            output.write_text(str(os.getpid()))
            time.sleep(60)
        finally:
            output.unlink()
    return Done({"pid": os.getpid()}, "sha", "content")


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    made = LocalExecutor(perform, 2)
    with contextlib.closing(made):
        yield made


def job(number: int, what: str, folder: Path) -> Job:
    return Job(number, "dub", str(folder / f"{number}.mp4"), {"do": what}, "1")


def all_of(executor: LocalExecutor, count: int) -> dict[int, Outcome]:
    found: dict[int, Outcome] = {}
    deadline_s = time.monotonic() + 60
    while len(found) < count:
        assert time.monotonic() < deadline_s
        found |= {job.number: outcome for job, outcome in executor.wait(0.5)}
    return found


def test_processes_are_reused_and_a_death_takes_nothing_else_along(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    assert executor.room == 2
    executor.submit(job(0, "work", tmp_path))
    executor.submit(job(1, "die", tmp_path))
    assert executor.room == 0
    first = all_of(executor, 2)
    assert isinstance(first[0], Done)
    assert first[1] == Failed(
        "its worker process was killed, perhaps for want of memory", again=True
    )
    executor.submit(job(2, "work", tmp_path))
    second = all_of(executor, 1)[2]
    assert isinstance(second, Done) and second.report == first[0].report  # the same process
    os.kill(second.report["pid"], signal.SIGKILL)  # while it is idle
    executor.submit(job(3, "work", tmp_path))
    third = all_of(executor, 1)[3]
    assert isinstance(third, Failed) or third.report != second.report


def test_close_stops_what_runs_and_its_files_are_removed(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    executor.submit(job(0, "hang", tmp_path))
    deadline_s = time.monotonic() + 60
    while not (tmp_path / "0.mp4").is_file():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    began_s = time.monotonic()
    executor.close()
    assert time.monotonic() - began_s < 10
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_cannot_start_fails_its_job_alone(
    executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", FALSE)
    executor.submit(job(0, "work", tmp_path))
    assert all_of(executor, 1)[0] == Failed(
        "its worker process was killed, perhaps for want of memory", again=True
    )
    monkeypatch.undo()
    executor.submit(job(0, "work", tmp_path))
    assert isinstance(all_of(executor, 1)[0], Done)
