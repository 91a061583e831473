"""Calls opened and closed one after another on the real engine, every fifth by a killed client.

The server is a process of its own, so that what is counted is the server's alone. A short run in
every suite; fifty calls with `pytest -m slow tests/streaming/test_endurance.py -s`.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")
if not Path("/proc/self/fd").is_dir():
    pytest.skip("needs /proc to count what a process holds", allow_module_level=True)

from aiohttp import ClientSession  # noqa: E402

from tests.streaming.test_webrtc import Client  # noqa: E402

ROOT = Path(__file__).parents[2]
SDP = {"Content-Type": "application/sdp"}
BACK_WITHIN_S = 5.0
WARM_UP_CALLS = 4  # thread pools and allocators have filled


@dataclass(frozen=True)
class Holdings:
    """What a process holds."""

    threads: int
    files: int
    sockets: int
    memory_kib: int

    @classmethod
    def of(cls, pid: int) -> Holdings:
        status = Path(f"/proc/{pid}/status").read_text()
        number = dict(re.findall(r"^(Threads|VmRSS):\s+(\d+)", status, re.M))
        links = []
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                links.append(os.readlink(entry.path))
            except OSError:
                continue  # closed while we looked
        sockets = sum(link.startswith("socket:") for link in links)
        return cls(int(number["Threads"]), len(links), sockets, int(number["VmRSS"]))

    def within(self, other: Holdings) -> bool:
        return (
            self.threads <= other.threads
            and self.files <= other.files
            and self.sockets <= other.sockets
        )


@asynccontextmanager
async def served(targets: Path, *options: str) -> AsyncIterator[tuple[str, int]]:
    """`lipstream serve`; yields its URL and its process id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lipstream", "serve", "--targets", str(targets), "--port", "0",
        *options, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert process.stderr is not None
    drained: asyncio.Task[bytes] | None = None
    try:
        text = b""
        while b"http://" not in text:
            line = await asyncio.wait_for(process.stderr.readline(), 60)
            assert line, text.decode()
            text += line
        (url,) = re.findall(r"http://[\d.]+:\d+", text.decode())
        drained = asyncio.create_task(process.stderr.read())
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 20)
        if drained is not None:
            assert b"Traceback" not in await drained


async def one_call(url: str, http: ClientSession, frames: int) -> float:
    """A call that ends as it should; returns ms from the offer to the first picture."""
    client = Client()
    offer = await client.offer()
    began_s = time.monotonic()
    answer = await http.post(url, data=offer, headers=SDP)
    assert answer.status == 201, await answer.text()
    await client.accept(await answer.text())
    while len(client.pictures) < frames:
        await asyncio.sleep(0.01)
        assert time.monotonic() < began_s + 10, "no picture"
    assert (await http.delete(answer.headers["Location"])).status == 200
    await client.close()
    return 1000 * (client.pictures[0][0] - began_s)


async def one_killed(url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.streaming.call_client", url,
        stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"playing\n"
    finally:
        process.kill()
        await process.communicate()


async def open_and_close(targets: Path, calls: int) -> None:
    first_ms: list[float] = []
    ended_s: list[float] = []
    killed_s: list[float] = []
    memory_mib: list[int] = []
    async with served(targets) as (url, pid), ClientSession(url) as http:
        offer_to = "/whip?target=demo"
        for _ in range(WARM_UP_CALLS):
            first_ms.append(await one_call(offer_to, http, 25))
        before = await settled(pid)
        for k in range(calls):
            killed = k % 5 == 4
            if killed:
                await one_killed(url + offer_to)
            else:
                first_ms.append(await one_call(offer_to, http, 10))
            end_s = time.monotonic()
            while not (now := Holdings.of(pid)).within(before):
                assert time.monotonic() < end_s + BACK_WITHIN_S, (k, killed, before, now)
                await asyncio.sleep(0.05)
            memory_mib.append(now.memory_kib // 1024)
            (killed_s if killed else ended_s).append(time.monotonic() - end_s)
        after = await settled(pid)
        sessions = (await (await http.get("/api/sessions")).json())["sessions"]
    assert sessions == []
    print(
        f"\n{calls} calls after {WARM_UP_CALLS}: before {before}, after {after}; back after "
        f"{max(ended_s):.2f} s at most, {max(killed_s):.2f} s when killed; offer to first picture: "
        f"first call {first_ms[0]:.0f} ms, median "
        f"{np.median(first_ms):.0f} ms, worst {max(first_ms):.0f} ms; MiB after each {memory_mib}"
    )
    assert after.memory_kib < 1.05 * before.memory_kib + 4096
    # The engine was warmed before the port opened.
    assert first_ms[0] < np.median(first_ms[1:]) + 300


async def settled(pid: int) -> Holdings:
    """After a second in which idle connections close."""
    await asyncio.sleep(1.0)
    return Holdings.of(pid)


def test_five_calls_leave_nothing(target: Path) -> None:
    asyncio.run(open_and_close(target.parent, 5))


@pytest.mark.slow
def test_fifty_calls_leave_nothing(target: Path) -> None:
    asyncio.run(open_and_close(target.parent, 50))
