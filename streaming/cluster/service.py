"""What a cluster serves, as every process of it must know, and the messages between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from lipstream.engine.errors import UsageError
from lipstream.streaming.server.admission import Cost
from lipstream.streaming.server.app import ServerOptions
from lipstream.streaming.server.targets import EngineLoader

OWN_ADDRESS: Final = "node"  # as `ServerOptions.host`: each node's address in the cluster
REACH_S: Final = 1.0  # for the answer of a process that does nothing but answer


@dataclass(frozen=True, slots=True)
class Share:
    """What Ray sets aside for one call, of a node's CPUs and GPUs."""

    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not 0.01 <= self.cpus <= 64:
            raise UsageError(f"--call-cpus {self.cpus:g}: expected 0.01 to 64 CPUs for a call")
        if not 0 <= self.gpus <= 1:
            raise UsageError(f"--call-gpus {self.gpus:g}: expected 0 to 1 GPU for a call")


@dataclass(frozen=True, slots=True)
class Service:
    """Everything that a node needs to take calls."""

    targets: str  # a folder that is the same on each node, or a URL
    setting: EngineLoader
    options: ServerOptions  # `sessions`: conversations of one node at most
    share: Share = field(default_factory=Share)
    spares: int = 1  # processes of each node that wait for the next call
    log_level: str = "WARNING"


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request that has been let in, for the process that owns the call."""

    method: str
    path: str  # with its query
    headers: dict[str, str]
    trace: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """To a `Request`."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class SocketClosed:
    """The end of a WebSocket, and why."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """How a call actor is doing."""

    actor: str
    node: str
    free: bool
    session: str | None  # the name of its conversation, where clients chose one
    opened: int  # conversations ever begun in it
    cost: Cost | None  # of the one that goes on
    expected_cores: dict[str, float]  # of a conversation, by the targets that are loaded


@dataclass(frozen=True, slots=True)
class Placed:
    """The process that a call goes to."""

    actor: str
    handle: Any
    node: str  # its address


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node as an operator sees it."""

    node: str  # Ray's id
    address: str
    url: str | None  # where it takes calls; None while it starts
    calls: int
    spares: int
    draining: bool
    lost: bool = False  # answers nothing
