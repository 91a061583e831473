"""H.264 for calls: no encoder delay, key frames on request, a level that is said beforehand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, NamedTuple

import av
from av.video.frame import PictureType

from lipstream.engine.errors import UsageError
from lipstream.engine.profiling import span
from lipstream.engine.target.frames import as_picture
from lipstream.engine.types import VideoFrame

VIDEO_CLOCK_HZ: Final = 90_000
_REFERENCE: Final = (512 * 512, 1_500_000)  # pixels, bit/s
_MAX_NAL_BYTES: Final = 1200  # of one packet: with its headers within an MTU of 1280
_START_CODE: Final = re.compile(rb"\x00\x00+\x01")
_NOMINAL_FPS: Final = Fraction(30)  # where the rate is not known

# level_idc -> macroblocks/s, macroblocks a frame, kbit/s of the baseline profile. Level 3.1, which
# every WebRTC client takes, is 720p30, and the least that is said. Source: ITU-T H.264, table A-1.
_LEVELS: Final = {
    31: (108_000, 3_600, 14_000),
    32: (216_000, 5_120, 20_000),
    40: (245_760, 8_192, 20_000),
    42: (522_240, 8_704, 50_000),
    50: (589_824, 22_080, 135_000),
    51: (983_040, 36_864, 240_000),
    52: (2_073_600, 36_864, 240_000),
}

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


class PictureFormat(NamedTuple):
    """Of all frames of a conversation."""

    width: int = 1280  # px
    height: int = 720
    fps: Fraction = Fraction(30)

    @classmethod
    def of(cls, engine: object) -> PictureFormat:
        """What an engine says of its target; of one that says nothing, the default."""
        target = getattr(engine, "target", None)
        return cls() if target is None else cls(target.width, target.height, target.fps)


def level_idc(encoding: Encoding, picture: PictureFormat) -> int:
    """Ten times the level that such frames need."""
    width, height, fps = picture
    blocks = ((width + 15) // 16) * ((height + 15) // 16)
    kbps = encoding.rate_bps(width, height) // 1000
    fitting = (
        level
        for level, (rate, most, most_kbps) in _LEVELS.items()
        if blocks * fps <= rate and blocks <= most and kbps <= most_kbps
    )
    return next(fitting, 52)


class H264:
    """Encodes frames to packets (Annex B) without delay; frame size and rate are fixed."""

    def __init__(
        self,
        encoding: Encoding,
        width: int,
        height: int,
        fps: Fraction,
        max_nal_bytes: int | None = None,
    ) -> None:
        """`max_nal_bytes`: a frame is cut into slices of at most that; None: one slice."""
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
        slices = f"slice-max-size={max_nal_bytes}:" if max_nal_bytes is not None else ""
        codec.options = {
            "preset": preset,
            "tune": "zerolatency",
            "forced-idr": "1",
            "level": f"{level_idc(encoding, PictureFormat(width, height, fps)) / 10:.1f}",
            "x264-params": f"{slices}{rate_control}:vbv-maxrate={kbps}:vbv-bufsize={kbps}:"
            "repeat-headers=1:colormatrix=bt709:colorprim=bt709:transfer=bt709:range=tv",
        }
        codec.profile = "Baseline"
        self._codec = codec

    @span("encode")
    def encode(self, frame: VideoFrame, pts: int, key: bool) -> av.Packet[Any] | None:
        """The packet of one frame; pts in 1/90000 s."""
        picture: Any = as_picture(frame.i420)
        picture.pts, picture.time_base = pts, Fraction(1, VIDEO_CLOCK_HZ)
        return self.encode_picture(picture, key)

    def encode_picture(self, picture: av.VideoFrame, key: bool) -> av.Packet[Any] | None:
        """The packet of a picture, yuv420p with its pts."""
        picture.pict_type = PictureType.I if key else PictureType.NONE
        packets = self._codec.encode(picture)
        if not packets:
            return None
        packet: av.Packet[Any] = packets[0]
        packet.time_base = Fraction(1, VIDEO_CLOCK_HZ)
        return packet


class SingleNalEncoder:
    """An encoder for aiortc's sender of which each packet is one NAL unit.

    For viewers of packetization-mode 0, which take neither fragments nor several units in a packet
    (RFC 6184, 6.2). Each has an encoder of its own, as with VP8.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._encoder: H264 | None = None

    def encode(self, frame: av.VideoFrame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """(payloads, pts in 1/90000 s) of a picture; all of one size."""
        if self._encoder is None:
            size = frame.width, frame.height
            self._encoder = H264(self._encoding, *size, _NOMINAL_FPS, _MAX_NAL_BYTES)
        packet = self._encoder.encode_picture(frame, force_keyframe)
        units = _START_CODE.split(bytes(packet)) if packet is not None else []
        return [unit for unit in units if unit], frame.pts or 0
