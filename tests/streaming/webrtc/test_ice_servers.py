"""STUN and TURN from configuration, a real relay, a fixed range of UDP ports, consent."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiortc import RTCConfiguration, RTCPeerConnection  # noqa: E402
from aiortc.rtcconfiguration import RTCIceTransportPolicy  # noqa: E402

from lipstream.engine.errors import UsageError  # noqa: E402
from lipstream.streaming.webrtc import (
    aioice_patches,  # noqa: E402
    aiortc_patches,  # noqa: E402
)
from lipstream.streaming.webrtc.aioice_patches import PortRange  # noqa: E402
from lipstream.streaming.webrtc.ice_servers import (
    GATHERING_S,
    IceServer,
    all_servers,
    parse_json,
    parse_server,
)  # noqa: E402
from tests.streaming.ports import free_port, is_free  # noqa: E402
from tests.streaming.server.fake_server import AUTHORISED, SDP, TOKEN, server  # noqa: E402
from tests.streaming.waiting import eventually, listens  # noqa: E402
from tests.streaming.webrtc.client import Client, vanish  # noqa: E402

STUN = IceServer(("stun:stun.example.org",))
TURN = IceServer(("turn:t.example.org:3478?transport=udp",), "ann", 'a"b\\c')


def test_servers_are_read_from_options_and_environment() -> None:
    assert parse_server("stun:stun.example.org") == STUN
    assert parse_server('turn:t.example.org:3478?transport=udp,ann,a"b\\c') == TURN
    assert parse_server("turn:h,ann,with,commas").credential == "with,commas"
    text = '[{"urls": ["stun:a", "turn:b"], "username": "u", "credential": "c"}]'
    assert all_servers(["stun:x"], text) == (
        IceServer(("stun:x",)),
        IceServer(("stun:a", "turn:b"), "u", "c"),
    )
    assert all_servers([], None) == ()


@pytest.mark.parametrize(
    "text", ["", "http://a", "stun:", "stun:a?transport=udp", "turn:a", "turn:a,user", "turn:a,u,",
             'stun:a>; rel="x"', "turn:a,u,new\nline", "turn:a?transport=sctp,u,c"],
)  # fmt: skip
def test_a_wrong_server_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="ICE server"):
        parse_server(text)


@pytest.mark.parametrize(
    "text", ["{", "{}", "[1]", "[{}]", '[{"urls": 3}]', '[{"urls": "stun:a", "key": 1}]',
             '[{"urls": "turn:a", "username": 1, "credential": "c"}]', '[{"urls": []}]',
             '[{"urls": "turn:a", "username": "u", "credential": "c", "credentialType": "oauth"}]'],
)  # fmt: skip
def test_a_wrong_environment_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        parse_json(text)


def test_links_are_as_rfc_9725_writes_them() -> None:
    assert STUN.links() == ['<stun:stun.example.org>; rel="ice-server"']
    assert TURN.links() == [
        '<turn:t.example.org:3478?transport=udp>; rel="ice-server"; username="ann"; '
        'credential="a\\"b\\\\c"; credential-type="password"'
    ]


def test_only_clients_with_the_token_get_the_ice_servers() -> None:
    async def test() -> None:
        async with server(token=TOKEN, ice_servers=(TURN,)) as http:
            assert (await http.get("/api/config")).status == 401
            http.headers.update(AUTHORISED)
            config = await (await http.get("/api/config")).json()
            assert config == {"iceServers": [TURN.as_json()]}
            for path in ("/whip", "/whep"):
                options = await http.options(path)
                assert options.status == 204 and options.headers["Accept-Post"] == "application/sdp"
                assert options.headers.getall("Link") == TURN.links()

    asyncio.run(test())


@asynccontextmanager
async def relay(folder: Path) -> AsyncIterator[IceServer]:
    """Debian's coturn on loopback."""
    binary = shutil.which("turnserver")
    if binary is None:
        pytest.skip("no turnserver: apt-get install coturn")
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        binary, "-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1",
        f"--listening-port={port}", "--lt-cred-mech", "--user=ann:secret", "--realm=test",
        "--no-tls", "--no-dtls", "--no-cli", "--allow-loopback-peers", "--no-multicast-peers",
        "--log-file=stdout", "--simple-log", f"--pidfile={folder / 'pid'}",
        f"--userdb={folder / 'turndb'}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=folder,
    )  # fmt: skip
    try:
        # Its TCP listener opens with its UDP one.
        await eventually(lambda: listens(port), what="turnserver listens")
        yield IceServer((f"turn:127.0.0.1:{port}?transport=udp",), "ann", "secret")
    finally:
        process.kill()
        await process.communicate()


def test_a_call_goes_through_a_relay(tmp_path: Path) -> None:
    async def test() -> None:
        async with relay(tmp_path) as turn, server(ice_servers=(turn,)) as http:
            config = (await (await http.get("/api/config")).json())["iceServers"][0]
            client = RelayedClient(IceServer(tuple(config["urls"]), config["username"], "secret"))
            offer = await client.offer()
            assert "typ relay" in offer and "typ host" not in offer
            answer = await http.post("/whip?target=face", data=offer, headers=SDP)
            assert answer.status == 201, await answer.text()
            assert answer.headers.getall("Link") == turn.links()
            text = await answer.text()
            assert "typ relay" in text, "the server has gathered on the relay as well"
            await client.accept(text)
            await eventually(lambda: len(client.pictures) > 30 and client.sounds)
            await eventually(lambda: max(peak for _, peak in client.sounds) > 0.2)
            transport: Any = client.pc.getTransceivers()[0].sender.transport.transport
            pair = next(iter(transport._connection._nominated.values()))
            assert pair.local_candidate.type == "relay"
            await http.delete(answer.headers["Location"])
            await client.close()

    asyncio.run(test())


class RelayedClient(Client):
    """One that is behind a firewall: nothing but the relay."""

    def __init__(self, turn: IceServer) -> None:
        configuration = RTCConfiguration(
            iceServers=[turn.for_aiortc()], iceTransportPolicy=RTCIceTransportPolicy.RELAY
        )
        super().__init__(connection=RTCPeerConnection(configuration))


def ports_of(sdp: str) -> set[int]:
    return {int(line.split()[5]) for line in sdp.splitlines() if line.startswith("a=candidate")}


def test_media_stays_within_the_ports_and_one_call_too_many_is_refused() -> None:
    async def test() -> None:
        low = free_port(socket.SOCK_DGRAM, 2)
        async with server(sessions=8, udp_ports=PortRange(low, low + 1)) as http:
            clients, places, used = [], [], set()
            aiortc_patches.apply(aiortc_patches.PatchOptions(loopback=True))
            offers = []
            for _ in range(3):  # clients of this process take any port
                clients.append(Client())
                offers.append(await clients[-1].offer())
            aiortc_patches.apply(
                aiortc_patches.PatchOptions(loopback=True, udp_ports=PortRange(low, low + 1))
            )
            for client, offer in zip(clients[:2], offers, strict=False):
                answer = await http.post("/whip?target=face", data=offer, headers=SDP)
                assert answer.status == 201, await answer.text()
                ports = ports_of(text := await answer.text())
                assert len(ports) == 1 and ports <= {low, low + 1}
                used |= ports
                places.append(answer.headers["Location"])
                await client.accept(text)
            assert used == {low, low + 1}
            refused = await http.post("/whip?target=face", data=offers[2], headers=SDP)
            assert refused.status == 503 and "Retry-After" in refused.headers
            assert f"{low}-{low + 1}" in (await refused.json())["error"]
            listed = (await (await http.get("/api/sessions")).json())["sessions"]
            assert len(listed) == 2, "the one that was refused has left nothing"
            await eventually(lambda: all(len(client.pictures) > 10 for client in clients[:2]))
            await http.delete(places[0])
            again = await http.post("/whip?target=face", data=offers[2], headers=SDP)
            assert again.status == 201
            for client in clients:
                await client.close()
        assert is_free(low) and is_free(low + 1)

    asyncio.run(test())


@pytest.mark.parametrize("text", ["", "5000", "a-b", "1-2", "50100-50000", "60000-70000"])
def test_a_wrong_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="LOW-HIGH"):
        PortRange.parse(text)


@pytest.mark.parametrize("with_range", [False, True])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_silent_servers_cost_a_call_one_second_at_most(with_range: bool, transport: str) -> None:
    """STUN and TURN at once, on sockets that take packets and connections and never answer."""

    async def test() -> None:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stun,
            socket.create_server(("127.0.0.1", 0)) as tcp,
        ):
            stun.bind(("127.0.0.1", 0))
            at = (stun if transport == "udp" else tcp).getsockname()[1]
            silent = (
                IceServer((f"stun:127.0.0.1:{stun.getsockname()[1]}",)),
                IceServer((f"turn:127.0.0.1:{at}?transport={transport}",), "ann", "secret"),
            )
            low = free_port(socket.SOCK_DGRAM)
            ports = PortRange(low, low) if with_range else None
            async with server(ice_servers=silent, udp_ports=ports) as http:
                aiortc_patches.apply(aiortc_patches.PatchOptions(loopback=True))
                client = Client()
                offer = await client.offer()
                aiortc_patches.apply(aiortc_patches.PatchOptions(loopback=True, udp_ports=ports))
                loop = asyncio.get_running_loop()
                began_s = loop.time()
                answer = await http.post("/whip?target=face", data=offer, headers=SDP)
                took_s = loop.time() - began_s
                assert answer.status == 201, await answer.text()
                # Less than the second would mean that nobody was asked.
                assert GATHERING_S <= took_s < GATHERING_S + 1.5
                assert stun.recv(2048, socket.MSG_DONTWAIT), "the STUN server was asked"
                await client.accept(await answer.text())
                await eventually(lambda: client.pictures)
                await client.close()

    asyncio.run(test())


def test_a_silent_client_is_known_soon_and_a_short_pause_is_survived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expiry_s = 4.0
    monkeypatch.setattr(aioice_patches, "CONSENT_EXPIRY_S", expiry_s)

    async def test() -> None:
        async with server() as http:
            client = Client()
            answer = await http.post("/whip?target=face", data=await client.offer(), headers=SDP)
            place = answer.headers["Location"]
            await client.accept(await answer.text())
            await eventually(lambda: client.pictures)
            protocols = [
                protocol
                for transceiver in client.pc.getTransceivers()
                for protocol in transceiver.sender.transport.transport._connection._protocols
            ]
            received = {id(p): p.datagram_received for p in protocols}
            for protocol in protocols:  # a network that is gone for 2 s
                protocol.datagram_received = lambda data, addr: None
            loop = asyncio.get_running_loop()
            paused_s = loop.time()
            await eventually(lambda: loop.time() > paused_s + 2)
            for protocol in protocols:
                protocol.datagram_received = received[id(protocol)]
            before = len(client.pictures)
            await eventually(lambda: len(client.pictures) > before + 5, 2, "the call goes on")
            # Consent is asked for five times a second: one answer after the pause.
            await eventually(lambda: loop.time() > paused_s + 2.6)
            await vanish(client)
            gone_s = loop.time()

            async def has_ended() -> bool:
                nonlocal answer
                answer = await http.get(place)
                return answer.status != 200

            await eventually(has_ended, expiry_s + 1)
            assert loop.time() - gone_s > expiry_s - 0.5
            assert "ended" in (await answer.json())["error"]
            await client.close()

    asyncio.run(test())
