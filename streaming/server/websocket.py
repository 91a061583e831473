"""A voice over a WebSocket: any text-to-speech can drive a target.

    -> {"type": "start", "rate": 24000}        16000, 24000 or 48000; a new turn
    -> binary: PCM16 mono, little-endian, in messages of any number of bytes
    -> {"type": "end"}                         all of the turn has been sent
    -> {"type": "interrupt"}                   stop now
    <- {"type": "started" | "played" | "ended" | "interrupted", "played_ms": …}
    <- {"type": "error", "reason": …}

`ended` comes when a turn has been played to its end. The next one may be sent before: turns are
played one after another, and `played` is of the one that is heard. The picture is watched through
WHEP, in the session of the same name (by default the target's).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from aiohttp import WSMsgType, web

from lipstream.engine.types import F32, SAMPLE_RATE_HZ
from lipstream.streaming.server.rooms import Rooms
from lipstream.streaming.server.signalling import enter, session_name
from lipstream.streaming.session.audio_in import SpeechResampler
from lipstream.streaming.session.pcm import Pcm16
from lipstream.streaming.session.runner import SessionRunner

logger = logging.getLogger(__name__)

RATES_HZ: Final = (16_000, 24_000, 48_000)
MAX_BYTES_PER_S: Final = 2 * max(RATES_HZ)
_PIECE_BYTES: Final = MAX_BYTES_PER_S  # of a long message that are taken in at a time
_MAX_TURNS: Final = 256  # that wait to be played
_MAX_REASON_BYTES: Final = 120  # RFC 6455 5.5.1, less the code
_REPORT_INTERVAL_S: Final = 0.25


def routes(rooms: Rooms) -> list[web.RouteDef]:
    """GET /ws?target=NAME."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        room = await enter(rooms, request, session_name(request))
        # As much as the queue takes at the highest rate: what is larger could never be played.
        most_bytes = room.runner.options.sound_capacity_s * MAX_BYTES_PER_S
        socket = web.WebSocketResponse(max_msg_size=most_bytes, heartbeat=20)
        try:
            await socket.prepare(request)
        except BaseException:
            await rooms.leave_unjoined(room)
            raise
        key = rooms.join(room, _Member(socket))
        try:
            await _VoiceSocket(room.runner, socket).serve()
        except Exception:
            logger.exception("a voice by WebSocket failed")
            await socket.close(code=1011, message=b"internal error")
        finally:
            await rooms.leave(key, "the socket was closed")
        return socket

    return [web.get("/ws", handle)]


class _Member:
    """The socket as a member of its room."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self.silent_s = 0.0  # the heartbeat ends a socket that answers nothing

    async def close(self, reason: str) -> None:
        if not self._socket.closed:
            await self._socket.close(
                code=1001, message=reason.encode("ascii", "replace")[:_MAX_REASON_BYTES]
            )


class _ProtocolError(Exception):
    """A message that is not of the protocol; the sender gets the reason and the socket stays."""


@dataclass(slots=True)
class _Turn:
    """A turn that has not been played to its end."""

    rate_hz: int
    pcm: Pcm16 = field(default_factory=Pcm16)
    resampler: SpeechResampler = field(default_factory=SpeechResampler)
    spans: list[tuple[int, int]] = field(default_factory=list)  # of its sound, session samples
    all_sent: bool = False

    def add(self, start_sample: int, end_sample: int) -> None:
        """More of its sound lies here."""
        if self.spans and self.spans[-1][1] == start_sample:
            start_sample = self.spans.pop()[0]
        self.spans.append((start_sample, end_sample))

    def played_ms(self, left_sample: int) -> float:
        """How much of it has left, when all sound before `left_sample` has."""
        played = sum(max(0, min(end, left_sample) - start) for start, end in self.spans)
        return played * 1000 / SAMPLE_RATE_HZ

    def is_over(self, left_sample: int) -> bool:
        """Whether all of it was sent and has left."""
        return self.all_sent and (not self.spans or self.spans[-1][1] <= left_sample)


class _VoiceSocket:
    """The messages of one socket."""

    def __init__(self, runner: SessionRunner, socket: web.WebSocketResponse) -> None:
        self._runner = runner
        self._socket = socket
        self._turns: deque[_Turn] = deque()  # the first is heard; the last may still be sent
        self._runner_turn = runner.turn  # changes when anybody interrupts

    async def serve(self) -> None:
        """Until the other side closes."""
        async with asyncio.TaskGroup() as group:
            reports = group.create_task(self._report())
            await self._receive()
            reports.cancel()

    async def _receive(self) -> None:
        async for message in self._socket:
            try:
                if message.type is WSMsgType.BINARY:
                    await self._push_audio(message.data)
                elif message.type is WSMsgType.TEXT:
                    await self._control(message.data)
            except _ProtocolError as error:
                await self._send({"type": "error", "reason": str(error)})

    async def _push_audio(self, data: bytes) -> None:
        if not self._turns or self._turns[-1].all_sent:
            raise _ProtocolError(
                'sound outside a turn; send {"type": "start", "rate": 16000} first'
            )
        turn = self._turns[-1]
        queued_s, capacity_s = self._runner.waiting_s, self._runner.options.sound_capacity_s
        if queued_s + len(data) / 2 / turn.rate_hz > capacity_s:
            # What is queued stays, and what comes too early is refused: the sender can send again.
            raise _ProtocolError(
                f"{queued_s:.1f} s of sound are queued, {capacity_s} are the most: "
                f"these {len(data)} bytes are dropped; send them later"
            )
        for at in range(0, len(data), _PIECE_BYTES):
            if at:
                await asyncio.sleep(0)  # ten minutes at once must not hold up the others' sound
            pcm = turn.pcm.push(data[at : at + _PIECE_BYTES])
            if pcm.size:
                self._queue(turn, turn.resampler.push_samples(pcm, turn.rate_hz))

    def _queue(self, turn: _Turn, speech: F32) -> None:
        self._forget_interrupted()
        if speech.size:
            start = self._runner.push_audio(speech)
            turn.add(start, start + speech.size)

    def _all_sent(self, turn: _Turn) -> None:
        if not turn.all_sent:
            self._queue(turn, turn.resampler.flush())
            turn.all_sent = True

    async def _control(self, text: str) -> None:
        try:
            message = json.loads(text)
            kind = message["type"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _ProtocolError(
                'expected a JSON object with "type": start, end or interrupt'
            ) from error
        if kind == "start":
            rate = message.get("rate", SAMPLE_RATE_HZ)
            if rate not in RATES_HZ:
                raise _ProtocolError(
                    f"rate {rate!r}: expected one of {', '.join(map(str, RATES_HZ))}"
                )
            if len(self._turns) == _MAX_TURNS:
                raise _ProtocolError(f"{_MAX_TURNS} turns wait to be played; send this one later")
            if self._turns:
                self._all_sent(self._turns[-1])
            else:
                self._runner.begin_turn()
            self._turns.append(_Turn(int(rate)))
            await self._send_played("started", 0)
        elif kind == "end":
            if not self._turns:
                raise _ProtocolError("end without start")
            self._all_sent(self._turns[-1])
        elif kind == "interrupt":
            await self._end_turns()
            self._turns.clear()
            await self._send_played("interrupted", self._runner.interrupt())
        else:
            raise _ProtocolError(f"type {kind!r}: expected start, end or interrupt")

    def _forget_interrupted(self) -> None:
        """Where somebody else interrupted, nothing that was queued will be played."""
        if self._runner.turn != self._runner_turn:
            self._runner_turn = self._runner.turn
            for turn in self._turns:
                turn.spans.clear()

    async def _end_turns(self) -> None:
        """Report the turns that have been played to their end."""
        self._forget_interrupted()
        left_sample = self._runner.left_sample
        while self._turns and self._turns[0].is_over(left_sample):
            over = self._turns.popleft()
            if self._turns:
                spans = self._turns[0].spans
                self._runner.begin_turn(spans[0][0] if spans else None)
            await self._send_played("ended", over.played_ms(left_sample))

    async def _report(self) -> None:
        """Tell how much of the turn has been played, until the conversation ends."""
        reported: tuple[_Turn, int] | None = None
        while self._runner.error is None:
            await asyncio.sleep(_REPORT_INTERVAL_S)
            await self._end_turns()
            if self._turns:
                heard = self._turns[0]
                played_ms = round(heard.played_ms(self._runner.left_sample))
                if reported is None or reported[0] is not heard or reported[1] != played_ms:
                    await self._send_played("played", played_ms)
                reported = (heard, played_ms)
        await self._send({"type": "error", "reason": self._runner.error})
        await self._socket.close(code=1011, message=b"the conversation has failed")

    async def _send_played(self, kind: str, played_ms: float) -> None:
        await self._send({"type": kind, "played_ms": round(played_ms)})

    async def _send(self, message: dict[str, object]) -> None:
        if not self._socket.closed:
            with suppress(ConnectionError):  # the other side has gone: `_receive` ends as well
                await self._socket.send_json(message)
