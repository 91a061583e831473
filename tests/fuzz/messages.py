"""What a client sends: offers, SDP fragments, and the messages of a voice's WebSocket."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiohttp import WSMessage, WSMsgType
from aiortc.sdp import SessionDescription

from lipstream.streaming.server.websocket import _VoiceSocket
from lipstream.streaming.session.runner import RunnerOptions, SessionRunner
from lipstream.streaming.webrtc.ice_restart import IceRestart
from lipstream.streaming.webrtc.negotiation import Negotiation
from lipstream.streaming.webrtc.offer import receives
from lipstream.streaming.webrtc.peer import Peer, PeerOptions
from lipstream.streaming.webrtc.sdp_lines import read_sdp
from tests.fuzz.mutation import mutated, mutated_text
from tests.streaming.live_engine import LiveFakeEngine
from tests.streaming.webrtc.offers import OPUS, VP8, audio, h264, offer, section, video

_CANDIDATES = (
    "a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host",
    "a=candidate:2 1 udp 1 0123abcd-1111.local 5000 typ host",
    "a=candidate:3 1 tcp 1 ::1 9 typ host tcptype active",
)
_MORE = (
    *_CANDIDATES, "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid", "a=rtcp-fb:96 nack pli",
    "a=ssrc:1 cname:x", "a=rtcp-rsize",
)  # fmt: skip
_H264 = h264(102, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f")
_RTX = ("a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96")
_DATA = section("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", None, "2", ["a=sctp-port:5000"])
OFFERS = (
    offer(audio(lines=(*OPUS, *_MORE)), video(lines=(*VP8, *_RTX, *_H264))),
    offer(audio("sendonly")),
    offer(audio("recvonly"), video(lines=_H264), _DATA),
    offer(video(lines=(*VP8, *_MORE), mid=None), audio(mid=None), bundle=False),
)
FRAGMENT = "\r\n".join(
    ["a=ice-ufrag:abcd", "a=ice-pwd:abcdefghijklmnopqrstuv", "m=audio 9 UDP/TLS/RTP/SAVPF 0"]
    + ["a=mid:0", *_CANDIDATES, "a=end-of-candidates", ""]
)
_CONTROLS = (
    '{"type": "start", "rate": 24000}', '{"type": "start"}', '{"type": "end"}',
    '{"type": "interrupt"}',
)  # fmt: skip


def _other(text: str, rng: random.Random) -> str:
    if rng.random() < 0.3:
        return mutated(text.encode(), rng).decode("utf8", "replace")
    return mutated_text(text, rng)


def offers(folder: Path) -> Callable[[random.Random], None]:
    """Read, and made into what aiortc is given; which aiortc then reads."""

    def case(rng: random.Random) -> None:
        text = _other(rng.choice(OFFERS), rng)
        receives(text)
        made = Negotiation(read_sdp(text), rng.random() < 0.8, rng.random() < 0.8)
        SessionDescription.parse(made.for_aiortc())
        made.local_names()

    return case


def calls(folder: Path) -> Callable[[random.Random], None]:
    """Answered by a connection; and a fragment for a restart of another one."""

    def case(rng: random.Random) -> None:
        asyncio.run(_answer(_other(rng.choice(OFFERS), rng), _other(FRAGMENT, rng)))

    return case


async def _answer(sdp: str, fragment: str) -> None:
    feed: Any = SimpleNamespace(
        runner=SessionRunner(LiveFakeEngine()), level_idc=31, attach=_nothing, detach=_nothing,
        want_key_frame=_nothing, encoding=None,
    )  # fmt: skip
    peer = Peer(feed, PeerOptions(), _nothing)
    try:
        answer = await peer.answer(sdp)
        assert len(read_sdp(answer).sections) == len(read_sdp(sdp).sections)
        transceivers = peer.pc.getTransceivers()
        if len({id(t.receiver.transport) for t in transceivers}) == 1:
            restart = IceRestart(peer.pc)
            try:
                await restart.set_remote(fragment)
            finally:
                await restart.close()
    finally:
        await peer.close()


def _nothing(*arguments: object) -> None:
    pass


class _Socket:
    """The server's end of a WebSocket: yields messages and reads every answer."""

    closed = False

    def __init__(self, messages: list[WSMessage]) -> None:
        self._messages = messages

    async def __aiter__(self) -> AsyncIterator[WSMessage]:
        for message in self._messages:
            yield message

    async def send_json(self, message: dict[str, Any]) -> None:
        assert isinstance(message["type"], str)
        json.dumps(message, allow_nan=False)


def socket(folder: Path) -> Callable[[random.Random], None]:
    """A conversation of a few messages, good ones among bad."""
    loop = asyncio.new_event_loop()

    def case(rng: random.Random) -> None:
        messages = [_message(rng) for _ in range(rng.randint(1, 6))]
        runner = SessionRunner(LiveFakeEngine(), RunnerOptions(sound_capacity_s=600))
        voice = _VoiceSocket(runner, _Socket(messages))  # type: ignore[arg-type]
        loop.run_until_complete(_converse(voice, runner, rng))

    return case


async def _converse(voice: _VoiceSocket, runner: SessionRunner, rng: random.Random) -> None:
    await voice._receive()
    if rng.random() < 0.3:
        runner.interrupt()
    await voice._end_turns()


def _message(rng: random.Random) -> WSMessage:
    kind = rng.randrange(6)
    if kind < 2:
        return WSMessage(WSMsgType.TEXT, rng.choice(_CONTROLS), None)
    if kind < 4:
        return WSMessage(WSMsgType.TEXT, _other(rng.choice(_CONTROLS), rng), None)
    return WSMessage(WSMsgType.BINARY, rng.randbytes(rng.choice((0, 1, 2, 321, 2001))), None)
