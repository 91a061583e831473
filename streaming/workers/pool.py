"""Conversations computed in processes of their own, one for each core.

    runner's thread ──── 20 ms of sound ───► worker process: Session.push
            ▲                                       │
            └── frames' words; pictures in memory ◄─┘   that both see

An interpreter runs one thread of Python at a time. A frame holds its lock for half of its compute,
so in one process five conversations wait for each other while a core stands idle. The server's
own threads, its encoders among them, stay where they are: their work is done outside the lock.

A worker that dies takes its conversations along, each with a reason; the next one starts it anew.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lipstream.engine.cores import usable_cores
from lipstream.engine.errors import LipstreamError, WorkerLost
from lipstream.engine.types import U8, AudioChunk, VideoFrame
from lipstream.streaming.session.gc_policy import few_arenas, give_back
from lipstream.streaming.session.runner import LiveSession, warm_up

if TYPE_CHECKING:
    from fractions import Fraction

    from lipstream.engine.pipeline import Engine


logger = logging.getLogger(__name__)

Make = Callable[[], "Engine"]  # can be pickled, as functools.partial of a module's function

_SLOTS: Final = 4  # pictures in shared memory: of one push; what is beyond goes by the pipe
_READY_S: Final = 60.0
_LEAVE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class _Details:
    """What the server's process must know of an engine in another."""

    delay_ms: float
    backend: str
    fps: Fraction
    shape: tuple[int, int]  # of an I420 picture


def processes_for(conversations: int) -> int:
    """How many processes serve so many conversations best; 0: none but the server's own.

    On two cores the encoders keep one busy, and what the lock costs is less than what two processes
    tell each other.
    """
    cores = usable_cores()
    return min(cores, conversations) if cores > 2 and conversations > 2 else 0


class Workers:
    """The processes. Methods may be called from any thread; they block."""

    def __init__(self, count: int) -> None:
        """Start `count` of them; they end with this process, however it ends."""
        self._makes: dict[int, Make] = {}
        self._number = 0  # of the next engine
        self._lock = threading.Lock()
        self._workers = [_Worker() for _ in range(count)]

    def engine(self, make: Make) -> RemoteEngine:
        """Have every worker make an engine, and warm it up.

        Raises: what `make` raises; WorkerLost.
        """
        with self._lock:
            number, self._number = self._number, self._number + 1
            with ThreadPoolExecutor(len(self._workers)) as pool:
                loading = [pool.submit(worker.load, number, make) for worker in self._workers]
            details = [done.result() for done in loading][0]
            self._makes[number] = make
        return RemoteEngine(self, number, details)

    def take(self) -> _Worker:
        """The worker with the fewest conversations, one more from now on."""
        with self._lock:
            for at, worker in enumerate(self._workers):
                if not worker.alive:
                    logger.error("a worker process has ended; another takes its place")
                    worker.close()
                    self._workers[at] = worker = _Worker()
                    for number, make in self._makes.items():
                        worker.load(number, make)
            least = min(self._workers, key=lambda worker: worker.conversations)
            least.conversations += 1
            return least

    def give_back(self, worker: _Worker) -> None:
        """One conversation less."""
        with self._lock:
            worker.conversations -= 1

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            for worker in self._workers:
                worker.close()


class RemoteEngine:
    """An engine in the workers; see `engine.pipeline.Engine`."""

    def __init__(self, workers: Workers, number: int, details: _Details) -> None:
        """Use `Workers.engine`."""
        self._workers, self._number, self._details = workers, number, details

    @property
    def delay_ms(self) -> float:
        """Stated delay from sound in to picture out, before compute."""
        return self._details.delay_ms

    @property
    def backend(self) -> str:
        """What runs the networks."""
        return self._details.backend

    def session(self) -> RemoteSession:
        """A new conversation, in the worker with the fewest; begun with its first sound."""
        return RemoteSession(self._workers, self._number, self._details)


class RemoteSession:
    """One conversation. Not for use from two threads at once."""

    is_remote = True  # it computes in another process

    def __init__(self, workers: Workers, number: int, details: _Details) -> None:
        """Use `RemoteEngine.session`."""
        self._workers, self._number, self._details = workers, number, details
        self._line: _Line | None = None
        self._closed = False

    def push(self, chunk: AudioChunk, paint: bool = True) -> list[VideoFrame]:
        """See `engine.pipeline.Session.push`.

        Raises: WorkerLost when the process has ended; LipstreamError for what was raised in it.
        """
        if self._closed:
            raise WorkerLost("the conversation is over")
        if self._line is None:
            self._line = _Line(self._workers, self._number, self._details)
        return self._line.push(chunk, paint)

    def interrupt(self) -> None:
        """See `engine.pipeline.Session.interrupt`."""
        if self._line is not None:
            self._line.interrupt()

    def close(self) -> None:
        """Free what it holds, here and in the worker."""
        self._closed = True
        if self._line is not None:
            self._line.close()
            self._line = None


class _Line:
    """A conversation's connection to its worker, and the pictures that both see."""

    def __init__(self, workers: Workers, number: int, details: _Details) -> None:
        self._fps = details.fps
        with ExitStack() as undo:
            self._worker = workers.take()
            undo.callback(workers.give_back, self._worker)
            self._connection = undo.enter_context(self._worker.connect())
            height, width = details.shape
            memory = SharedMemory(create=True, size=_SLOTS * height * width)
            undo.callback(memory.unlink)
            undo.callback(memory.close)
            self._pictures = _pictures(memory, details.shape)
            undo.callback(delattr, self, "_pictures")  # a view of the memory
            self._ask("session", number, memory.name)
            self._undo = undo.pop_all()

    def push(self, chunk: AudioChunk, paint: bool) -> list[VideoFrame]:
        frames = []
        for slot, (index, own, start, background, speech) in self._ask(
            "push", chunk.start_sample, chunk.samples, paint
        ):
            picture = self._pictures[slot].copy() if isinstance(slot, int) else slot
            sound = AudioChunk(own, start)
            frames.append(VideoFrame(picture, index, self._fps, sound, background, speech))
        return frames

    def interrupt(self) -> None:
        self._ask("interrupt")

    def _ask(self, *words: Any) -> Any:
        return _ask(self._connection, *words)

    def close(self) -> None:
        self._undo.close()


class _Worker:
    """One process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # threads do not survive a fork
        told, tell = context.Pipe(duplex=False)
        self.conversations = 0
        self._process = context.Process(
            target=_work, args=(tell,), name="lipstream-worker", daemon=True
        )
        self._process.start()
        tell.close()
        self._told = told
        self._address: str | None = None

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def connect(self) -> Connection:
        if self._address is None:
            try:
                if not self._told.poll(_READY_S):
                    raise WorkerLost(f"a worker process was not ready within {_READY_S:.0f} s")
                self._address = self._told.recv()
            except EOFError as error:
                raise WorkerLost("a worker process did not start") from error
        try:
            # The key is the one that multiprocessing gives to a process and its children.
            return Client(self._address, authkey=multiprocessing.current_process().authkey)
        except (OSError, EOFError) as error:
            raise WorkerLost(f"a worker process cannot be reached ({error})") from error

    def load(self, number: int, make: Make) -> _Details:
        with self.connect() as connection:
            details: _Details = _ask(connection, "load", number, make)
            return details

    def close(self) -> None:
        self._process.terminate()
        self._process.join(_LEAVE_S)
        if self.alive:
            self._process.kill()
        self._told.close()


def _ask(connection: Connection, *words: Any) -> Any:
    try:
        connection.send(words)
        answer, reason = connection.recv()
    except (OSError, EOFError) as gone:
        raise WorkerLost("the process of this conversation has ended") from gone
    if reason is not None:
        raise reason
    return answer


def _pictures(memory: SharedMemory, shape: tuple[int, int]) -> U8:
    return np.ndarray((_SLOTS, *shape), np.uint8, memory.buf)


# ------------------------------------------------------------------- in the worker process


def _work(tell: Connection) -> None:
    """A worker: accepts a connection for each conversation, for as long as its parent lives."""
    few_arenas()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server's own business
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    engines: dict[int, Engine] = {}
    turn = threading.Lock()  # one computes at a time: more would only wait for the interpreter
    key = multiprocessing.current_process().authkey
    with Listener(backlog=16, authkey=key) as listener:
        tell.send(listener.address)
        while True:
            try:
                connection = listener.accept()
            except (OSError, EOFError, multiprocessing.AuthenticationError):
                continue  # whoever it was has gone
            arguments = (connection, engines, turn)
            threading.Thread(target=_serve, args=arguments, daemon=True).start()


def _leave(*_: object) -> None:
    sys.exit(0)  # not at once: the socket's folder is to be removed


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(connection: Connection, engines: dict[int, Engine], turn: threading.Lock) -> None:
    """Answers one connection until it is closed."""
    served = _Served(engines)
    try:
        while True:
            words = connection.recv()
            answer, reason = None, None
            with turn:
                try:
                    answer = getattr(served, words[0])(*words[1:])
                except LipstreamError as error:
                    reason = error
                except Exception as error:
                    logger.exception("a conversation failed")
                    reason = LipstreamError(f"{type(error).__name__}: {error}")
            connection.send((answer, reason))
    except (OSError, EOFError):
        pass  # the end of the conversation
    finally:
        connection.close()
        served.close()


class _Served:
    """What a connection may ask for."""

    def __init__(self, engines: dict[int, Engine]) -> None:
        self._engines = engines
        self._session: LiveSession | None = None
        self._memory: SharedMemory | None = None
        self._pictures: U8 | None = None

    def load(self, number: int, make: Make) -> _Details:
        engine = make()
        warm_up(engine)
        self._engines[number] = engine
        target = engine.target
        shape = target.height * 3 // 2, target.width
        return _Details(engine.delay_ms, engine.backend, target.fps, shape)

    def session(self, number: int, memory: str) -> None:
        engine = self._engines[number]
        self._memory = SharedMemory(memory)
        shape = engine.target.height * 3 // 2, engine.target.width
        self._pictures = _pictures(self._memory, shape)
        self._session = engine.session()

    def push(self, start: int, samples: Any, paint: bool) -> list[tuple[Any, tuple[Any, ...]]]:
        assert self._session is not None and self._pictures is not None
        told: list[tuple[Any, tuple[Any, ...]]] = []
        for at, frame in enumerate(self._session.push(AudioChunk(samples, start), paint)):
            own = frame.audio
            words = frame.frame_index, own.samples, own.start_sample, frame.background, frame.speech
            if at < _SLOTS:
                self._pictures[at] = frame.i420
                told.append((at, words))
            else:
                told.append((frame.i420, words))
        return told

    def interrupt(self) -> None:
        assert self._session is not None
        self._session.interrupt()

    def close(self) -> None:
        if self._memory is None:
            return
        self._session = self._pictures = None
        self._memory.close()
        give_back()
