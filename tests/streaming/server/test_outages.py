"""Calls whose network goes away: they go on, move to other addresses, or are taken up again."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiohttp import ClientResponse, ClientSession  # noqa: E402

from lipstream.engine.errors import UsageError  # noqa: E402
from lipstream.streaming.server import rooms as rooms_module  # noqa: E402
from lipstream.streaming.webrtc import aioice_patches  # noqa: E402
from lipstream.streaming.webrtc.ice_restart import MEDIA_TYPE, IceRestart  # noqa: E402
from tests.streaming.server.fake_server import SDP, server  # noqa: E402
from tests.streaming.waiting import eventually  # noqa: E402
from tests.streaming.webrtc.client import Client, vanish  # noqa: E402

OFFER_TO = "/whip?target=face"


async def call(
    http: ClientSession, client: Client, token: str | None = None
) -> tuple[ClientResponse, str]:
    """(the answer, the session's name), when pictures come."""
    headers = SDP if token is None else {**SDP, "Lipstream-Resume": token}
    answer = await http.post(OFFER_TO, data=await client.offer(), headers=headers)
    assert answer.status == 201, await answer.text()
    await client.accept(await answer.text())
    await eventually(lambda: len(client.pictures) > 3)
    figures = await (await http.get(answer.headers["Location"])).json()
    return answer, figures["session"]


async def session_names(http: ClientSession) -> list[str]:
    sessions = (await (await http.get("/api/sessions")).json())["sessions"]
    return [session["session"] for session in sessions]


@pytest.mark.parametrize("ends_first", [False, True], ids=["still there", "closed"])
def test_a_token_takes_the_conversation_up_by_another_connection(ends_first: bool) -> None:
    async def test() -> None:
        async with server(sessions=1) as http:
            first, second, third = Client(), Client(), Client()
            answer, name = await call(http, first)
            token = answer.headers["Lipstream-Resume"]
            assert len(token) >= 24 and "Lipstream-Resumed" not in answer.headers
            exposed = answer.headers["Access-Control-Expose-Headers"]
            assert {"Lipstream-Resume", "Lipstream-Resumed"} <= set(exposed.split(", "))
            if ends_first:
                await first.close()
                place = answer.headers["Location"]

                async def has_left() -> bool:
                    return (await http.get(place)).status == 404

                await eventually(has_left)
                assert await session_names(http) == [name], "it is kept"
            again, same = await call(http, second, token)
            assert again.headers["Lipstream-Resumed"] == "yes" and same == name
            assert again.headers["Lipstream-Resume"] != token
            assert (await http.get(answer.headers["Location"])).status == 410
            assert await session_names(http) == [name]
            await http.delete(again.headers["Location"])
            assert await session_names(http) == [], "an end that was asked for keeps nothing"
            fresh, other = await call(http, third, again.headers["Lipstream-Resume"])
            assert fresh.headers["Lipstream-Resumed"] == "no" and other != name
            for client in (first, second, third):
                await client.close()

    asyncio.run(test())


def test_a_kept_conversation_ends_and_its_token_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms_module, "KEEP_S", 0.5)

    async def test() -> None:
        async with server() as http:
            first, second = Client(), Client()
            answer, name = await call(http, first)
            await first.close()
            await eventually(lambda: is_empty(http))
            late, other = await call(http, second, answer.headers["Lipstream-Resume"])
            assert late.headers["Lipstream-Resumed"] == "no" and other != name
            await second.close()

    asyncio.run(test())


async def is_empty(http: ClientSession) -> bool:
    return await session_names(http) == []


def test_a_call_that_nobody_answers_gives_way_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with server(sessions=1) as http:
            killed, other = Client(), Client()
            answer, name = await call(http, killed)
            refused = await http.post(OFFER_TO, data=await other.offer(), headers=SDP)
            assert refused.status == 503
            await vanish(killed)
            monkeypatch.setattr(rooms_module, "_SILENT_S", 0.8)
            await asyncio.sleep(1.0)
            taken = await http.post(OFFER_TO, data=await other.offer(), headers=SDP)
            assert taken.status == 201
            gone = await http.get(answer.headers["Location"])
            assert "another call needed its place" in (await gone.json())["error"]
            assert name not in await session_names(http)
            await killed.close()
            await other.close()

    asyncio.run(test())


def test_a_call_outlives_4_s_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of ICE cannot be scripted, so this one takes its time."""
    from aioice.ice import StunProtocol

    receive: Any = StunProtocol.datagram_received
    out = False

    def datagram_received(self: Any, data: bytes, address: Any) -> None:
        if not out:
            receive(self, data, address)

    monkeypatch.setattr(StunProtocol, "datagram_received", datagram_received)

    async def test() -> None:
        nonlocal out
        async with server() as http:
            client = Client()
            answer, _ = await call(http, client)
            out = True
            await asyncio.sleep(4.2)
            before = len(client.pictures)
            out, back_s = False, time.monotonic()
            await eventually(lambda: len(client.pictures) > before + 3, 2.0, "within 2 s")
            print(f"pictures {time.monotonic() - back_s:.2f} s after the network")
            assert client.pc.connectionState == "connected"
            assert (await http.get(answer.headers["Location"])).status == 200
            await client.close()

    asyncio.run(test())


def test_consent_expires_after_30_s_in_all() -> None:
    assert aioice_patches.CONSENT_EXPIRY_S == rooms_module.KEEP_S == 30


def cut_off(client: Client) -> None:
    """Nothing gets from or to its present addresses any more; its sockets are still there."""
    for transceiver in client.pc.getTransceivers():
        connection: Any = transceiver.sender.transport.transport._connection
        for protocol in connection._protocols:
            protocol.datagram_received = lambda data, address: None
            protocol.send_stun = lambda message, address: None
            protocol.send_data = nothing


async def nothing(data: bytes, address: Any) -> None:
    """In place of sending."""


def test_an_ice_restart_moves_a_call_to_other_addresses() -> None:
    async def test() -> None:
        async with server() as http:
            client = Client()
            answer, name = await call(http, client)
            place, tag = answer.headers["Location"], answer.headers["ETag"]
            for _ in range(2):
                cut_off(client)
                restart = IceRestart(client.pc)
                patched = await http.patch(
                    place,
                    data=await restart.local_fragment(),
                    headers={"Content-Type": MEDIA_TYPE, "If-Match": '"*"'},
                )
                assert patched.status == 200, await patched.text()
                assert patched.content_type == MEDIA_TYPE and patched.headers["ETag"] != tag
                tag = patched.headers["ETag"]
                await restart.set_remote(await patched.text())
                await restart.connect()
                back_s, before = time.monotonic(), len(client.pictures)
                await eventually(lambda n=before: len(client.pictures) > n + 10)  # type: ignore[misc]
                heard = client.sounds[-1][0]
                assert heard > back_s, "sound comes as well"
            assert await session_names(http) == [name]
            assert client.pc.connectionState == "connected"
            await http.delete(place)
            await eventually(lambda: client.pc.connectionState == "closed", what="keys were kept")
            await client.close()
        left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        await eventually(lambda: all(t.done() for t in left), what=str(left))

    asyncio.run(test())


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ("", {"Content-Type": MEDIA_TYPE}, 428),
        ("", {"Content-Type": "application/sdp", "If-Match": "*"}, 415),
        ("", {"Content-Type": MEDIA_TYPE, "If-Match": "*"}, 400),
        ("hello", {"Content-Type": MEDIA_TYPE, "If-Match": "*"}, 400),
        ("a=ice-ufrag:abcd\r\n", {"Content-Type": MEDIA_TYPE, "If-Match": "*"}, 400),
        ("m=x\r\na=mid:0\r\n", {"Content-Type": MEDIA_TYPE, "If-Match": "*"}, 400),
        ("", {"Content-Type": MEDIA_TYPE, "If-Match": '"another"'}, 412),
        ("", {"Content-Type": MEDIA_TYPE, "If-Match": "TAG"}, 422),
    ],
)
def test_other_patches_are_refused_as_rfc_9725_says(
    body: str, headers: dict[str, str], status: int
) -> None:
    async def test() -> None:
        async with server() as http:
            client = Client()
            answer, _ = await call(http, client)
            if headers.get("If-Match") == "TAG":
                headers["If-Match"] = answer.headers["ETag"]
            refused = await http.patch(answer.headers["Location"], data=body, headers=headers)
            assert refused.status == status, await refused.text()
            assert (await refused.json())["error"]
            seen = len(client.pictures)
            await eventually(lambda: len(client.pictures) > seen + 3, what="the call goes on")
            await client.close()

    asyncio.run(test())


def test_the_end_of_a_call_is_told_with_its_reason() -> None:
    async def test() -> None:
        said: list[str] = []
        async with server() as http:
            client = Client()
            channel = client.pc.createDataChannel("lipstream")
            channel.on("message", said.append)
            await call(http, client)
            await eventually(lambda: channel.readyState == "open")
        # The server has stopped.
        await eventually(lambda: said)
        assert json.loads(said[0]) == {"type": "ended", "reason": "the server stops"}
        await eventually(lambda: client.pc.connectionState == "closed")
        await client.close()

    asyncio.run(test())


def test_a_restart_needs_a_connection() -> None:
    async def test() -> None:
        client = Client()
        client.pc.addTransceiver("audio")  # not bundled yet
        with pytest.raises(UsageError, match="bundled"):
            IceRestart(client.pc)
        await client.close()

    asyncio.run(test())
