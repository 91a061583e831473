"""One conversation's pictures, encoded once for all who watch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any, Final, Protocol

import av

from lipstream.engine.types import SAMPLE_RATE_HZ
from lipstream.streaming.session.runner import SessionRunner
from lipstream.streaming.session.subscription import Subscription, TimedFrame, TimedSound
from lipstream.streaming.webrtc.h264 import H264, VIDEO_CLOCK_HZ, Encoding

logger = logging.getLogger(__name__)

_KEY_FRAMES_APART_S: Final = 0.4  # many viewers that lose packets at once need one, not many


class Viewer(Protocol):
    """Who watches; called on the event loop, but for `hear`, and must not block it."""

    @property
    def takes_packets(self) -> bool:
        """H.264 packets, or else frames that it compresses itself."""
        ...

    def push_audio(self, item: TimedSound) -> None:
        """Sound whose time has not come; in the conversation's thread."""
        ...

    def show(self, item: TimedFrame, packet: av.Packet[Any] | None) -> None:
        """A frame whose time has come."""
        ...

    def over(self, reason: str) -> None:
        """There will be no more."""
        ...


class VideoFeed:
    """Hands a conversation's frames to its viewers. Made and used on one event loop.

    H.264 is compressed once, whoever watches, in the conversation's thread, and before a frame's
    time: viewers see neither the compressor's delay nor how it varies. A frame that was compressed
    and is not shown after all (an interruption, a loop that was held up) leaves the ones after it
    without what they refer to, so a key frame follows. Nobody watching costs nothing.
    """

    def __init__(self, runner: SessionRunner, encoding: Encoding | None = None) -> None:
        self.runner = runner
        self.key_frames = 0  # ever made
        self.encoded_bytes = 0
        self._encoding = encoding or Encoding()
        self._encoder: H264 | None = None
        self._viewers: tuple[Viewer, ...] = ()
        self._subscription: Subscription | None = None
        self._pump: asyncio.Task[None] | None = None
        self._packets: deque[tuple[TimedFrame, av.Packet[Any] | None]] = deque()
        self._encoded_turn = runner.turn
        self._key_wanted = True
        self._key_s = float("-inf")

    def attach(self, viewer: Viewer) -> None:
        """One more watches, beginning with a key frame."""
        self._viewers = (*self._viewers, viewer)
        self._key_wanted = True
        if self._pump is None:
            self._subscription = self.runner.subscribe(self._compress, self._hear)
            self._pump = asyncio.get_running_loop().create_task(self._run(self._subscription))

    def detach(self, viewer: Viewer) -> None:
        """It watches no longer."""
        self._viewers = tuple(one for one in self._viewers if one is not viewer)
        if not self._viewers and self._subscription is not None:
            self._subscription.close()
            self._subscription = self._pump = self._encoder = None
            self._packets.clear()

    def want_key_frame(self) -> None:
        """A viewer cannot decode what comes; the next frame helps it, at most every 0.4 s."""
        self._key_wanted = True

    def _hear(self, item: TimedSound) -> None:
        for viewer in self._viewers:
            viewer.push_audio(item)

    def _compress(self, item: TimedFrame) -> None:
        """In the conversation's thread."""
        if any(viewer.takes_packets for viewer in self._viewers):
            self._packets.append((item, self._encode(item)))

    def _packet(self, item: TimedFrame) -> av.Packet[Any] | None:
        """What was made of a frame whose time has come; None if nothing was."""
        while self._packets and self._packets[0][0].release_s <= item.release_s:
            painted, packet = self._packets.popleft()
            if painted is item:
                return packet
            self.want_key_frame()
        return None

    async def _run(self, subscription: Subscription) -> None:
        async for item in subscription:
            if subscription is not self._subscription:
                return  # everybody left while it waited for its time; others may have come
            packet = self._packet(item)
            for viewer in self._viewers:
                viewer.show(item, packet if viewer.takes_packets else None)
        if subscription is self._subscription:
            for viewer in self._viewers:
                viewer.over(self.runner.error or "conversation over")

    def _encode(self, item: TimedFrame) -> av.Packet[Any] | None:
        frame, now_s = item.frame, time.monotonic()
        encoder = self._encoder
        if encoder is None:
            height, width = frame.i420.shape[0] * 2 // 3, frame.i420.shape[1]
            encoder = self._encoder = H264(self._encoding, width, height, frame.fps)
        new_turn = item.turn != self._encoded_turn  # what the old one left may not be shown
        self._encoded_turn = item.turn
        key = new_turn or (self._key_wanted and now_s - self._key_s >= _KEY_FRAMES_APART_S)
        if key:
            self._key_wanted, self._key_s = False, now_s
            self.key_frames += 1
        packet = encoder.encode(frame, item.media_sample * VIDEO_CLOCK_HZ // SAMPLE_RATE_HZ, key)
        if packet is not None:
            self.encoded_bytes += packet.size
        return packet
