"""A minimal WebRTC client for tests, with a voice, that records what it receives."""

from __future__ import annotations

import asyncio
import time
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from lipstream.streaming.webrtc import aiortc_patches


class Voice(MediaStreamTrack):
    """A tone that is loud for 200 ms of every second."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._k = 0
        self._began_s = time.monotonic()
        self.loud_at_s: list[float] = []

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        await asyncio.sleep(max(0, self._began_s + 0.02 * (self._k + 1) - time.monotonic()))
        packet = self.packet(self._k)
        frame = av.AudioFrame.from_ndarray(packet[None], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
        frame.pts = 960 * self._k
        self._k += 1
        return frame

    def packet(self, k: int) -> np.ndarray:
        """20 ms, i16 [960]."""
        if k % 50 == 40:
            self.loud_at_s.append(time.monotonic() - 0.02)
        tone = np.sin(np.arange(960) * (2 * np.pi * 200 / 48_000)) * (0.9 if k % 50 >= 40 else 0)
        return (tone * 32767).astype(np.int16)


class Client:
    """A minimal client that records the frames and sounds it receives, with the times."""

    def __init__(
        self,
        speaks: bool = True,
        connection: RTCPeerConnection | None = None,
        voice: Voice | None = None,
    ) -> None:
        self.pc = connection or RTCPeerConnection()
        self.voice = voice or Voice()
        self.pictures: list[tuple[float, float]] = []  # (s, mean luma)
        self.sounds: list[tuple[float, float]] = []  # (s, peak)
        self._tasks: list[asyncio.Task[None]] = []
        if speaks:
            self.pc.addTransceiver(self.voice, direction="sendrecv")
        else:
            self.pc.addTransceiver("audio", direction="recvonly")
        self.pc.addTransceiver("video", direction="recvonly")
        self.pc.on("track", lambda track: self._tasks.append(asyncio.create_task(self._see(track))))

    async def offer(self) -> str:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def accept(self, sdp: str) -> None:
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        for transceiver in self.pc.getTransceivers():
            if transceiver.kind == "audio":  # its jitter buffer would be in each delay of sound
                aiortc_patches.remove_jitter_buffer(transceiver.receiver)

    async def _see(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    luma = float(frame.to_ndarray(format="gray").mean())
                    self.pictures.append((time.monotonic(), luma))
                else:
                    peak = float(np.abs(frame.to_ndarray().astype(np.float32)).max() / 32768)
                    self.sounds.append((time.monotonic(), peak))
        except MediaStreamError:
            pass

    async def close(self) -> None:
        self.voice.stop()
        await self.pc.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def onsets(levels: list[tuple[float, float]], threshold: float) -> list[float]:
    return [b[0] for a, b in zip(levels, levels[1:], strict=False) if a[1] < threshold <= b[1]]


async def vanish(client: Client) -> None:
    """Close its sockets without a word, as a killed process does."""
    for transceiver in client.pc.getTransceivers():
        connection: Any = transceiver.sender.transport.transport._connection
        for protocol in connection._protocols:
            protocol.transport.abort()
