"""One conversation's pictures, encoded once for all who watch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Protocol

import av
from av.video.frame import PictureType

from lipstream.engine.errors import UsageError
from lipstream.engine.frames import as_picture
from lipstream.engine.timing import stage
from lipstream.engine.types import SAMPLE_RATE_HZ, VideoFrame
from lipstream.streaming.runner import SessionRunner, Subscription, TimedFrame, TimedSound

logger = logging.getLogger(__name__)

VIDEO_CLOCK_HZ: Final = 90_000
_KEY_FRAMES_APART_S: Final = 0.4  # many viewers that lose packets at once need one, not many
_REFERENCE: Final = (512 * 512, 1_500_000)  # pixels, bit/s

# name -> x264's preset, share of the reference's bits at most, and the quality (CRF) beyond which
# no bits are spent: 22 is 46 dB on a talking head. "sharp" costs three times "light"'s time.
PRESETS: Final = {
    "light": ("ultrafast", 0.6, 25),
    "standard": ("ultrafast", 1.0, 22),
    "sharp": ("veryfast", 1.6, 19),
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How pictures are compressed."""

    preset: str = "standard"
    bitrate_bps: int | None = None  # held; None: what the preset's quality takes, up to its rate

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"video preset {self.preset!r}: expected {', '.join(PRESETS)}")
        if self.bitrate_bps is not None and not 100_000 <= self.bitrate_bps <= 20_000_000:
            raise UsageError(f"bitrate {self.bitrate_bps} bit/s: expected 100000 to 20000000")

    def rate_bps(self, width: int, height: int) -> int:
        """Bits a second for pictures of this size, px: held if it was asked for, else at most."""
        if self.bitrate_bps is not None:
            return self.bitrate_bps
        pixels, bits = _REFERENCE
        # Larger pictures of the same face have no more detail per pixel: less than in proportion.
        share = PRESETS[self.preset][1] * (width * height / pixels) ** 0.6
        return round(bits * share / 1000) * 1000


class H264:
    """Frames to packets (Annex B), without delay; one picture size and rate for its life."""

    def __init__(self, encoding: Encoding, width: int, height: int, fps: Fraction) -> None:
        rate_bps = encoding.rate_bps(width, height)
        codec: Any = av.CodecContext.create("libx264", "w")
        codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
        codec.framerate = fps
        codec.time_base = Fraction(1, VIDEO_CLOCK_HZ)
        codec.gop_size = round(10 * fps)  # a viewer that joins or loses packets asks for its own
        codec.thread_count = 1
        kbps = rate_bps // 1000
        preset, _, quality = PRESETS[encoding.preset]
        aim = f"crf={quality}" if encoding.bitrate_bps is None else f"bitrate={kbps}"
        codec.options = {
            "preset": preset,
            "tune": "zerolatency",
            "forced-idr": "1",
            "x264-params": f"{aim}:vbv-maxrate={kbps}:vbv-bufsize={kbps}:repeat-headers=1:"
            "colormatrix=bt709:colorprim=bt709:transfer=bt709:range=tv",
        }
        codec.profile = "Baseline"
        self._codec = codec

    @stage("encode")
    def encode(self, frame: VideoFrame, pts: int, key: bool) -> av.Packet[Any] | None:
        """One picture; pts in 1/90000 s."""
        picture: Any = as_picture(frame.i420)
        picture.pts, picture.time_base = pts, Fraction(1, VIDEO_CLOCK_HZ)
        picture.pict_type = PictureType.I if key else PictureType.NONE
        packets = self._codec.encode(picture)
        if not packets:
            return None
        packet: av.Packet[Any] = packets[0]
        packet.time_base = Fraction(1, VIDEO_CLOCK_HZ)
        return packet


class Viewer(Protocol):
    """Who watches; called on the event loop, but for `hear`, and must not block it."""

    @property
    def takes_packets(self) -> bool:
        """H.264 packets, or else frames that it compresses itself."""
        ...

    def hear(self, item: TimedSound) -> None:
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
            viewer.hear(item)

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
