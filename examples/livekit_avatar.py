"""An avatar worker for LiveKit Agents: joins a room and shows the speech of an agent.

    LIVEKIT_URL=wss://… LIVEKIT_TOKEN=… python examples/livekit_avatar.py me.target

The token lets the avatar publish on behalf of the agent; the agent sends its speech with
livekit.agents.voice.avatar.DataStreamAudioOutput to the avatar's identity.
"""

from __future__ import annotations

import asyncio
import os
import sys

if __name__ == "__main__" and len(sys.argv) != 2:
    sys.exit(__doc__)  # before the imports, which need LiveKit

from livekit import rtc
from livekit.agents.voice.avatar import AvatarRunner, DataStreamAudioReceiver

import lipstream
from lipstream.streaming.integrations.livekit import LipstreamGenerator


async def main(target: str) -> None:
    url, token = os.environ.get("LIVEKIT_URL"), os.environ.get("LIVEKIT_TOKEN")
    if not url or not token:
        sys.exit("set LIVEKIT_URL and LIVEKIT_TOKEN to the room and to the avatar's token")
    generator = LipstreamGenerator(lipstream.Engine(lipstream.load_target(target)))
    room = rtc.Room()
    disconnected = asyncio.Event()
    room.on("disconnected", lambda *reason: disconnected.set())
    await room.connect(url, token)
    runner = AvatarRunner(
        room,
        audio_recv=DataStreamAudioReceiver(room),
        video_gen=generator,
        options=generator.options(audio_sample_rate=24_000),
    )
    await runner.start()
    try:
        await disconnected.wait()
    finally:
        await runner.aclose()
        await generator.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
