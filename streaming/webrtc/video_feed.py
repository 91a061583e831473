"""One conversation's frames, encoded once for all its viewers."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Final, Protocol

import av

from lipstream.engine.types import SAMPLE_RATE_HZ
from lipstream.streaming.background_tasks import BackgroundTasks
from lipstream.streaming.session.runner import SessionRunner
from lipstream.streaming.session.subscription import Subscription, TimedFrame, TimedSound
from lipstream.streaming.webrtc.h264 import (
    H264,
    VIDEO_CLOCK_HZ,
    Encoding,
    PictureFormat,
    level_idc,
)

logger = logging.getLogger(__name__)

_MIN_KEY_INTERVAL_S: Final = 0.4  # viewers that lose packets at once need one key frame, not many


class Viewer(Protocol):
    """A receiver of frames and sound. Called on the event loop, which it must not block.

    Only `push_audio` is called in the conversation's thread.
    """

    @property
    def takes_packets(self) -> bool:
        """H.264 packets, or else frames that it encodes itself."""
        ...

    def push_audio(self, item: TimedSound) -> None:
        """Sound whose time has not come; in the conversation's thread."""
        ...

    def show(self, item: TimedFrame, packet: av.Packet[Any] | None) -> None:
        """A frame whose time has come."""
        ...

    def end(self, reason: str) -> None:
        """There are no more frames."""
        ...


class VideoFeed:
    """Delivers a conversation's frames to its viewers. Made and used on one event loop.

    H.264 is encoded once for all viewers, in the conversation's thread and before a frame's release
    time: viewers see neither the encoder's delay nor its jitter. A frame that was encoded and not
    shown (a loop that was held up) leaves the frames after it without their reference, so a key
    frame follows. Without viewers nothing is encoded.

    A viewer that fails is ended with the reason, and the others go on. When the delivery itself
    ends, with the conversation or by an error, every viewer is ended with the reason, and the next
    viewer begins a new one.
    """

    def __init__(
        self,
        runner: SessionRunner,
        encoding: Encoding | None = None,
        picture: PictureFormat | None = None,
    ) -> None:
        """`picture`: of the frames, where it is known before the first one."""
        self.runner = runner
        self.encoding = encoding or Encoding()
        self.level_idc = level_idc(self.encoding, picture or PictureFormat())
        self.key_frames = 0  # ever encoded
        self.encoded_bytes = 0
        self._encoder: H264 | None = None
        self._viewers: tuple[Viewer, ...] = ()
        self._subscription: Subscription | None = None
        self._deliveries = BackgroundTasks()
        self._packets: deque[tuple[TimedFrame, av.Packet[Any] | None]] = deque()
        self._encoded_turn = runner.turn
        self._key_wanted = True
        self._key_s = float("-inf")

    def attach(self, viewer: Viewer) -> None:
        """Add a viewer; its first frame is a key frame."""
        self._viewers = (*self._viewers, viewer)
        self._key_wanted = True
        if self._subscription is None:
            self._subscription = self.runner.subscribe(self._encode_ahead, self._push_audio)
            self._deliveries.start(self._deliver(self._subscription), "delivery of frames")

    def detach(self, viewer: Viewer) -> None:
        """Remove a viewer; nothing happens when it is not there."""
        self._viewers = tuple(one for one in self._viewers if one is not viewer)
        if not self._viewers:
            self._stop()

    def _stop(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()
        self._encoder = None
        self._packets.clear()

    def want_key_frame(self) -> None:
        """Make the next frame a key frame, at most every 0.4 s: a viewer cannot decode."""
        self._key_wanted = True

    def _push_audio(self, item: TimedSound) -> None:
        """In the conversation's thread."""
        for viewer in self._viewers:
            viewer.push_audio(item)

    def _encode_ahead(self, item: TimedFrame) -> None:
        """In the conversation's thread."""
        if any(viewer.takes_packets for viewer in self._viewers):
            self._packets.append((item, self._encode(item)))

    def _packet(self, item: TimedFrame) -> tuple[TimedFrame, av.Packet[Any] | None]:
        """A frame whose time has come, as it was encoded, and its packet; None if there is none."""
        while self._packets and self._packets[0][0].release_s <= item.release_s:
            encoded, packet = self._packets.popleft()
            if encoded.frame.frame_index == item.frame.frame_index:
                return encoded, packet  # its picture, also where its turn was interrupted since
            self.want_key_frame()
        return item, None

    async def _deliver(self, subscription: Subscription) -> None:
        reason = "conversation over"
        try:
            async for item in subscription:
                if subscription is not self._subscription:
                    return  # every viewer left while it waited; others may have come
                item, packet = self._packet(item)
                for viewer in self._viewers:
                    self._show(viewer, item, packet if viewer.takes_packets else None)
            reason = self.runner.error or reason
        except Exception as error:  # logged by the owner of the task
            reason = f"no more frames: {type(error).__name__}: {error}"
            raise
        finally:
            if subscription is self._subscription:
                viewers, self._viewers = self._viewers, ()
                self._stop()
                for viewer in viewers:
                    viewer.end(reason)

    def _show(self, viewer: Viewer, item: TimedFrame, packet: av.Packet[Any] | None) -> None:
        try:
            viewer.show(item, packet)
        except Exception as error:
            logger.exception("a viewer cannot show a frame")
            self.detach(viewer)
            viewer.end(f"no more frames: {type(error).__name__}: {error}")

    def _encode(self, item: TimedFrame) -> av.Packet[Any] | None:
        frame, now_s = item.frame, self.runner.clock.now()
        encoder = self._encoder
        if encoder is None:
            height, width = frame.i420.shape[0] * 2 // 3, frame.i420.shape[1]
            encoder = self._encoder = H264(self.encoding, width, height, frame.fps)
        new_turn = item.turn != self._encoded_turn  # the mouth jumps: no frame to predict it from
        self._encoded_turn = item.turn
        key = new_turn or (self._key_wanted and now_s - self._key_s >= _MIN_KEY_INTERVAL_S)
        if key:
            self._key_wanted, self._key_s = False, now_s
            self.key_frames += 1
        packet = encoder.encode(frame, item.media_sample * VIDEO_CLOCK_HZ // SAMPLE_RATE_HZ, key)
        if packet is not None:
            self.encoded_bytes += packet.size
        return packet
