"""A caller in a process of its own, meant to be killed.

    python -m tests.streaming.webrtc.call_client URL

Prints `playing` when ten pictures have come, and then goes on until it is killed.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import ClientSession

from lipstream.streaming.webrtc import aiortc_patches
from tests.streaming.waiting import eventually
from tests.streaming.webrtc.client import Client


async def call(url: str) -> None:
    aiortc_patches.apply(aiortc_patches.PatchOptions(loopback=True))
    client = Client()
    headers = {"Content-Type": "application/sdp"}
    async with ClientSession() as http:
        answer = await http.post(url, data=await client.offer(), headers=headers)
        answer.raise_for_status()
        await client.accept(await answer.text())
        await eventually(lambda: len(client.pictures) >= 10, 60)
        print("playing", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(call(sys.argv[1]))
