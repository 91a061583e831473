"""Every use of aiortc's private parts; those of aioice's are in `aioice_patches`.

`apply` changes how all connections of the process encode and connect, `remove_jitter_buffer` one
receiver, `forward_key_frame_requests` and `encode_with` one sender. They are written against the
versions in `TESTED`: with others nothing is changed, and the log says so, because a private name
that moved must not break a call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import av

from lipstream.streaming.webrtc import aioice_patches
from lipstream.streaming.webrtc.aioice_patches import PortRange
from lipstream.streaming.webrtc.packet_order import VoicePacket

logger = logging.getLogger(__name__)

TESTED: Final = {"aiortc": "1.16", "aioice": "0.13"}

# GStreamer 1.22 makes RSA certificates; aiortc offers ECDSA suites alone.
_CIPHERS: Final = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA:"
    b"ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-CHACHA20-POLY1305:"
    b"ECDHE-RSA-AES128-SHA"
)


@dataclass(frozen=True, slots=True)
class PatchOptions:
    """What `apply` sets for the process."""

    # VP8 has an encoder for each viewer. The rate is constant, since each change rebuilds the
    # encoder with a key frame. H.264 is encoded by `video_feed`.
    vp8_bps: int = 1_500_000
    loopback: bool = False  # offer 127.0.0.1 as well, which aioice leaves out
    udp_ports: PortRange | None = None  # for media; None: as the system chooses
    address: str | None = None  # of this machine, to be offered whatever aioice finds


def versions_tested() -> bool:
    """Whether the installed versions are those that this module knows."""
    return all(version(name).startswith(known + ".") for name, known in TESTED.items())


def apply(options: PatchOptions) -> bool:
    """Patch the process; call it again to change it. Returns whether anything was changed."""
    if not versions_tested():
        found = ", ".join(f"{name} {version(name)}" for name in TESTED)
        logger.warning("%s: not the tested versions, left unpatched (slower, more delay)", found)
        return False
    import aiortc.rtcdtlstransport as dtls
    from aiortc.codecs import vpx

    for name in ("DEFAULT_BITRATE", "MIN_BITRATE", "MAX_BITRATE"):
        setattr(vpx, name, options.vp8_bps)

    certificate: Any = dtls.RTCCertificate
    original = getattr(certificate, "_lipstream_original", certificate._create_ssl_context)
    certificate._lipstream_original = original

    def create_ssl_context(self: Any, srtp_profiles: Any) -> Any:
        context = original(self, srtp_profiles=srtp_profiles)
        context.set_cipher_list(_CIPHERS)
        return context

    certificate._create_ssl_context = create_ssl_context

    _keep_level_of_mono()
    aioice_patches.apply(options.loopback, options.udp_ports, options.address)
    return True


def _keep_level_of_mono() -> None:
    """Let Opus carry mono at its own level: aiortc's resampler makes stereo of it 3 dB lower."""
    from aiortc.codecs import opus

    encoder: Any = opus.OpusEncoder
    original = getattr(encoder, "_lipstream_original", encoder.encode)
    encoder._lipstream_original = original

    def encode(self: Any, frame: Any, force_keyframe: bool = False) -> Any:
        return original(self, _in_stereo(frame), force_keyframe)

    encoder.encode = encode


def _in_stereo(frame: Any) -> Any:
    """The same samples on both channels; stereo as it is."""
    if frame.layout.name != "mono" or frame.format.name != "s16":
        return frame
    doubled = av.AudioFrame.from_ndarray(
        frame.to_ndarray().repeat(2)[None], format="s16", layout="stereo"
    )
    doubled.sample_rate, doubled.time_base = frame.sample_rate, frame.time_base
    doubled.pts = frame.pts
    return doubled


def remove_jitter_buffer(receiver: Any) -> bool:
    """Let an audio receiver decode each packet as it arrives; one out of order is lost.

    aiortc's buffer holds four packets back, and from the first loss on sixteen: 320 ms. The
    session's clock has a place for each packet and fills gaps. Returns whether it was done.
    """
    if not versions_tested():
        return False
    if not isinstance(receiver._RTCRtpReceiver__jitter_buffer, _Tap):
        receiver._RTCRtpReceiver__jitter_buffer = _NoBuffer()
    return True


def take_packets(receiver: Any, take: Callable[[VoicePacket], None]) -> bool:
    """Let an audio receiver hand each packet on as it arrives, in place of decoding it.

    Returns whether it was done.
    """
    if not versions_tested():
        return False
    receiver._RTCRtpReceiver__jitter_buffer = _Tap(receiver._RTCRtpReceiver__codecs, take)
    return True


def forward_key_frame_requests(sender: Any, want: Callable[[], None]) -> bool:
    """Let a sender of packets that are already encoded call `want` for each key frame request.

    Returns whether it was done.
    """
    if not versions_tested():
        return False
    own = sender._send_keyframe

    def send_keyframe() -> None:
        own()
        want()

    sender._send_keyframe = send_keyframe
    return True


def encode_with(sender: Any, encoder: Any) -> bool:
    """Let a sender that has not begun encode its frames with this. Returns whether it was done."""
    if not versions_tested():
        return False
    sender._RTCRtpSender__encoder = encoder
    return True


class _NoBuffer:
    """In place of aiortc's `JitterBuffer`, for codecs with one packet a frame."""

    def __init__(self) -> None:
        self._last: int | None = None  # sequence number, 16 bits

    def add(self, packet: Any) -> tuple[bool, Any]:
        """(whether a key frame is wanted: never; the frame to decode now, or None)."""
        from aiortc.jitterbuffer import JitterFrame

        number = packet.sequence_number
        if self._last is not None and not 0 < (number - self._last) % 65536 < 32768:
            return False, None
        self._last = number
        return False, JitterFrame(data=packet._data, timestamp=packet.timestamp)


class _Tap:
    """In place of aiortc's `JitterBuffer`: packets go elsewhere."""

    def __init__(self, codecs: dict[int, Any], take: Callable[[VoicePacket], None]) -> None:
        self._codecs = codecs  # by payload type
        self._take = take

    def add(self, packet: Any) -> tuple[bool, Any]:
        """(whether a key frame is wanted: never; the frame to decode now: none)."""
        self._take(
            VoicePacket(
                packet.sequence_number,
                packet.timestamp,
                packet.ssrc,
                packet._data,
                self._codecs[packet.payload_type],
                asyncio.get_running_loop().time(),
            )
        )
        return False, None
