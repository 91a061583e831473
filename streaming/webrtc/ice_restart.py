"""ICE restart beneath a kept DTLS connection (RFC 8445 9, RFC 9725 4.3.3).

Both sides exchange new credentials and candidates as SDP fragments (RFC 8840). Media goes on over
the old addresses until the new ones are connected, and keys, streams and numbers stay.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiortc import RTCPeerConnection
from aiortc.rtcicetransport import candidate_from_aioice, candidate_to_aioice
from aiortc.sdp import SessionDescription, candidate_to_sdp

from lipstream.engine.errors import UsageError
from lipstream.streaming.webrtc import aioice_patches

RESTART_TIMEOUT_S: Final = 15.0
MEDIA_TYPE: Final = "application/trickle-ice-sdpfrag"


class IceRestart:
    """One restart of a connection whose media is bundled.

    The side that begins calls `local_fragment`, and `connect` with the answer to it. The other side
    calls `set_remote` first.
    """

    def __init__(self, pc: RTCPeerConnection) -> None:
        """Raises: UsageError when the connection has not one transport."""
        transports = {id(t): t for t in (t.receiver.transport for t in pc.getTransceivers())}
        if len(transports) != 1:
            raise UsageError("an ICE restart needs one bundled transport")
        first = pc.getTransceivers()[0]
        self._kind, self._mid = first.kind, first.mid
        self._transport: Any = first.receiver.transport.transport
        self._connection = aioice_patches.successor(self._transport)

    @property
    def tag(self) -> str:
        """What names the new ICE session, as an HTTP entity tag."""
        return entity_tag(self._connection.local_username)

    async def local_fragment(self) -> str:
        """Our new credentials, with all candidates."""
        connection = self._connection
        await connection.gather_candidates()
        candidates = (
            f"a=candidate:{candidate_to_sdp(candidate_from_aioice(one))}"
            for one in connection.local_candidates
        )
        lines = [
            f"m={self._kind} 9 UDP/TLS/RTP/SAVPF 0",
            f"a=mid:{self._mid}",
            f"a=ice-ufrag:{connection.local_username}",
            f"a=ice-pwd:{connection.local_password}",
            *candidates,
            "a=end-of-candidates",
        ]
        return "\r\n".join(lines) + "\r\n"

    async def set_remote(self, fragment: str) -> None:
        """The other side's.

        Raises: UsageError for what is no fragment with new credentials.
        """
        if "m=" not in fragment:
            fragment += f"\r\nm={self._kind} 9 UDP/TLS/RTP/SAVPF 0\r\n"
        try:
            section = SessionDescription.parse(fragment).media[0]
            candidates = [candidate_to_aioice(one) for one in section.ice_candidates]
        except Exception as error:  # the parser raises whatever comes first
            raise UsageError("the body is no SDP fragment with ICE credentials") from error
        ice = section.ice
        user, password = (None, None) if ice is None else (ice.usernameFragment, ice.password)
        if not user or not password:
            raise UsageError("the fragment has no ice-ufrag or no ice-pwd")
        connection = self._connection
        connection.remote_username, connection.remote_password = user, password
        for candidate in candidates:
            # Names of multicast DNS are not waited for: the checks from there tell the address.
            if not candidate.host.endswith(".local"):
                await connection.add_remote_candidate(candidate)

    async def connect(self) -> None:
        """Connect and take over; the old addresses stay in use when that fails.

        Raises: ConnectionError, TimeoutError.
        """
        await asyncio.wait_for(self._connection.connect(), RESTART_TIMEOUT_S)
        connection, self._connection = self._connection, None
        await aioice_patches.take_over(self._transport, connection)

    async def close(self) -> None:
        """Give up what has not taken over."""
        if self._connection is not None:
            await aioice_patches.give_up(self._connection)


def entity_tag(local_username: str) -> str:
    """Of the ICE session with these credentials."""
    return f'"{local_username}"'


def tag_of(pc: RTCPeerConnection) -> str:
    """The entity tag of a connection's present ICE session."""
    transport: Any = pc.getTransceivers()[0].receiver.transport.transport
    return entity_tag(transport.iceGatherer.getLocalParameters().usernameFragment)
