"""Every use of aioice's private parts: which addresses and ports, and when a peer is gone.

Called by `aiortc_patches.apply`, which checks that the installed version is the one that this is
written against.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import itertools
import random
import socket
from dataclasses import dataclass
from typing import Any, Final

from lipstream.engine.errors import NoFreePort, UsageError
from lipstream.streaming.background_tasks import BackgroundTasks
from lipstream.streaming.webrtc.ice_servers import bounded

# Consent (RFC 7675): aioice asks every 5 s. Here a request goes out every 0.2 s without waiting for
# the answer to the last one, so that a network that is back is known to be at once. Only 30 s
# without an answer end the connection: Wi-Fi that changes its access point, a train in a tunnel.
CONSENT_INTERVAL_S: Final = 0.2
CONSENT_EXPIRY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class PortRange:
    """UDP ports for media, both ends included. A connection takes one, on all its addresses."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1024 <= self.low <= self.high <= 65535:
            raise UsageError(
                f"UDP ports {self.low}-{self.high}: expected LOW-HIGH within 1024 to 65535"
            )

    @classmethod
    def parse(cls, text: str) -> PortRange:
        """`LOW-HIGH`.

        Raises:
            UsageError: anything else.
        """
        low, dash, high = text.partition("-")
        if not (dash and low.strip().isdecimal() and high.strip().isdecimal()):
            raise UsageError(f"UDP ports {text!r}: expected LOW-HIGH, such as 50000-50099")
        return cls(int(low), int(high))


def apply(loopback: bool, ports: PortRange | None, address: str | None = None) -> None:
    """Patch the process; call it again to change it.

    Args:
        loopback: offer 127.0.0.1 as well, which aioice leaves out.
        ports: None lets the system choose.
        address: of this machine, offered as well where aioice does not find it.
    """
    import aioice.ice

    ice: Any = aioice.ice
    addresses = getattr(ice, "_lipstream_addresses", ice.get_host_addresses)
    ice._lipstream_addresses = addresses

    more = [*(["127.0.0.1"] if loopback else []), *([address] if address else [])]

    def with_more(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        used = {4: use_ipv4, 6: use_ipv6}
        wanted = [one for one in more if used[ipaddress.ip_address(one).version]]
        return list(dict.fromkeys([*addresses(use_ipv4, use_ipv6), *wanted]))

    ice.get_host_addresses = with_more if more else addresses
    connection: Any = ice.Connection
    connection.query_consent = _query_consent
    gather = getattr(connection, "_lipstream_gather", connection.get_component_candidates)
    connection._lipstream_gather = gather
    connection.get_component_candidates = bounded(
        gather if ports is None else _gather_within(ports)
    )


async def _query_consent(self: Any) -> None:
    """In place of `Connection.query_consent`."""
    import aioice.stun as stun

    loop = asyncio.get_running_loop()
    self._lipstream_answered_s = loop.time()
    key = self.remote_password.encode()
    requests = BackgroundTasks()

    async def ask(pair: Any) -> None:
        if pair.protocol.transport.is_closing():  # asyncio fails to send on one that was aborted
            return
        request = self.build_request(pair, nominate=False)
        try:
            await pair.protocol.request(
                request, pair.remote_addr, integrity_key=key, retransmissions=0
            )
            self._lipstream_answered_s = loop.time()
        except stun.TransactionError:
            pass

    try:
        while loop.time() - self._lipstream_answered_s < CONSENT_EXPIRY_S:
            await asyncio.sleep(CONSENT_INTERVAL_S * random.uniform(0.8, 1.2))
            for pair in tuple(self._nominated.values()):
                requests.start(ask(pair), "consent request")
    finally:
        await requests.cancel()
    self._query_consent_task = None
    await self.close()


def silent_s(transport: Any) -> float:
    """How long the other side of an `RTCIceTransport` has answered nothing; 0 before it did."""
    answered_s = getattr(transport._connection, "_lipstream_answered_s", None)
    return 0.0 if answered_s is None else asyncio.get_running_loop().time() - answered_s


def successor(transport: Any) -> Any:
    """A fresh `aioice.Connection` for a transport, with the same role and servers.

    What it receives goes to who reads from the transport now.
    """
    import aioice.ice

    old = transport._connection
    names = ("ice_controlling", "stun_server", "turn_server", "turn_username", "turn_password")
    settings = {name: getattr(old, name) for name in (*names, "turn_ssl", "turn_transport")}
    new: Any = aioice.ice.Connection(
        **settings,
        use_ipv4=old._use_ipv4,
        use_ipv6=old._use_ipv6,
        transport_policy=old._transport_policy,
    )
    new.remote_is_lite = old.remote_is_lite
    new._queue = old._queue
    return new


async def give_up(new: Any) -> None:
    """Close a `successor` that does not take over; the transport goes on as it is."""
    new._queue = asyncio.Queue()  # its end is nobody's
    await new.close()


async def take_over(transport: Any, new: Any) -> None:
    """Let a connected `successor` carry the transport, and close its predecessor."""
    old = transport._connection
    old._queue = asyncio.Queue()  # its end is nobody's
    new._event_waiter, old._event_waiter = old._event_waiter, None
    transport._connection = transport.iceGatherer._connection = new
    transport._recv, transport._send = new.recv, new.send
    await old.close()


def _gather_within(ports: PortRange) -> Any:
    """`Connection.get_component_candidates` with host candidates on ports of the range."""
    # Ports are taken in turn: one that was freed stays unused while late packets still come to it.
    turns = itertools.count(random.randrange(ports.high - ports.low + 1))

    def take(addresses: list[str]) -> list[socket.socket]:
        for _ in range(ports.low, ports.high + 1):
            port = ports.low + next(turns) % (ports.high - ports.low + 1)
            sockets = _bind(addresses, port)
            if sockets is not None:
                return sockets
        raise NoFreePort(f"all UDP ports of {ports.low}-{ports.high} are taken; try again later")

    async def get_component_candidates(
        self: Any, component: int, addresses: list[str], timeout: float = 5
    ) -> list[Any]:
        import aioice.ice
        from aioice.candidate import Candidate, candidate_foundation, candidate_priority

        ice: Any = aioice.ice
        loop = asyncio.get_running_loop()
        hosts = []
        for sock in take(addresses) if addresses else []:
            _, protocol = await loop.create_datagram_endpoint(
                lambda: ice.StunProtocol(self), sock=sock
            )
            self._protocols.append(protocol)
            host, port = sock.getsockname()[:2]
            protocol.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", host),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host"),
                host=host,
                port=port,
                type="host",
            )
            hosts.append(protocol)
        reflexive = [
            asyncio.wait_for(ice.server_reflexive_candidate(protocol, self.stun_server), timeout)
            for protocol in hosts
            if self.stun_server and "." in protocol.local_candidate.host
        ]
        # The original, called with no address, gathers the candidates of a TURN server.
        relayed, *found = await asyncio.gather(
            ice.Connection._lipstream_gather(self, component, [], timeout),
            *reflexive,
            return_exceptions=True,
        )
        return [
            *(protocol.local_candidate for protocol in hosts),
            *(pair[0] for pair in found if not isinstance(pair, BaseException)),
            *(relayed if not isinstance(relayed, BaseException) else []),
        ]

    return get_component_candidates


def _bind(addresses: list[str], port: int) -> list[socket.socket] | None:
    """A socket on every address, or None where another socket has the port."""
    import aioice.turn

    sockets: list[socket.socket] = []
    for address in addresses:
        version = ipaddress.ip_address(address.partition("%")[0]).version
        sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, aioice.turn.UDP_SOCKET_BUFFER_SIZE)
            sock.bind((address, port))
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                for taken in sockets:
                    taken.close()
                return None
            continue  # as aioice does with an address that cannot be bound
        sockets.append(sock)
    return sockets
