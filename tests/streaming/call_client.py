"""A caller in a process of its own: python -m tests.streaming.call_client URL. Meant to be killed.

Prints `playing` when ten pictures have come, and then goes on until it is killed.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import ClientSession

from lipstream.streaming import aiortc_tuning
from tests.streaming.test_webrtc import Client


async def call(url: str) -> None:
    aiortc_tuning.apply(aiortc_tuning.Tuning(loopback=True))
    client = Client()
    headers = {"Content-Type": "application/sdp"}
    async with ClientSession() as http:
        answer = await http.post(url, data=await client.offer(), headers=headers)
        answer.raise_for_status()
        await client.accept(await answer.text())
        while len(client.pictures) < 10:
            await asyncio.sleep(0.01)
        print("playing", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(call(sys.argv[1]))
