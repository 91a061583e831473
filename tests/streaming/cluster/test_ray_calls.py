"""Calls on a Ray cluster of two nodes: over both, from one to two, and when one of them dies."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")
pytest.importorskip("ray", reason="Ray is not installed: pip install 'lipstream[ray]'")

from aiohttp import ClientError, ClientSession  # noqa: E402

from lipstream.bench.measure.browser import CHROMIUM, FLAGS  # noqa: E402
from lipstream.streaming.publish import PublishOptions, _publish  # noqa: E402
from lipstream.streaming.webrtc import aiortc_patches  # noqa: E402
from tests.streaming.cluster.ray_cluster import STARTS_S, TOKEN, RayCluster  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine  # noqa: E402
from tests.streaming.server.fake_server import SDP  # noqa: E402
from tests.streaming.waiting import eventually  # noqa: E402
from tests.streaming.webrtc.client import Client  # noqa: E402

SECOND = "127.0.0.2"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    made = RayCluster()
    try:
        made.serve()
        yield made
    finally:
        made.close()


def run(test: Coroutine[Any, Any, None]) -> None:
    aiortc_patches.apply(aiortc_patches.PatchOptions(loopback=True))
    asyncio.run(test)


def session() -> ClientSession:
    return ClientSession(headers={"Authorization": f"Bearer {TOKEN}"})


class Call:
    """A call by one node, wherever it goes on."""

    def __init__(self, http: ClientSession, url: str) -> None:
        self.http, self.url = http, url
        self.client = Client()
        self.location = self.trace = self.resume = self.answer = ""
        self.resumed: str | None = None
        self.set_up_s = 0.0

    async def begin(self, token: str | None = None, path: str = "/whip?target=face") -> Call:
        offer = await self.client.offer()
        headers = {**SDP, **({"Lipstream-Resume": token} if token else {})}
        began_s = time.monotonic()
        async with self.http.post(self.url + path, data=offer, headers=headers) as response:
            self.set_up_s = time.monotonic() - began_s
            self.answer = await response.text()
            assert response.status == 201, self.answer
            self.location = response.headers["Location"]
            self.trace = response.headers["Lipstream-Trace"]
            self.resume = response.headers["Lipstream-Resume"]
            self.resumed = response.headers.get("Lipstream-Resumed")
        await self.client.accept(self.answer)
        return self

    @property
    def actor(self) -> str:
        return re.fullmatch(r"/sessions/([0-9a-f]+)\.[\w-]+", self.location)[1]  # type: ignore[index]

    @property
    def on_second(self) -> bool:
        """Whether the candidates name the second node's own address."""
        return f" {SECOND} " in self.answer

    async def shows(self, pictures: int = 5, within_s: float = 10.0) -> None:
        seen = len(self.client.pictures)
        await eventually(lambda: len(self.client.pictures) >= seen + pictures, within_s, "pictures")

    async def end(self, url: str | None = None) -> None:
        async with self.http.delete((url or self.url) + self.location) as response:
            assert response.status == 200, await response.text()
        await self.client.close()


async def both(cluster: RayCluster, http: ClientSession) -> tuple[str, str]:
    """The addresses of the first and the second node, which take calls."""
    cluster.add_node()

    async def ready() -> bool:
        """Each node has two processes that have a call or wait for one."""
        metrics = await (await http.get(cluster.urls[0] + "/metrics")).text()
        return len(re.findall(r"lipstream_call_actors\{.*\} [2-9]", metrics)) == 2

    def of_second() -> list[str]:
        return [url for url in cluster.urls if SECOND in url]

    await eventually(of_second, STARTS_S, "the second node takes calls")
    await eventually(ready, STARTS_S, "a spare on each node")
    return cluster.urls[0], of_second()[0]


def test_a_node_joins_while_a_call_goes_on(cluster: RayCluster) -> None:
    async def test() -> None:
        async with session() as http:
            call = await Call(http, cluster.urls[0]).begin()
            assert not call.on_second
            await call.shows()
            first, second = await both(cluster, http)
            await call.shows()
            other = await Call(http, first).begin()
            assert other.on_second, "the node without a call takes it, whoever was asked"
            await other.shows()
            # Requests about a call may come by any node.
            for url in (first, second):
                async with http.get(url + call.location) as response:
                    assert (await response.json())["frames"] > 5
                    assert response.headers["Lipstream-Trace"] == call.trace
            async with http.post(first + other.location + "/interrupt") as response:
                assert "played_ms" in await response.json()
            await other.end(first)
            await call.end(second)
            async with http.delete(second + call.location) as response:
                assert response.status in (404, 410)

    run(test())


def test_twenty_calls_over_both_nodes(cluster: RayCluster) -> None:
    async def test() -> None:
        async with session() as http:
            urls = await both(cluster, http)
            turns = asyncio.Semaphore(4)
            calls: list[Call] = []

            async def one(k: int) -> None:
                async with turns:
                    call = await Call(http, urls[k % 2]).begin()
                    calls.append(call)
                    await call.shows()
                    await call.end(urls[(k // 2) % 2])

            await asyncio.gather(*map(one, range(20)))
            nodes = Counter(call.on_second for call in calls)
            assert len(calls) == 20 and min(nodes[True], nodes[False]) >= 4, nodes
            times_ms = sorted(1000 * call.set_up_s for call in calls)
            print(
                f"\n20 calls, {nodes[False]} and {nodes[True]} on the two nodes; POST answered in "
                f"{times_ms[10]:.0f} ms (median), {times_ms[-1]:.0f} ms at most"
            )
            async with http.get(urls[1] + "/metrics") as response:
                metrics = await response.text()
            opened = re.findall(r"lipstream_sessions_opened_total\{node=\"(.*)\"\} (\d+)", metrics)
            assert len(opened) == 2 and sum(int(n) for _, n in opened) >= 20
            # Each call's trace id stands in the logs of the controller, an ingress and its actor.
            logs = cluster.logs()
            for call in calls:
                said = [line for line in logs.splitlines() if f"[{call.trace}]" in line]
                for what in ("takes it", "a call from", "conversation of face begins"):
                    assert any(what in line for line in said), (what, said)

    run(test())


def test_voices_and_viewers_meet_in_one_conversation(cluster: RayCluster) -> None:
    """A WebSocket by one node and a viewer by the other; and what neither may do."""

    async def test() -> None:
        async with session() as http:
            first, second = await both(cluster, http)
            socket = await http.ws_connect(first + "/ws?target=face&session=stage")
            viewer = Call(http, second)
            viewer.client = Client(speaks=False)
            await viewer.begin(path="/whep?target=face&session=stage")
            await socket.send_json({"type": "start", "rate": 16000})
            await socket.send_bytes(b"\x00\x70" * 16_000)
            await socket.send_json({"type": "end"})
            kinds = []
            while not kinds or kinds[-1] != "ended":
                kinds.append((await socket.receive_json(timeout=10))["type"])
            assert kinds[0] == "started" and "played" in kinds
            assert max(luma for _, luma in viewer.client.pictures) > 128, "the voice is seen"
            async with http.get(second + "/api/sessions") as response:
                (only,) = (await response.json())["sessions"]
            assert (only["session"], only["members"]) == ("stage", 2)
            await socket.close()
            await viewer.end(first)
            for path in ("/whip?target=nobody", "/whip", "/nothing"):
                async with http.post(first + path, data="v=0", headers=SDP) as response:
                    assert response.status in (400, 404)
                    assert "error" in await response.json()
            async with http.get(
                second + "/sessions/x", headers={"Authorization": "Bearer wrong-token"}
            ) as response:
                assert response.status == 401
            with pytest.raises(Exception, match="404"):
                await http.ws_connect(first + "/ws?target=nobody")

    run(test())


def test_a_node_that_dies_ends_only_its_own_calls(cluster: RayCluster) -> None:
    async def test() -> None:
        async with session() as http:
            first, second = await both(cluster, http)
            kept = await Call(http, first).begin()
            assert not kept.on_second
            on_air_s: list[float] = []

            async def room() -> bool:
                metrics = await (await http.get(first + "/metrics")).text()
                return bool(re.search(r'call_actors\{node="(?!127).*"\} 4', metrics))

            def tell(line: str) -> None:
                print(line)
                if "on the air at" in line:
                    on_air_s.append(time.monotonic())

            options = PublishOptions(second + "/whip?target=face", TOKEN, seconds=60, tell=tell)
            publishing = asyncio.create_task(_publish(LiveFakeEngine(), options))
            await eventually(lambda: on_air_s, what="published")
            async with http.get(first + "/metrics") as response:
                assert f'lipstream_sessions{{node="{SECOND}"}} 1.0' in await response.text()
            calls = [await Call(http, first).begin() for _ in range(2)]
            spare, doomed = sorted(calls, key=lambda call: call.on_second)
            assert doomed.on_second and not spare.on_second
            await spare.end()
            await doomed.shows()
            await kept.shows()
            killed_s = time.monotonic()
            cluster.kill_node()
            # As the page does: nothing arrives for 1.3 s, then a new offer with the token.
            await asyncio.sleep(1.3)
            again = await Call(http, first).begin(doomed.resume)
            assert again.resumed == "no" and not again.on_second
            await again.shows(1)
            back_s = time.monotonic() - killed_s
            async with http.get(first + doomed.location) as response:
                assert response.status == 404, "not 410: the client may come back"
            assert back_s < 5.0
            await eventually(lambda: len(on_air_s) == 2, what="published again")
            published_s = on_air_s[1] - killed_s
            assert published_s < 5.0
            await eventually(room, STARTS_S, "a spare")
            new = await Call(http, first).begin()
            assert not new.on_second, "new calls go to the node that is left"
            await new.shows()
            times_s = [at_s for at_s, _ in kept.client.pictures if at_s > killed_s - 1]
            gap_s = max(b - a for a, b in zip(times_s, times_s[1:], strict=False))
            print(
                f"\nback after {back_s:.1f} s, publish after {published_s:.1f} s; "
                f"the other's longest gap {1000 * gap_s:.0f} ms"
            )
            assert gap_s < 1.0, "the other node's call plays on"
            for call in (again, new, kept):
                await call.end()
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            await doomed.client.close()

    run(test())


def test_the_page_of_a_node_that_dies_goes_on_by_another(cluster: RayCluster) -> None:
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    frames = "document.getElementById('picture').getVideoPlaybackQuality().totalVideoFrames"

    notice = "document.body.innerText.includes('Connecting again')"

    async def test() -> None:
        async with session() as http, playwright.async_playwright() as start:
            first, second = await both(cluster, http)
            calls = [await Call(http, first).begin() for _ in range(2)]
            other, ended = sorted(calls, key=lambda call: call.on_second)
            assert ended.on_second and not other.on_second
            await ended.end()  # so that the page's call goes to the second
            chromium = await start.chromium.launch(executable_path=str(CHROMIUM), args=[*FLAGS])
            page = await chromium.new_page()
            page.on("console", lambda message: print(message.text))
            await page.goto(f"{second}/#token={TOKEN}")
            await page.get_by_role("radio", name="face").check()
            await page.get_by_role("button", name="Start the call").click()

            async def lost() -> bool:
                return bool(await page.evaluate(notice))

            async def shows() -> bool:
                return await page.evaluate(frames) > seen and not await lost()

            seen = 10
            await eventually(shows, 20, "the avatar in the page")
            killed_s = time.monotonic()
            cluster.kill_node()
            await eventually(lost)
            seen = await page.evaluate(frames)
            await eventually(shows)
            back_s = time.monotonic() - killed_s
            print(f"\nthe page is back after {back_s:.1f} s")
            assert back_s < 5.0
            await other.end()
            await page.evaluate("document.getElementById('end').click()")

            async def nobody_talks() -> bool:
                response = await http.get(first + "/api/sessions")
                return (await response.json())["sessions"] == []

            await eventually(nobody_talks)
            await chromium.close()

    run(test())


@pytest.mark.parametrize("kind", ["Controller", "Ingress"])
def test_a_process_that_ray_starts_anew(cluster: RayCluster, kind: str) -> None:
    """The call goes on and its address stays good, and the next one finds a place."""

    async def test() -> None:
        async with session() as http:
            url = cluster.urls[0]
            call = await Call(http, url).begin()
            await call.shows()
            cluster.kill_actor(kind)
            killed_s = time.monotonic()
            await call.shows()

            async def answers() -> bool:
                try:
                    async with http.get(url + call.location) as response:
                        return response.status == 200
                except ClientError:
                    return False

            async def takes_calls() -> bool:
                offer = await client.offer()
                async with http.post(url + "/whip?target=face", data=offer, headers=SDP) as got:
                    if got.status != 201:
                        return False
                async with http.delete(url + got.headers["Location"]) as deleted:
                    assert deleted.status == 200  # its place is kept otherwise
                return True

            client = Client()
            await eventually(answers, STARTS_S, "the call is known again")
            await eventually(takes_calls, STARTS_S, "a new call")
            print(f"{kind} killed: all as before after {time.monotonic() - killed_s:.1f} s")
            await client.close()
            await call.end()

    run(test())


def test_draining_cuts_no_call(cluster: RayCluster) -> None:
    """`lipstream serve --ray ADDRESS --drain NODE`, on the head, which is the last node here."""

    async def test() -> None:
        async with session() as http:
            cluster.kill_node()
            first = cluster.urls[0]
            call = await Call(http, first).begin()
            await call.shows()
            node = first.rpartition(":")[0].removeprefix("http://")
            command = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "lipstream", "serve", "--ray", cluster.address,
                "--drain", node, env=cluster.environment, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert command.stderr is not None
            said = (await asyncio.wait_for(command.stderr.readline(), STARTS_S)).decode()
            assert said == f"lipstream: node {node} takes no more calls; 1 go on\n"
            async with http.get(first + "/healthz") as response:
                assert response.status == 503
            refused = Client()
            offer = await refused.offer()
            await refused.close()
            async with http.post(first + "/whip?target=face", data=offer, headers=SDP) as response:
                assert response.status == 503
                assert "no node has a CPU share" in (await response.json())["error"]
                assert int(response.headers["Retry-After"]) > 0
            await call.shows(25)
            await call.end()
            said = (await asyncio.wait_for(command.communicate(), 30))[1].decode()
            assert (command.returncode, said) == (
                0, f"lipstream: node {node} has no call any more and can be stopped\n"
            )  # fmt: skip

    run(test())
