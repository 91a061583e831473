"""A voice over a WebSocket: any text-to-speech can drive a target.

    -> {"type": "start", "rate": 24000}        16000, 24000 or 48000; a new turn
    -> binary: PCM16 mono, little-endian, any length
    -> {"type": "end"}                         all of the turn has been sent
    -> {"type": "interrupt"}                   stop now
    <- {"type": "started" | "played" | "ended" | "interrupted", "played_ms": …}
    <- {"type": "error", "reason": …}

`ended` comes when the turn has been said to its end. The picture is watched through WHEP, in the
session of the same name (by default the target's).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import av
import numpy as np
from aiohttp import WSMsgType, web

from lipstream.engine.types import F32, SAMPLE_RATE_HZ
from lipstream.streaming.server.rooms import Rooms
from lipstream.streaming.server.signalling import enter
from lipstream.streaming.session.runner import SessionRunner

RATES_HZ: Final = (16_000, 24_000, 48_000)
_MAX_MESSAGE_BYTES: Final = 1 << 20  # 10 s at 48 kHz
_REPORT_S: Final = 0.25


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
            await _Turns(room.runner, socket).serve()
        finally:
            await rooms.leave(key, "the socket was closed")
        return socket

    return [web.get("/ws", handle)]


class _Member:
    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def close(self) -> None:
        if not self._socket.closed:
            await self._socket.close(code=1001, message=b"the server ends this session")


class _Wrong(Exception):
    """A message that is not of the protocol; it is answered and ignored."""


class _Turns:
    """The messages of one socket."""

    def __init__(self, runner: SessionRunner, socket: web.WebSocketResponse) -> None:
        self._runner = runner
        self._socket = socket
        self._rate_hz: int | None = None
        self._resampler: av.AudioResampler | None = None
        self._ending = False

    async def serve(self) -> None:
        """Until the other side closes."""
        reports = asyncio.create_task(self._report())
        try:
            async for message in self._socket:
                try:
                    if message.type is WSMsgType.BINARY:
                        self._hear(message.data)
                    elif message.type is WSMsgType.TEXT:
                        await self._control(message.data)
                except _Wrong as error:
                    await self._socket.send_json({"type": "error", "reason": str(error)})
        finally:
            reports.cancel()
            await asyncio.gather(reports, return_exceptions=True)

    def _hear(self, data: bytes) -> None:
        if self._rate_hz is None or self._ending:
            raise _Wrong('sound outside a turn; send {"type": "start", "rate": 16000} first')
        if len(data) % 2:
            raise _Wrong(f"{len(data)} bytes of PCM16: expected an even number")
        if not data:
            return
        waiting_s, most_s = self._runner.waiting_s, self._runner.options.sound_capacity_s
        if waiting_s + len(data) / 2 / self._rate_hz > most_s:
            # What comes too early goes, not what is about to be said; and the sender hears of it.
            raise _Wrong(
                f"{waiting_s:.1f} s of sound wait to be said, {most_s} are the most: "
                f"these {len(data)} bytes are dropped; send them later"
            )
        self._runner.push_audio(self._to_16_khz(np.frombuffer(data, "<i2")))

    def _to_16_khz(self, pcm: Any) -> F32:
        if self._resampler is None:
            return (pcm / np.float32(32768)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(pcm, np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate = self._rate_hz or SAMPLE_RATE_HZ
        parts = [out.to_ndarray()[0] for out in self._resampler.resample(frame)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    async def _control(self, text: str) -> None:
        try:
            message = json.loads(text)
            kind = message["type"]
        except (ValueError, TypeError, KeyError) as error:
            raise _Wrong('expected a JSON object with "type": start, end or interrupt') from error
        if kind == "start":
            rate = message.get("rate", SAMPLE_RATE_HZ)
            if rate not in RATES_HZ:
                raise _Wrong(f"rate {rate!r}: expected one of {', '.join(map(str, RATES_HZ))}")
            self._rate_hz, self._ending = rate, False
            self._resampler = (
                None
                if rate == SAMPLE_RATE_HZ
                else av.AudioResampler("fltp", "mono", SAMPLE_RATE_HZ)
            )
            self._runner.begin_turn()
            await self._tell("started", 0)
        elif kind == "end":
            if self._rate_hz is None:
                raise _Wrong("end without start")
            self._ending = True
        elif kind == "interrupt":
            played_ms = self._runner.interrupt()
            self._rate_hz, self._ending = None, False
            await self._tell("interrupted", played_ms)
        else:
            raise _Wrong(f"type {kind!r}: expected start, end or interrupt")

    async def _report(self) -> None:
        told = -1
        while True:
            await asyncio.sleep(_REPORT_S)
            played_ms = round(self._runner.played_ms())
            if self._ending and not self._runner.speaking:
                self._rate_hz, self._ending = None, False
                await self._tell("ended", played_ms)
            elif played_ms != told and self._rate_hz is not None:
                await self._tell("played", played_ms)
            told = played_ms

    async def _tell(self, kind: str, played_ms: float) -> None:
        if not self._socket.closed:
            await self._socket.send_json({"type": kind, "played_ms": round(played_ms)})
