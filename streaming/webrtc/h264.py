"""H.264 for calls: no encoder delay, key frames on request."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
from av.video.frame import PictureType

from lipstream.engine.errors import UsageError
from lipstream.engine.profiling import span
from lipstream.engine.target.frames import as_picture
from lipstream.engine.types import VideoFrame

VIDEO_CLOCK_HZ: Final = 90_000
_REFERENCE: Final = (512 * 512, 1_500_000)  # pixels, bit/s

# name -> x264 preset, maximum bit rate relative to the reference, and the quality (CRF) beyond
# which no bits are spent: 22 is 46 dB on a talking head. "sharp" takes three times "light"'s time.
PRESETS: Final = {
    "light": ("ultrafast", 0.6, 25),
    "standard": ("ultrafast", 1.0, 22),
    "sharp": ("veryfast", 1.6, 19),
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How frames are compressed."""

    preset: str = "standard"
    bitrate_bps: int | None = None  # constant; None: as the preset's quality needs, up to its rate

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"video preset {self.preset!r}: expected {', '.join(PRESETS)}")
        if self.bitrate_bps is not None and not 100_000 <= self.bitrate_bps <= 20_000_000:
            raise UsageError(f"bitrate {self.bitrate_bps} bit/s: expected 100000 to 20000000")

    def rate_bps(self, width: int, height: int) -> int:
        """The constant bit rate if one is set, else the maximum; for frames of this size, px."""
        if self.bitrate_bps is not None:
            return self.bitrate_bps
        pixels, bits = _REFERENCE
        # Larger pictures of the same face have less detail per pixel: less than in proportion.
        relative = PRESETS[self.preset][1] * (width * height / pixels) ** 0.6
        return round(bits * relative / 1000) * 1000


class H264:
    """Encodes frames to packets (Annex B) without delay; frame size and rate are fixed."""

    def __init__(self, encoding: Encoding, width: int, height: int, fps: Fraction) -> None:
        rate_bps = encoding.rate_bps(width, height)
        codec: Any = av.CodecContext.create("libx264", "w")
        codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
        codec.framerate = fps
        codec.time_base = Fraction(1, VIDEO_CLOCK_HZ)
        codec.gop_size = round(10 * fps)  # a viewer that joins or loses packets requests one
        codec.thread_count = 1
        kbps = rate_bps // 1000
        preset, _, quality = PRESETS[encoding.preset]
        rate_control = f"crf={quality}" if encoding.bitrate_bps is None else f"bitrate={kbps}"
        codec.options = {
            "preset": preset,
            "tune": "zerolatency",
            "forced-idr": "1",
            "x264-params": f"{rate_control}:vbv-maxrate={kbps}:vbv-bufsize={kbps}:repeat-headers=1:"
            "colormatrix=bt709:colorprim=bt709:transfer=bt709:range=tv",
        }
        codec.profile = "Baseline"
        self._codec = codec

    @span("encode")
    def encode(self, frame: VideoFrame, pts: int, key: bool) -> av.Packet[Any] | None:
        """The packet of one frame; pts in 1/90000 s."""
        picture: Any = as_picture(frame.i420)
        picture.pts, picture.time_base = pts, Fraction(1, VIDEO_CLOCK_HZ)
        picture.pict_type = PictureType.I if key else PictureType.NONE
        packets = self._codec.encode(picture)
        if not packets:
            return None
        packet: av.Packet[Any] = packets[0]
        packet.time_base = Fraction(1, VIDEO_CLOCK_HZ)
        return packet
