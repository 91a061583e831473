"""Conversations in processes of their own: the same frames, at their pace."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipstream.engine.errors import LipstreamError, UsageError, WorkerLost
from lipstream.engine.types import STEP_SAMPLES, AudioChunk, VideoFrame
from lipstream.streaming.server.targets import EngineSetting
from lipstream.streaming.session.live_engine import LiveSession
from lipstream.streaming.workers import pool
from lipstream.streaming.workers.pool import RemoteEngine, Workers, processes_for
from lipstream.streaming.workers.protocol import PICTURES
from lipstream.streaming.workers.worker import Worker
from tests.streaming.live_engine import LiveFakeEngine
from tests.streaming.waiting import eventually_in_thread
from tests.streaming.workers.gated_engine import Gate, engine_that_states_its_turns, gated_engine

SETTING = EngineSetting(renderer="none")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    started = Workers(2)
    yield started
    started.close()


@pytest.fixture(scope="module")
def engine(workers: Workers, target: Path) -> RemoteEngine:
    return workers.engine(partial(SETTING.load, target))


def pushed(session: LiveSession, steps: int, interrupted_at: int = -1) -> list[VideoFrame]:
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
    got, expected = pushed(remote, 60, 30), pushed(own.session(), 60, 30)
    remote.close()
    assert len(got) == len(expected) > 20
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.i420, other.i420)
        np.testing.assert_array_equal(one.audio.samples, other.audio.samples)
        assert (one.frame_index, one.fps, one.background, one.speech, one.audio.start_sample) == (
            other.frame_index, other.fps, other.background, other.speech, other.audio.start_sample
        )  # fmt: skip


def test_pictures_beyond_the_shared_memory_arrive_too(engine: RemoteEngine, target: Path) -> None:
    second = np.zeros(16_000, np.float32)
    remote = engine.session()
    got = remote.push(AudioChunk(second, 0))
    expected = SETTING.load(target).session().push(AudioChunk(second, 0))
    remote.close()
    assert len(got) == len(expected) > PICTURES
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.i420, other.i420)


def test_conversations_are_spread_evenly_and_counted_down(
    workers: Workers, engine: RemoteEngine
) -> None:
    sessions = [engine.session() for _ in range(4)]
    for session in sessions:
        pushed(session, 2)
    assert [worker.conversations for worker in workers._workers] == [2, 2]
    for session in sessions:
        session.close()
        session.close()  # twice does no harm
    assert [worker.conversations for worker in workers._workers] == [0, 0]
    with pytest.raises(WorkerLost, match="over"):
        sessions[0].push(AudioChunk(np.zeros(STEP_SAMPLES, np.float32), 0))


def test_errors_cross_the_border(workers: Workers, engine: RemoteEngine, tmp_path: Path) -> None:
    session = engine.session()
    with pytest.raises(UsageError, match="finite"):
        session.push(AudioChunk(np.full(STEP_SAMPLES, np.nan, np.float32), 0))
    session.close()
    with pytest.raises(LipstreamError, match="not a target bundle"):
        workers.engine(partial(SETTING.load, tmp_path / "nobody.target"))


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_worker_takes_only_its_own_and_another_takes_its_place(
    workers: Workers, engine: RemoteEngine
) -> None:
    lost, kept = engine.session(), engine.session()
    pushed(lost, 2)
    pushed(kept, 2)
    victim = workers._workers[0]._process
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(5)
    with pytest.raises(WorkerLost, match="has ended"):
        pushed(lost, 2)
    lost.close()
    kept.push(AudioChunk(np.zeros(STEP_SAMPLES, np.float32), 2 * STEP_SAMPLES))
    kept.close()
    third = engine.session()  # starts the process anew
    assert len(pushed(third, 30)) > 5
    third.close()
    assert all(worker.alive for worker in workers._workers)
    assert [worker.conversations for worker in workers._workers] == [0, 0]


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open")
@pytest.mark.parametrize("killed", [True, False])
def test_workers_end_with_their_server_and_leave_nothing(killed: bool, tmp_path: Path) -> None:
    code = (
        "from lipstream.streaming.workers.pool import Workers\n"
        "if __name__ == '__main__':\n"
        "    workers = Workers(2)\n"
        "    [worker.connect().close() for worker in workers._workers]\n"
        "    print(*(worker._process.pid for worker in workers._workers), flush=True)\n"
        "    input()\n"
        "    workers.close()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as server:  # fmt: skip
        assert server.stdin is not None and server.stdout is not None
        pids = [int(word) for word in server.stdout.readline().split()]
        assert len(pids) == 2
        ended = [os.pidfd_open(pid) for pid in pids]
        if killed:
            server.kill()
        else:
            server.stdin.write("\n")
            server.stdin.flush()
    for descriptor in ended:
        assert select.select([descriptor], [], [], 10)[0], "a worker outlives its server"
        os.close(descriptor)
    assert list(tmp_path.iterdir()) == []


def test_how_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, conversations, wanted in (
        (1, 8, 0),
        (2, 8, 2),
        (2, 1, 0),
        (4, 2, 2),
        (4, 8, 4),
        (16, 4, 4),
    ):
        monkeypatch.setattr(pool, "usable_cores", lambda cores=cores: cores)
        assert processes_for(conversations) == wanted


@pytest.fixture
def worker() -> Iterator[Workers]:
    """One process, so that all that happens in it competes."""
    started = Workers(1)
    yield started
    started.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.close()


FAKE: Any = LiveFakeEngine


def test_conversations_keep_their_pace_while_a_target_is_loaded(
    worker: Workers, gate: Gate
) -> None:
    """Its loading does not end until they have had 50 pushes, and one more has begun."""
    engine = worker.engine(FAKE)
    going, begun = engine.session(), engine.session()
    pushed(going, 2)
    make: Any = partial(gated_engine, gate.address)
    loaded: list[RemoteEngine] = []
    loading = threading.Thread(target=lambda: loaded.append(worker.engine(make)))
    loading.start()
    gate.wait_until_loading()
    took_s: list[float] = []

    def converse() -> None:
        for step in range(2, 52):
            began_s = time.perf_counter()
            going.push(AudioChunk(np.zeros(STEP_SAMPLES, np.float32), step * STEP_SAMPLES))
            took_s.append(time.perf_counter() - began_s)
        pushed(begun, 2)

    talking = threading.Thread(target=converse, daemon=True)
    talking.start()
    talking.join(30)
    blocked = talking.is_alive()
    gate.open()
    loading.join(30)
    talking.join(30)
    assert not blocked, "the load held the conversations up"
    assert np.median(took_s) < 0.04, "a frame time"
    second = loaded[0].session()
    assert len(pushed(second, 20)) > 5
    for session in (going, begun, second):
        session.close()


def test_an_engine_is_loaded_once_in_each_worker_whoever_asks(worker: Workers, gate: Gate) -> None:
    """A second load of the same engine would wait for the gate for ever."""
    make: Any = partial(gated_engine, gate.address)
    (process,) = worker._workers
    details: list[Any] = []
    asking = [
        threading.Thread(target=lambda: details.append(process.load(7, make)), daemon=True)
        for _ in range(3)
    ]
    for thread in asking:
        thread.start()
    gate.wait_until_loading()
    gate.open()
    for thread in asking:
        thread.join(30)
    assert len(details) == 3 and len(set(details)) == 1


def test_an_engine_that_is_closed_is_let_go_and_its_conversations_end_in_peace(
    worker: Workers,
) -> None:
    engine, other = worker.engine(FAKE), worker.engine(FAKE)
    going, late, kept = engine.session(), engine.session(), other.session()
    pushed(going, 2)
    engine.close()
    engine.close()  # twice does no harm
    going.push(AudioChunk(np.zeros(STEP_SAMPLES, np.float32), 2 * STEP_SAMPLES))
    with pytest.raises(UsageError, match="let go"):
        pushed(late, 1)
    pushed(kept, 2)
    (process,) = worker._workers
    assert process.conversations == 2
    assert list(process._loaded) == [other._number]
    assert list(worker._makes) == [other._number]
    for session in (going, late, kept):
        session.close()
    assert process.conversations == 0


def test_an_engine_that_nobody_holds_is_let_go_in_the_workers(worker: Workers) -> None:
    engine = worker.engine(FAKE)
    number, session = engine._number, engine.session()
    del engine
    pushed(session, 2)  # a session holds its engine
    (process,) = worker._workers
    assert list(worker._makes) == list(process._loaded) == [number]
    session.close()
    del session
    gc.collect()
    eventually_in_thread(lambda: not worker._makes and not process._loaded)


def test_a_load_hands_the_lock_on_soon(worker: Workers) -> None:
    make: Any = engine_that_states_its_turns
    assert worker.engine(make).delay_ms <= 1.0


def test_while_somebody_talks_a_target_is_loaded_where_nobody_does() -> None:
    workers = Workers(2)
    try:
        engine = workers.engine(FAKE)
        going = engine.session()
        pushed(going, 2)
        other = workers.engine(FAKE)
        loaded = [worker.has(other._number) for worker in workers._workers]
        talking = [worker.conversations for worker in workers._workers]
        assert sorted(zip(talking, loaded, strict=True)) == [(0, True), (1, False)]
        second = other.session()
        pushed(second, 2)
        assert [worker.conversations for worker in workers._workers] == [1, 1]
        going.close()
        eventually_in_thread(lambda: all(w.has(other._number) for w in workers._workers))
        second.close()
    finally:
        workers.close()


def test_a_process_loads_a_target_only_to_even_out_two_conversations(worker: Workers) -> None:
    """Scripted: which process a conversation goes to."""
    other = Worker()
    worker._workers.append(other)
    engine = worker.engine(FAKE)
    mine, _ = worker._workers
    other.forget(engine._number)
    other.conversations = 1
    taken = [worker.take(engine._number) for _ in range(2)]
    assert taken == [mine, mine] and not other.has(engine._number)
    mine.conversations = 3
    assert worker.take(engine._number) is other and other.has(engine._number)
