"""The messages between the server's process and a worker process.

    server ──── Load, Forget, Begin, Push, Interrupt ───► worker
           ◄─── Answer: a value, or the error that was raised ───
           ◄─── pictures, in memory that both see ───

Each connection carries one request at a time and belongs to one conversation, or to one load.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from lipstream.engine.errors import LipstreamError, WorkerLost
from lipstream.engine.types import F32, U8

if TYPE_CHECKING:
    from fractions import Fraction

    from lipstream.engine.pipeline import Engine

Make: TypeAlias = "Callable[[], Engine]"  # can be pickled: functools.partial of a module's function

PICTURES: Final = 4  # of one push in shared memory; further ones go through the connection


@dataclass(frozen=True, slots=True)
class EngineDetails:
    """What the server's process must know of an engine in another."""

    delay_ms: float
    backend: str
    fps: Fraction
    picture_shape: tuple[int, int]  # of I420: height * 3 / 2, width
    cores: float  # that one conversation keeps busy

    @property
    def width(self) -> int:
        """Of a picture, px."""
        return self.picture_shape[1]

    @property
    def height(self) -> int:
        """Of a picture, px."""
        return self.picture_shape[0] * 2 // 3


@dataclass(frozen=True, slots=True)
class Load:
    """Make an engine and warm it up, while conversations go on; answers `EngineDetails`."""

    number: int
    make: Make


@dataclass(frozen=True, slots=True)
class Forget:
    """Let an engine go; conversations that use it keep it until they end."""

    number: int


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin this connection's conversation, with the name of the memory for its pictures."""

    number: int
    memory: str
    trace: str = ""  # id of the conversation in the logs


@dataclass(frozen=True, slots=True)
class Push:
    """Sound for this connection's conversation; answers `Pushed`."""

    start_sample: int
    samples: F32
    paint: bool


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Barge-in, in this connection's conversation."""


Request: TypeAlias = Load | Forget | Begin | Push | Interrupt


@dataclass(frozen=True, slots=True)
class SentFrame:
    """A `VideoFrame` less what the server's process knows."""

    picture: int | U8  # the place in shared memory, or the picture itself
    frame_index: int
    audio: F32
    audio_start_sample: int
    background: int
    speech: bool


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push has made."""

    frames: list[SentFrame]
    cpu_s: float  # CPU time that it took


@dataclass(frozen=True, slots=True)
class Answer:
    """To a request."""

    value: Any = None
    error: LipstreamError | None = None


def ask(connection: Connection, request: Request) -> Any:
    """Send a request and wait for its answer.

    Raises: WorkerLost when the process has ended; LipstreamError for what was raised in it.
    """
    try:
        connection.send(request)
        answer: Answer = connection.recv()
    except (OSError, EOFError) as gone:
        raise WorkerLost("the process of this conversation has ended") from gone
    if answer.error is not None:
        raise answer.error
    return answer.value


def pictures_in(memory: SharedMemory, picture_shape: tuple[int, int]) -> U8:
    """u8 [PICTURES, height * 3 / 2, width], a view of the memory."""
    return np.ndarray((PICTURES, *picture_shape), np.uint8, memory.buf)


def memory_bytes(picture_shape: tuple[int, int]) -> int:
    """Size of the memory for a conversation's pictures."""
    return PICTURES * picture_shape[0] * picture_shape[1]
