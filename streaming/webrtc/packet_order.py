"""Packets of a voice in the order of their sending, each for as long as there is time for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

_NUMBERS: Final = 1 << 16  # RTP sequence numbers wrap
_RESTART: Final = 1000  # numbers; a stream that goes so far back has begun anew
_MOST_HELD: Final = 256
_REORDERS_S: Final = 20.0  # so long after a packet overtook another, the next may as well
_GUARD_S: Final = 0.004  # for decoding, before a packet is needed
_PATIENT_GUARD_S: Final = 0.02  # on a route that keeps the order, what is missing is lost


@dataclass(frozen=True, slots=True)
class VoicePacket:
    """One RTP packet of sound."""

    number: int  # sequence number, 16 bits
    timestamp: int  # 32 bits, of the codec's clock
    source: int  # SSRC
    payload: bytes
    codec: Any  # aiortc's RTCRtpCodecParameters
    arrival_s: float  # monotonic


class PacketOrder:
    """Delivers packets in order, on the running loop.

    A packet behind a missing one is held until that one comes, or until it is needed itself. One
    that comes after its successor was delivered is late: the decoder cannot go back.
    """

    def __init__(
        self,
        deliver: Callable[[VoicePacket], None],
        late: Callable[[VoicePacket], None],
        needed_by_s: Callable[[VoicePacket], float],
    ) -> None:
        """`needed_by_s`: monotonic, when a packet must have been delivered to be heard."""
        self._deliver, self._late, self._needed_by_s = deliver, late, needed_by_s
        self._source: int | None = None
        self._next = 0  # number
        self._held: dict[int, VoicePacket] = {}
        self._overtaken_s = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def push(self, packet: VoicePacket) -> None:
        """A packet, at its arrival."""
        ahead = (packet.number - self._next + _NUMBERS // 2) % _NUMBERS - _NUMBERS // 2
        if packet.source != self._source or ahead < -_RESTART:
            self._held.clear()
            self._source, self._next = packet.source, packet.number
        elif ahead < 0:
            self._overtaken_s = packet.arrival_s
            self._late(packet)
            return
        elif packet.number in self._held:
            return
        elif self._held and ahead < min(map(self._ahead, self._held)):
            self._overtaken_s = packet.arrival_s
        self._held[packet.number] = packet
        self._release()

    def close(self) -> None:
        """Deliver nothing any more."""
        self._held.clear()
        self._cancel_timer()

    def _ahead(self, number: int) -> int:
        return (number - self._next) % _NUMBERS

    def _release(self) -> None:
        self._cancel_timer()
        loop = asyncio.get_running_loop()
        while self._held:
            first = self._held[min(self._held, key=self._ahead)]
            if first.number != self._next and len(self._held) < _MOST_HELD:
                reorders = first.arrival_s - self._overtaken_s < _REORDERS_S
                until_s = self._needed_by_s(first) - (_GUARD_S if reorders else _PATIENT_GUARD_S)
                if until_s > loop.time():
                    self._timer = loop.call_at(until_s, self._release)
                    return
            del self._held[first.number]
            self._next = (first.number + 1) % _NUMBERS
            self._deliver(first)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
