"""In a worker process: engines, and a thread for each connection.

Conversations compute one at a time. Engines are loaded beside them: a load holds nothing that a
conversation waits for, and the steps of its warm-up give way to every conversation.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, Listener
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any

from lipstream.engine import turns
from lipstream.engine.errors import LipstreamError, UsageError
from lipstream.engine.types import U8, AudioChunk
from lipstream.streaming import trace
from lipstream.streaming.session import gc_policy
from lipstream.streaming.session.live_engine import LiveSession, short_turns, warm_up
from lipstream.streaming.workers.protocol import (
    PICTURES,
    Answer,
    Begin,
    EngineDetails,
    Forget,
    Interrupt,
    Load,
    Push,
    Pushed,
    Request,
    SentFrame,
    pictures_in,
)

if TYPE_CHECKING:
    from lipstream.engine.pipeline import Engine

logger = logging.getLogger(__name__)


class ComputeTurn:
    """One computes at a time; conversations go before everything else.

    Two that compute at once only wait for each other at the interpreter's lock. A plain lock does
    not do: a thread that gives it up and asks again at once mostly gets it before those that wait.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False
        self._conversations_waiting = 0

    @contextmanager
    def conversation(self) -> Iterator[None]:
        """The next turn, before any of `background`."""
        with self._changed:
            self._conversations_waiting += 1
            while self._taken:
                self._changed.wait()
            self._conversations_waiting -= 1
            self._taken = True
        try:
            yield
        finally:
            self._release()

    @contextmanager
    def background(self) -> Iterator[None]:
        """A turn when no conversation wants one."""
        with self._changed:
            while self._taken or self._conversations_waiting:
                self._changed.wait()
            self._taken = True
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        with self._changed:
            self._taken = False
            self._changed.notify_all()


class WorkerState:
    """What all connections of a worker process share."""

    def __init__(self) -> None:
        self.turn = ComputeTurn()
        self._engines: dict[int, Engine] = {}
        self._loading = threading.Lock()  # one after another: each takes what time is left

    def load(self, request: Load) -> EngineDetails:
        """Make an engine and warm it up."""
        with self._loading:
            engine = request.make()
            found = warm_up(engine, self.turn.background)
        gc_policy.freeze()
        self._engines[request.number] = engine
        return EngineDetails(
            engine.delay_ms, engine.backend, engine.target.fps, picture_shape(engine), found.cores
        )

    def forget(self, request: Forget) -> None:
        """Let an engine go."""
        if self._engines.pop(request.number, None) is not None:
            gc_policy.collect()

    def engine(self, number: int) -> Engine:
        """A loaded engine.

        Raises: UsageError when it was let go.
        """
        engine = self._engines.get(number)
        if engine is None:
            raise UsageError("the target of this conversation was let go")
        return engine


def picture_shape(engine: Engine) -> tuple[int, int]:
    """Of an I420 picture."""
    return engine.target.height * 3 // 2, engine.target.width


class _Conversation:
    """A session of an engine, and the memory for its pictures."""

    def __init__(self, engine: Engine, memory: str) -> None:
        with ExitStack() as undo:
            undo.callback(gc_policy.collect)  # the last of all
            undo.enter_context(gc_policy.conversation())
            shared = SharedMemory(memory)
            undo.callback(shared.close)
            self._pictures: U8 | None = pictures_in(shared, picture_shape(engine))
            undo.callback(setattr, self, "_pictures", None)  # a view of the memory
            self._session: LiveSession | None = engine.session()
            undo.callback(setattr, self, "_session", None)
            undo.callback(self._session.close)
            self._undo = undo.pop_all()

    def push(self, request: Push) -> Pushed:
        assert self._session is not None and self._pictures is not None
        began_s = time.thread_time()
        sent = []
        chunk = AudioChunk(request.samples, request.start_sample)
        for at, frame in enumerate(self._session.push(chunk, request.paint)):
            picture: int | U8 = frame.i420
            if at < PICTURES:
                self._pictures[at] = frame.i420
                picture = at
            sent.append(
                SentFrame(
                    picture, frame.frame_index, frame.audio.samples, frame.audio.start_sample,
                    frame.background, frame.speech,
                )
            )  # fmt: skip
        return Pushed(sent, time.thread_time() - began_s)

    def interrupt(self) -> None:
        assert self._session is not None
        self._session.interrupt()

    def close(self) -> None:
        self._undo.close()


class Server:
    """Answers one connection until it is closed."""

    def __init__(self, connection: Connection, state: WorkerState) -> None:
        self._connection, self._state = connection, state
        self._conversation: _Conversation | None = None

    def run(self) -> None:
        """In a thread of its own."""
        try:
            while True:
                self._connection.send(self._answer(self._connection.recv()))
        except (OSError, EOFError):
            pass  # the other side has closed it
        finally:
            self._connection.close()
            if self._conversation is not None:
                self._conversation.close()

    def _answer(self, request: Request) -> Answer:
        try:
            return Answer(self._do(request))
        except LipstreamError as error:
            return Answer(error=error)
        except Exception as error:
            logger.exception("a request failed")
            return Answer(error=LipstreamError(f"{type(error).__name__}: {error}"))

    def _do(self, request: Request) -> Any:
        match request:
            case Load():
                return self._state.load(request)
            case Forget():
                return self._state.forget(request)
        with turns.holding(self._state.turn.conversation):
            match request:
                case Begin():
                    trace.continue_with(request.trace)  # this thread is the conversation's
                    engine = self._state.engine(request.number)
                    self._conversation = _Conversation(engine, request.memory)
                    return None
                case Push():
                    assert self._conversation is not None, "Begin comes first"
                    return self._conversation.push(request)
                case Interrupt():
                    assert self._conversation is not None, "Begin comes first"
                    return self._conversation.interrupt()


def run_worker(ready: Connection) -> None:
    """A worker process: accepts connections for as long as its parent lives.

    Args:
        ready: gets the address to connect to.
    """
    gc_policy.few_arenas()
    short_turns()
    trace.log_to_stderr(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    state = WorkerState()
    key = multiprocessing.current_process().authkey
    with Listener(backlog=16, authkey=key) as listener:
        ready.send(listener.address)
        while True:
            try:
                connection = listener.accept()
            except (OSError, EOFError, multiprocessing.AuthenticationError):
                continue  # the other side has gone
            server = Server(connection, state)
            threading.Thread(target=server.run, name="lipstream-worker", daemon=True).start()


def _leave(*_: object) -> None:
    sys.exit(0)  # not os._exit: the socket's folder is to be removed


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
