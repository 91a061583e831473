"""Retries, skips and failures of a batch, with workers that do as they are told."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from lipstream.streaming.batch.jobs import Done, Failed, Job, Outcome, Result
from lipstream.streaming.batch.journal import NAME, Journal, Kinds
from lipstream.streaming.batch.run import run_batch

LOST = Failed("lost", again=True)
WRONG = Failed("wrong", again=False)
DONE = Done({}, "sha", "content")


class ScriptedExecutor:
    """Ends each job as its script says, one at a time; the last entry counts for good."""

    def __init__(self, script: dict[int, list[Outcome]], room: int = 2) -> None:
        self.script, self._room = defaultdict(lambda: [DONE], script), room
        self.running: list[Job] = []
        self.order: list[int] = []

    @property
    def room(self) -> int:
        return self._room - len(self.running)

    def submit(self, job: Job) -> None:
        assert self.room
        self.running.append(job)
        self.order.append(job.number)

    def wait(self, timeout_s: float) -> list[tuple[Job, Outcome]]:
        job = self.running.pop(0)
        script = self.script[job.number]
        outcome = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(outcome, Done):
            Path(job.output).write_text("sha")
        return [(job, outcome)]

    def close(self) -> None:
        pass


class Files:
    """The inputs are in memory, and the hash of an output is what it holds."""

    def __init__(self) -> None:
        self.inputs = {"input": "one"}
        self.cleaned: list[int] = []

    def kinds(self) -> Kinds:
        def output(job: Job) -> str | None:
            path = Path(job.output)
            return path.read_text() if path.is_file() else None

        return Kinds(lambda job: self.inputs, output, lambda job: self.cleaned.append(job.number))


def jobs(folder: Path, count: int) -> list[Job]:
    options = {"input": "a.wav", "profile": "live"}
    return [Job(k, "dub", str(folder / f"{k}.mp4"), options, "1") for k in range(count)]


def run(
    folder: Path, script: dict[int, list[Outcome]] | None = None, files: Files | None = None
) -> tuple[list[Result], ScriptedExecutor]:
    executor, seen = ScriptedExecutor(script or {}), []
    journal = Journal((files or Files()).kinds())
    summary = run_batch(jobs(folder, 4), executor, journal, 2, seen.append)
    assert seen == summary.results
    return sorted(seen, key=lambda result: result.job.number), executor


def states(results: list[Result]) -> list[tuple[str, int]]:
    return [(result.state, result.attempts) for result in results]


def test_what_is_lost_is_tried_again_and_what_is_wrong_is_not(tmp_path: Path) -> None:
    files = Files()
    results, _ = run(tmp_path, {0: [LOST, LOST, DONE], 1: [WRONG], 2: [LOST]}, files)
    assert states(results) == [("done", 3), ("failed", 1), ("failed", 3), ("done", 1)]
    assert [r.as_json().get("reason") for r in results] == [None, "wrong", "lost", None]
    assert sorted(files.cleaned) == [0, 0, 1, 2, 2, 2]


def test_a_second_run_makes_what_is_missing(tmp_path: Path) -> None:
    run(tmp_path, {1: [WRONG]})
    (tmp_path / "2.mp4").write_text("changed since")
    (tmp_path / "3.mp4").unlink()
    results, executor = run(tmp_path)
    assert states(results) == [("skipped", 0), ("done", 1), ("done", 1), ("done", 1)]
    assert executor.order == [1, 2, 3]
    assert states(run(tmp_path)[0]) == [("skipped", 0)] * 4


def test_other_inputs_options_or_versions_are_made_again(tmp_path: Path) -> None:
    run(tmp_path)
    files = Files()
    files.inputs = {"input": "two"}
    assert states(run(tmp_path, files=files)[0]) == [("done", 1)] * 4
    assert states(run(tmp_path, files=files)[0]) == [("skipped", 0)] * 4
    journal = Journal(files.kinds())
    job = jobs(tmp_path, 1)[0]
    assert journal.is_done(job)
    moved = Job(0, "dub", job.output, {**job.options, "input": "/elsewhere/a.wav"}, "1")
    assert journal.is_done(moved)  # by what is in a file, not by where it lies
    assert not journal.is_done(Job(0, "dub", job.output, {**job.options, "profile": "low"}, "1"))
    assert not journal.is_done(Job(0, "dub", job.output, job.options, "2"))


def test_a_journal_that_was_cut_off(tmp_path: Path) -> None:
    run(tmp_path)
    journal = tmp_path / NAME
    data = journal.read_bytes().rstrip(b"\n")
    last = json.loads(data.splitlines()[-1])["output"]
    journal.write_bytes(data[:-10])
    results, _ = run(tmp_path)
    assert [Path(r.job.output).name for r in results if r.state == "done"] == [last]
    assert states(run(tmp_path)[0]) == [("skipped", 0)] * 4
    journal.write_bytes(b"\xff\x00 nothing of ours\n[]\n3\n")
    assert states(run(tmp_path)[0]) == [("done", 1)] * 4


def test_a_batch_that_was_stopped_leaves_nothing_and_goes_on(tmp_path: Path) -> None:
    files = Files()

    class Stops(ScriptedExecutor):
        def wait(self, timeout_s: float) -> list[tuple[Job, Outcome]]:
            if len(self.order) > 2:
                raise KeyboardInterrupt
            return super().wait(timeout_s)

    journal = Journal(files.kinds())
    with pytest.raises(KeyboardInterrupt):
        run_batch(jobs(tmp_path, 4), Stops({}), journal, 2, lambda result: None)
    journal.stopped()
    assert files.cleaned == [1, 2]
    results, _ = run(tmp_path, files=files)
    assert states(results) == [("skipped", 0), ("done", 1), ("done", 1), ("done", 1)]
    assert files.cleaned == [1, 2, 1, 2]  # again, for a machine that went down does not clean


def test_an_input_that_cannot_be_read(tmp_path: Path) -> None:
    def unreadable(job: Job) -> dict[str, str]:
        raise FileNotFoundError(2, "No such file or directory", "a.wav")

    seen: list[Result] = []
    journal = Journal(Kinds(unreadable, lambda job: None, lambda job: None))
    run_batch(jobs(tmp_path, 2), ScriptedExecutor({}), journal, 2, seen.append)
    assert [r.as_json()["reason"] for r in seen] == ["a.wav: No such file or directory"] * 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_fails_its_own_jobs_alone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.symlink_to(tmp_path / "nowhere")  # it cannot be read, and cannot be made either
    one, two, three = jobs(tmp_path, 3)
    two = replace(two, output=str(folder / "1.mp4"))
    journal, executor, seen = Journal(Files().kinds()), ScriptedExecutor({}), list[Result]()
    run_batch([one, two, three], executor, journal, 2, seen.append)
    results = sorted(seen, key=lambda result: result.job.number)
    assert [result.state for result in results] == ["done", "failed", "done"]
    assert executor.order == [0, 2]
    assert results[1].as_json()["reason"] == f"{folder}: File exists"


def test_a_full_disk_stops_no_batch(tmp_path: Path) -> None:
    """Neither the line that a job has ended, nor what cannot be removed after one that failed."""

    class FullDisk(Journal):
        def _append(self, job: Job, line: dict[str, object]) -> None:
            if line["state"] == "done" and job.number == 1:
                raise OSError(28, "No space left on device", NAME)
            super()._append(job, line)

    def stuck(job: Job) -> None:
        raise PermissionError(13, "Permission denied", "part")

    kinds, seen = replace(Files().kinds(), remove_leftovers=stuck), list[Result]()
    script = ScriptedExecutor({2: [WRONG]})
    journal = FullDisk(kinds)
    run_batch(jobs(tmp_path, 4), script, journal, 2, seen.append)
    results = sorted(seen, key=lambda result: result.job.number)
    assert states(results) == [("done", 1), ("done", 1), ("failed", 1), ("done", 1)]
    assert getattr(results[1].outcome, "notes", None) == (
        f"{NAME}: No space left on device; the next run makes {results[1].job.output} again",
    )
    assert results[2].as_json()["reason"] == "wrong; part: Permission denied"
    journal.stopped()
    again, _ = run(tmp_path)
    assert states(again) == [("skipped", 0), ("done", 1), ("done", 1), ("skipped", 0)]


def test_leftovers_that_cannot_be_removed_keep_no_other_ones(tmp_path: Path) -> None:
    removed: list[int] = []

    def remove(job: Job) -> None:
        if job.number == 0:
            raise PermissionError(13, "Permission denied", "part")
        removed.append(job.number)

    journal = Journal(replace(Files().kinds(), remove_leftovers=remove))
    for job in jobs(tmp_path, 3):
        journal.started(job)
    journal.stopped()
    assert removed == [1, 2]
