"""Conversations computed in processes of their own, one for each core: the server's side.

    runner's thread ──── 20 ms of sound ───► worker process: Session.push
            ▲                                       │
            └── frames; pictures in memory ◄────────┘   that both see

An interpreter runs one thread of Python at a time. A frame holds its lock for half of its compute,
so in one process five conversations wait for each other while a core stands idle. The server's
own threads, its encoders among them, stay where they are: their work is done outside the lock.

A worker that dies takes its conversations along, each with a reason; the next conversation starts
it anew.
"""

from __future__ import annotations

import logging
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing.shared_memory import SharedMemory

from lipstream.engine.cores import usable_cores
from lipstream.engine.errors import UsageError, WorkerLost
from lipstream.engine.types import AudioChunk, VideoFrame
from lipstream.streaming import trace
from lipstream.streaming.workers.protocol import (
    Begin,
    EngineDetails,
    Interrupt,
    Make,
    Push,
    Pushed,
    SentFrame,
    ask,
    memory_bytes,
    pictures_in,
)
from lipstream.streaming.workers.worker import Worker

logger = logging.getLogger(__name__)


def processes_for(conversations: int) -> int:
    """How many processes serve so many conversations best; 0: none but the server's own.

    One process computes no more than one core's worth: a frame needs the interpreter's lock.
    """
    cores = usable_cores()
    return min(cores, conversations) if cores > 1 and conversations > 1 else 0


class Workers:
    """The processes. Methods may be called from any thread; they block.

    The lock guards the lists and is never held while a process is waited for: an engine that is
    being loaded holds up nobody but who asked for it.
    """

    def __init__(self, count: int) -> None:
        """Start `count` of them; they end with this process, however it ends."""
        self._makes: dict[int, Make] = {}
        self._next_number = 0  # of the next engine
        self._lock = threading.Lock()
        self._filling = threading.Lock()  # one engine at a time is loaded ahead
        self._workers = [Worker() for _ in range(count)]

    def engine(self, make: Make) -> RemoteEngine:
        """Have the workers make an engine, and warm it up.

        A load takes turns at the interpreter's lock and a core from every conversation of its
        process. So while conversations go on it is loaded in one worker alone, one without a
        conversation if there is any; the others load it when they are idle, one after another.

        Raises: what `make` raises; WorkerLost.
        """
        with self._lock:
            number, self._next_number = self._next_number, self._next_number + 1
            self._makes[number] = make
            self._replace_lost()
            least = min(self._workers, key=lambda worker: worker.conversations)
            busy = any(worker.conversations for worker in self._workers)
            first = [least] if busy else list(self._workers)
        try:
            with ThreadPoolExecutor(len(first)) as threads:
                loads = [threads.submit(worker.load, number, make) for worker in first]
            details = [load.result() for load in loads]
        except BaseException:
            self.forget(number)
            raise
        if busy:
            self._load_in_idle()
        return RemoteEngine(self, number, details[0])

    def _load_in_idle(self) -> None:
        """In a thread: what workers without a conversation have not loaded yet."""
        threading.Thread(target=self._load_missing, name="lipstream-load", daemon=True).start()

    def _load_missing(self) -> None:
        with self._filling:
            while (missing := self._next_missing()) is not None:
                worker, number, make = missing
                try:
                    worker.load(number, make)
                except Exception as error:  # the conversation that needs it gets the reason
                    logger.warning("an engine was not loaded ahead: %s", error)
                    return
                with self._lock:
                    let_go = number not in self._makes
                if let_go:
                    worker.forget(number)

    def _next_missing(self) -> tuple[Worker, int, Make] | None:
        with self._lock:
            idle = [one for one in self._workers if one.alive and not one.conversations]
            return next(
                (
                    (worker, number, make)
                    for worker in idle
                    for number, make in self._makes.items()
                    if not worker.has(number)
                ),
                None,
            )

    def forget(self, number: int) -> None:
        """Let an engine go in every worker; conversations that use it keep it until they end."""
        with self._lock:
            self._makes.pop(number, None)
            workers = list(self._workers)
        for worker in workers:
            worker.forget(number)

    def take(self, number: int) -> Worker:
        """The worker that suits a conversation best, one more from now on; its engine is loaded.

        It has the fewest conversations. One that has still to load the engine counts for half a
        conversation more, and for one and a half where its conversations would be disturbed.

        Raises: UsageError when the engine was let go; WorkerLost; what its making raises.
        """
        with self._lock:
            make = self._makes.get(number)
            if make is None:
                raise UsageError("the target of this conversation was let go")
            self._replace_lost()

            def cost(worker: Worker) -> float:
                load = 0.0 if worker.has(number) else 1.5 if worker.conversations else 0.5
                return worker.conversations + load

            least = min(self._workers, key=cost)
            least.conversations += 1
        try:
            least.load(number, make)  # nothing to do unless it is a new one
        except BaseException:
            self.give_back(least)
            raise
        return least

    def _replace_lost(self) -> None:
        """With the lock held: a new process for each that has ended."""
        for at, worker in enumerate(self._workers):
            if not worker.alive:
                logger.error("a worker process has ended; another takes its place")
                worker.close()
                self._workers[at] = Worker()

    def give_back(self, worker: Worker) -> None:
        """One conversation less."""
        with self._lock:
            worker.conversations -= 1
            idle = not worker.conversations and worker.alive
            missing = idle and any(not worker.has(number) for number in self._makes)
        if missing:
            self._load_in_idle()

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            for worker in self._workers:
                worker.close()


class RemoteEngine:
    """An engine in the workers; see `engine.pipeline.Engine`."""

    def __init__(self, workers: Workers, number: int, details: EngineDetails) -> None:
        """Use `Workers.engine`."""
        self._workers, self._number, self._details = workers, number, details
        self._release = weakref.finalize(self, _release, workers, number)
        self._release.atexit = False  # the processes end with this one

    @property
    def delay_ms(self) -> float:
        """Stated delay from sound in to picture out, before compute."""
        return self._details.delay_ms

    @property
    def backend(self) -> str:
        """What runs the models."""
        return self._details.backend

    @property
    def target(self) -> EngineDetails:
        """Size and rate of its pictures, where `engine.pipeline.Engine` has them."""
        return self._details

    @property
    def cores(self) -> float:
        """That one conversation keeps busy, by the warm-up."""
        return self._details.cores

    @property
    def address(self) -> tuple[Workers, int, EngineDetails]:
        """Where it is: the pool, its number there, and what the pool said of it."""
        return self._workers, self._number, self._details

    def session(self) -> RemoteSession:
        """A new conversation, in the worker with the fewest; it begins with its first sound."""
        return RemoteSession(self)

    def close(self) -> None:
        """Let it go in every worker; conversations that have begun go on. Blocks."""
        if self._release.detach():
            self._workers.forget(self._number)


def _release(workers: Workers, number: int) -> None:
    """Let an engine that nobody holds any more go in every worker, in a thread: it blocks."""
    threading.Thread(
        target=workers.forget, args=(number,), name="lipstream-forget", daemon=True
    ).start()


class RemoteSession:
    """One conversation. Not for use from two threads at once."""

    is_remote = True  # it computes in another process

    def __init__(self, engine: RemoteEngine) -> None:
        """Use `RemoteEngine.session`."""
        self._engine = engine  # which stays in the workers for as long as this refers to it
        self._line: _Line | None = None
        self._closed = False

    @property
    def remote_cpu_s(self) -> float:
        """CPU time that it has taken in the other process."""
        return self._line.cpu_s if self._line is not None else 0.0

    def push(self, chunk: AudioChunk, paint: bool = True) -> list[VideoFrame]:
        """See `engine.pipeline.Session.push`.

        Raises: WorkerLost when the process has ended; LipstreamError for what was raised in it.
        """
        if self._closed:
            raise WorkerLost("the conversation is over")
        if self._line is None:
            self._line = _Line(*self._engine.address)
        return self._line.push(chunk, paint)

    def interrupt(self) -> None:
        """See `engine.pipeline.Session.interrupt`; blocks until the worker has done it."""
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

    def __init__(self, workers: Workers, number: int, details: EngineDetails) -> None:
        self._fps = details.fps
        self.cpu_s = 0.0
        with ExitStack() as undo:
            worker = workers.take(number)
            undo.callback(workers.give_back, worker)
            self._connection = undo.enter_context(worker.connect())
            memory = SharedMemory(create=True, size=memory_bytes(details.picture_shape))
            undo.callback(memory.unlink)
            undo.callback(memory.close)
            self._pictures = pictures_in(memory, details.picture_shape)
            undo.callback(delattr, self, "_pictures")  # a view of the memory
            ask(self._connection, Begin(number, memory.name, trace.current()))
            self._undo = undo.pop_all()

    def push(self, chunk: AudioChunk, paint: bool) -> list[VideoFrame]:
        pushed: Pushed = ask(self._connection, Push(chunk.start_sample, chunk.samples, paint))
        self.cpu_s += pushed.cpu_s
        return [self._frame(frame) for frame in pushed.frames]

    def _frame(self, sent: SentFrame) -> VideoFrame:
        place = sent.picture
        picture = self._pictures[place].copy() if isinstance(place, int) else place
        audio = AudioChunk(sent.audio, sent.audio_start_sample)
        return VideoFrame(picture, sent.frame_index, self._fps, audio, sent.background, sent.speech)

    def interrupt(self) -> None:
        ask(self._connection, Interrupt())

    def close(self) -> None:
        self._undo.close()
