"""Every touch on aiortc's private parts; those on aioice's are in `aioice_tuning`.

`apply` changes how all connections of the process encode and connect; `hand_on_at_once` one
receiver, `key_frames_from` one sender. They were written against the versions in `TESTED`: with
others nothing is touched, and the log says so, because a private name that moved must not break a
call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from lipstream.streaming.webrtc import aioice_patches
from lipstream.streaming.webrtc.aioice_patches import PortRange

logger = logging.getLogger(__name__)

TESTED: Final = {"aiortc": "1.16", "aioice": "0.13"}

# GStreamer 1.22 makes RSA certificates; aiortc offers ECDSA suites alone.
_CIPHERS: Final = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA:"
    b"ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-CHACHA20-POLY1305:"
    b"ECDHE-RSA-AES128-SHA"
)


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the process sends pictures."""

    # Of VP8, which each viewer has its own encoder for: held, since each change rebuilds it with a
    # key frame. H.264 is made by `video_feed`.
    vp8_bps: int = 1_500_000
    loopback: bool = False  # offer 127.0.0.1 as well, which aioice leaves out
    udp_ports: PortRange | None = None  # for media; None: as the system chooses


def versions_tested() -> bool:
    """Whether the installed versions are those that this module knows."""
    return all(version(name).startswith(known + ".") for name, known in TESTED.items())


def apply(tuning: Tuning) -> bool:
    """Tune the process; call it again to change it. Returns whether anything was touched."""
    if not versions_tested():
        found = ", ".join(f"{name} {version(name)}" for name in TESTED)
        logger.warning("%s: not the tested versions, left untuned (slower, more delay)", found)
        return False
    import aiortc.rtcdtlstransport as dtls
    from aiortc.codecs import vpx

    for name in ("DEFAULT_BITRATE", "MIN_BITRATE", "MAX_BITRATE"):
        setattr(vpx, name, tuning.vp8_bps)

    certificate: Any = dtls.RTCCertificate
    original = getattr(certificate, "_lipstream_original", certificate._create_ssl_context)
    certificate._lipstream_original = original

    def create_ssl_context(self: Any, srtp_profiles: Any) -> Any:
        context = original(self, srtp_profiles=srtp_profiles)
        context.set_cipher_list(_CIPHERS)
        return context

    certificate._create_ssl_context = create_ssl_context

    aioice_patches.apply(tuning.loopback, tuning.udp_ports)
    return True


def hand_on_at_once(receiver: Any) -> bool:
    """Let an audio receiver decode each packet as it comes; one that comes out of order is lost.

    Its own buffer holds four packets back, and after one is lost sixteen, for good: 320 ms. The
    session's clock knows each packet's place and fills gaps. Returns whether it was done.
    """
    if not versions_tested():
        return False
    receiver._RTCRtpReceiver__jitter_buffer = _NoBuffer()
    return True


def key_frames_from(sender: Any, want: Callable[[], None]) -> bool:
    """Let a sender whose frames come compressed pass on that the other side needs a key frame."""
    if not versions_tested():
        return False
    own = sender._send_keyframe

    def send_keyframe() -> None:
        own()
        want()

    sender._send_keyframe = send_keyframe
    return True


class _NoBuffer:
    """In place of aiortc's `JitterBuffer`, for codecs with one packet a frame."""

    def __init__(self) -> None:
        self._last: int | None = None  # sequence number, 16 bits

    def add(self, packet: Any) -> tuple[bool, Any]:
        """Whether a key frame is wanted (never), and the frame to decode now or None."""
        from aiortc.jitterbuffer import JitterFrame

        number = packet.sequence_number
        if self._last is not None and not 0 < (number - self._last) % 65536 < 32768:
            return False, None
        self._last = number
        return False, JitterFrame(data=packet._data, timestamp=packet.timestamp)
