"""Conversations in processes of their own: the same frames, and what a process that dies does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lipstream.engine.errors import LipstreamError, UsageError, WorkerLost
from lipstream.engine.types import STEP_SAMPLES, AudioChunk, VideoFrame
from lipstream.streaming.server.targets import EngineSetting
from lipstream.streaming.session.runner import LiveSession, SessionRunner
from lipstream.streaming.workers.pool import RemoteEngine, Workers, processes_for

SETTING = EngineSetting(renderer="none")


@pytest.fixture(scope="module")
def pool() -> Iterator[Workers]:
    workers = Workers(2)
    yield workers
    workers.close()


@pytest.fixture(scope="module")
def engine(pool: Workers, target: Path) -> RemoteEngine:
    return pool.engine(partial(SETTING.load, target))


def said(session: LiveSession, steps: int, interrupted_at: int = -1) -> list[VideoFrame]:
    sound = 0.1 * np.random.default_rng(0).standard_normal(steps * STEP_SAMPLES).astype(np.float32)
    frames: list[VideoFrame] = []
    for step in range(steps):
        if step == interrupted_at:
            session.interrupt()
        start = step * STEP_SAMPLES
        frames += session.push(AudioChunk(sound[start : start + STEP_SAMPLES], start), step % 5 > 0)
    return frames


def test_the_frames_are_those_of_an_engine_in_this_process(
    engine: RemoteEngine, target: Path
) -> None:
    own = SETTING.load(target)
    assert (engine.delay_ms, engine.backend) == (own.delay_ms, own.backend)
    remote = engine.session()
    got, expected = said(remote, 60, 30), said(own.session(), 60, 30)
    remote.close()
    assert len(got) == len(expected) > 20
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.i420, other.i420)
        np.testing.assert_array_equal(one.audio.samples, other.audio.samples)
        assert (one.frame_index, one.fps, one.background, one.speech, one.audio.start_sample) == (
            other.frame_index, other.fps, other.background, other.speech, other.audio.start_sample
        )  # fmt: skip


def test_more_pictures_than_places_arrive_too(engine: RemoteEngine, target: Path) -> None:
    second = np.zeros(16_000, np.float32)
    remote = engine.session()
    got = remote.push(AudioChunk(second, 0))
    expected = SETTING.load(target).session().push(AudioChunk(second, 0))
    remote.close()
    assert len(got) == len(expected) > pool._SLOTS
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.i420, other.i420)


def test_conversations_are_spread_and_given_back(pool: Workers, engine: RemoteEngine) -> None:
    sessions = [engine.session() for _ in range(4)]
    for session in sessions:
        said(session, 2)
    assert [worker.conversations for worker in pool._workers] == [2, 2]
    for session in sessions:
        session.close()
        session.close()  # twice does no harm
    assert [worker.conversations for worker in pool._workers] == [0, 0]
    with pytest.raises(WorkerLost, match="over"):
        sessions[0].push(AudioChunk(np.zeros(STEP_SAMPLES, np.float32), 0))


def test_reasons_cross_the_border(pool: Workers, engine: RemoteEngine, tmp_path: Path) -> None:
    session = engine.session()
    with pytest.raises(UsageError, match="finite"):
        session.push(AudioChunk(np.full(STEP_SAMPLES, np.nan, np.float32), 0))
    session.close()
    with pytest.raises(LipstreamError, match="not a target bundle"):
        pool.engine(partial(SETTING.load, tmp_path / "nobody.target"))


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_worker_takes_only_its_own_and_another_takes_its_place(
    pool: Workers, engine: RemoteEngine
) -> None:
    lost, kept = engine.session(), engine.session()
    said(lost, 2)
    said(kept, 2)
    victim = pool._workers[0]._process
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(5)
    runner = SessionRunner(engine)
    with pytest.raises(WorkerLost, match="has ended"):
        said(lost, 2)
    lost.close()
    third = AudioChunk(np.zeros(STEP_SAMPLES, np.float32), 2 * STEP_SAMPLES)
    kept.push(third)
    kept.close()
    runner.start()  # the next conversation starts the process anew
    deadline_s = time.monotonic() + 30
    while runner.counters.frames < 5 and time.monotonic() < deadline_s and runner.error is None:
        time.sleep(0.05)
    runner.close()
    assert runner.error is None
    assert runner.counters.frames >= 5
    assert all(worker.alive for worker in pool._workers)
    assert [worker.conversations for worker in pool._workers] == [0, 0]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("killed", [True, False])
def test_workers_end_with_their_server_and_leave_nothing(killed: bool, tmp_path: Path) -> None:
    code = (
        "from lipstream.streaming.workers.pool import Workers\n"
        "if __name__ == '__main__':\n"
        "    pool = Workers(2)\n"
        "    [worker.connect().close() for worker in pool._workers]\n"
        "    print(*(worker._process.pid for worker in pool._workers), flush=True)\n"
        "    input()\n"
        "    pool.close()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as server:  # fmt: skip
        assert server.stdin is not None and server.stdout is not None
        pids = [int(word) for word in server.stdout.readline().split()]
        assert len(pids) == 2
        if killed:
            server.kill()
        else:
            server.stdin.write("\n")
            server.stdin.flush()
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert list(tmp_path.iterdir()) == []


def test_how_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, conversations, wanted in ((1, 8, 0), (2, 8, 0), (4, 2, 0), (4, 8, 4), (16, 4, 4)):
        monkeypatch.setattr(pool, "usable_cores", lambda cores=cores: cores)
        assert processes_for(conversations) == wanted
