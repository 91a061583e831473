"""A call between two network namespaces, over jitter, loss and outages of `tc netem`.

    sudo python -m tests.streaming.netem            # needs root, iproute2; for jitter, netem

The server, with an engine that only listens, is in the one; an aiortc caller with a steady tone in
the other. Prints a line for each network: how much of the voice was heard, the margin, and after an
outage how long the first picture took.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import Final

import numpy as np
from aiohttp import ClientSession, web

from lipstream.streaming.server.app import ServerOptions, make_app
from lipstream.streaming.session.live_engine import LiveEngine
from lipstream.streaming.webrtc import aiortc_patches
from tests.streaming.live_engine import LiveFakeEngine, LiveFakeSession
from tests.streaming.waiting import eventually
from tests.streaming.webrtc.client import Client, Voice

PORT: Final = 8099
TOKEN: Final = "between-namespaces"
SERVER, CALLER = "10.201.0.1", "10.201.0.2"
SECONDS: Final = 20.0
NETWORKS: Final = {
    "calm": "delay 10ms",
    "jitter 10 ms": "delay 30ms 10ms distribution pareto",
    "jitter 20 ms": "delay 60ms 20ms distribution pareto",
    "loss 5 %": "delay 10ms loss 5%",
}
OUTAGES_S: Final = (2.0, 4.0, 8.0, 20.0)


class Steady(Voice):
    """A tone without a pause."""

    def packet(self, k: int) -> np.ndarray:
        """20 ms, i16 [960]."""
        tone = 0.5 * np.sin(np.arange(960) * (2 * np.pi * 200 / 48_000))
        return (tone * 32767).astype(np.int16)


class Listening(LiveFakeSession):
    """Counts the seconds in which it hears the tone."""

    heard_s = 0.0

    def push(self, chunk, paint=True):  # type: ignore[no-untyped-def]
        parts = np.abs(chunk.samples).reshape(-1, 80).max(axis=1)  # 5 ms, a period of the tone
        Listening.heard_s += 0.005 * int((parts > 0.1).sum())
        return super().push(chunk, paint)


class ListeningEngine(LiveFakeEngine):
    def session(self) -> LiveFakeSession:
        return Listening(self)


async def serve() -> None:
    async def engine(name: str) -> LiveEngine:
        return ListeningEngine()

    app = make_app(ServerOptions(host=SERVER, port=PORT, token=TOKEN), lambda: ["face"], engine)

    async def heard(request: web.Request) -> web.Response:
        return web.json_response({"heard_s": Listening.heard_s})

    app.router.add_get("/heard", heard)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, SERVER, PORT).start()
    await asyncio.Event().wait()


def netem(setting: str) -> bool:
    """Of what the caller sends; False where the kernel has no netem."""
    command = ["tc", "qdisc", "replace", "dev", "lscaller", "root", "netem", *setting.split()]
    return subprocess.run(command, check=False).returncode == 0


def link(state: str) -> None:
    """Up or down."""
    subprocess.run(["ip", "link", "set", "lscaller", state], check=True)


async def call() -> None:
    aiortc_patches.apply(aiortc_patches.PatchOptions())
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with ClientSession(f"http://{SERVER}:{PORT}", headers=headers) as http:

        async def figure(path: str, name: str) -> float:
            return float((await (await http.get(path)).json())[name])

        async def ready() -> bool:
            try:
                return (await http.get("/healthz")).status == 200
            except OSError:
                return False

        await eventually(ready, 60)
        for name, setting in {**NETWORKS, "outages": "delay 10ms"}.items():
            if not netem(setting):
                print(f"no netem in this kernel: {name} is measured without it", flush=True)
                if name not in ("calm", "outages"):
                    continue
            client = Client(voice=Steady())
            sdp = {"Content-Type": "application/sdp"}
            answer = await http.post("/whip?target=face", data=await client.offer(), headers=sdp)
            await client.accept(await answer.text())
            place = answer.headers["Location"]
            await eventually(lambda one=client: one.pictures, 30)  # type: ignore[misc]
            if name != "outages":
                began_s, before_s = time.monotonic(), await figure("/heard", "heard_s")
                await asyncio.sleep(SECONDS)
                heard_s = await figure("/heard", "heard_s") - before_s
                missing_s = time.monotonic() - began_s - heard_s
                margin_ms = await figure(place, "source_margin_ms")
                print(json.dumps({"network": setting, "missing_s": round(missing_s, 2),
                                  "margin_ms": margin_ms}), flush=True)  # fmt: skip
            for outage_s in OUTAGES_S if name == "outages" else ():
                before = await figure("/heard", "heard_s")
                link("down")
                await asyncio.sleep(outage_s)
                link("up")
                back_s = time.monotonic()

                async def is_heard(before: float = before) -> bool:
                    return await figure("/heard", "heard_s") > before + 0.1

                await eventually(is_heard, 30)
                print(json.dumps({"outage_s": outage_s, "state": client.pc.connectionState,
                                  "heard_again_s": round(time.monotonic() - back_s, 2)}),
                      flush=True)  # fmt: skip
                await asyncio.sleep(2.0)
            await http.delete(place)
            await client.close()


def main() -> None:
    """Both namespaces, and what runs in them."""

    def run(command: str) -> None:
        subprocess.run(command.split(), check=True)

    inside = ["ip", "netns", "exec"]
    python = [sys.executable, "-m", "tests.streaming.netem"]
    run("ip netns add lsserver")
    run("ip netns add lscaller")
    try:
        run("ip link add lsserver netns lsserver type veth peer name lscaller netns lscaller")
        for name, address in (("lsserver", SERVER), ("lscaller", CALLER)):
            run(f"ip -n {name} address add {address}/24 dev {name}")
            run(f"ip -n {name} link set {name} up")
            run(f"ip -n {name} link set lo up")
        server = subprocess.Popen([*inside, "lsserver", *python, "serve"])
        try:
            subprocess.run([*inside, "lscaller", *python, "call"], check=True)
        finally:
            server.terminate()
            server.wait()
    finally:
        run("ip netns delete lsserver")
        run("ip netns delete lscaller")


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run({"serve": serve, "call": call}[sys.argv[1]]())
    else:
        main()
