"""A voice over a WebSocket: any text-to-speech can drive a target.

    -> {"type": "start", "rate": 24000}        16000, 24000 or 48000; a new turn
    -> binary: PCM16 mono, little-endian, any length
    -> {"type": "end"}                         all of the turn has been sent
    -> {"type": "interrupt"}                   stop now
    <- {"type": "started" | "played" | "ended" | "interrupted", "played_ms": …}
    <- {"type": "error", "reason": …}

`ended` comes when the turn has been played to its end. The picture is watched through WHEP, in the
session of the same name (by default the target's).
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import Final

import numpy as np
from aiohttp import WSMsgType, web

from lipstream.engine.types import SAMPLE_RATE_HZ
from lipstream.streaming.server.rooms import Rooms
from lipstream.streaming.server.signalling import enter
from lipstream.streaming.session.audio_in import SpeechResampler
from lipstream.streaming.session.runner import SessionRunner

logger = logging.getLogger(__name__)

RATES_HZ: Final = (16_000, 24_000, 48_000)
_MAX_MESSAGE_BYTES: Final = 1 << 20  # 10 s at 48 kHz
_MAX_REASON_BYTES: Final = 120  # RFC 6455 5.5.1, less the code
_REPORT_INTERVAL_S: Final = 0.25


def routes(rooms: Rooms) -> list[web.RouteDef]:
    """GET /ws?target=NAME."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        name = request.query.get("session") or request.query.get("target")
        room = await enter(rooms, request, name)
        socket = web.WebSocketResponse(max_msg_size=_MAX_MESSAGE_BYTES, heartbeat=20)
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


class _VoiceSocket:
    """The messages of one socket."""

    def __init__(self, runner: SessionRunner, socket: web.WebSocketResponse) -> None:
        self._runner = runner
        self._socket = socket
        self._rate_hz: int | None = None  # of the turn that is being sent; None between turns
        self._resampler = SpeechResampler()
        self._all_sent = False

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
                    self._push_audio(message.data)
                elif message.type is WSMsgType.TEXT:
                    await self._control(message.data)
            except _ProtocolError as error:
                await self._send({"type": "error", "reason": str(error)})

    def _push_audio(self, data: bytes) -> None:
        if self._rate_hz is None or self._all_sent:
            raise _ProtocolError(
                'sound outside a turn; send {"type": "start", "rate": 16000} first'
            )
        if len(data) % 2:
            raise _ProtocolError(f"{len(data)} bytes of PCM16: expected an even number")
        if not data:
            return
        queued_s, capacity_s = self._runner.waiting_s, self._runner.options.sound_capacity_s
        if queued_s + len(data) / 2 / self._rate_hz > capacity_s:
            # What is queued stays, and what comes too early is refused: the sender can send again.
            raise _ProtocolError(
                f"{queued_s:.1f} s of sound are queued, {capacity_s} are the most: "
                f"these {len(data)} bytes are dropped; send them later"
            )
        pcm = np.frombuffer(data, "<i2").astype(np.int16)
        self._runner.push_audio(self._resampler.push_samples(pcm, self._rate_hz))

    async def _control(self, text: str) -> None:
        try:
            message = json.loads(text)
            kind = message["type"]
        except (ValueError, TypeError, KeyError) as error:
            raise _ProtocolError(
                'expected a JSON object with "type": start, end or interrupt'
            ) from error
        if kind == "start":
            rate = message.get("rate", SAMPLE_RATE_HZ)
            if rate not in RATES_HZ:
                raise _ProtocolError(
                    f"rate {rate!r}: expected one of {', '.join(map(str, RATES_HZ))}"
                )
            self._rate_hz, self._all_sent = int(rate), False
            self._resampler = SpeechResampler()
            self._runner.begin_turn()
            await self._send_played("started", 0)
        elif kind == "end":
            if self._rate_hz is None:
                raise _ProtocolError("end without start")
            self._all_sent = True
        elif kind == "interrupt":
            played_ms = self._runner.interrupt()
            self._rate_hz, self._all_sent = None, False
            await self._send_played("interrupted", played_ms)
        else:
            raise _ProtocolError(f"type {kind!r}: expected start, end or interrupt")

    async def _report(self) -> None:
        """Tell how much of the turn has been played, until the conversation ends."""
        reported_ms = -1
        while self._runner.error is None:
            await asyncio.sleep(_REPORT_INTERVAL_S)
            played_ms = round(self._runner.played_ms())
            if self._all_sent and not self._runner.speaking:
                self._rate_hz, self._all_sent = None, False
                await self._send_played("ended", played_ms)
            elif played_ms != reported_ms and self._rate_hz is not None:
                await self._send_played("played", played_ms)
            reported_ms = played_ms
        await self._send({"type": "error", "reason": self._runner.error})
        await self._socket.close(code=1011, message=b"the conversation has failed")

    async def _send_played(self, kind: str, played_ms: float) -> None:
        await self._send({"type": kind, "played_ms": round(played_ms)})

    async def _send(self, message: dict[str, object]) -> None:
        if not self._socket.closed:
            with suppress(ConnectionError):  # the other side has gone: `_receive` ends as well
                await self._socket.send_json(message)
