"""What an SDP offer asks for."""

from __future__ import annotations

from lipstream.streaming.webrtc.sdp_lines import RECEIVES, read_sdp


def receives(sdp: str) -> bool:
    """Whether an offer wants a picture or sound, by the directions of its sections.

    Raises: UsageError for what is not SDP.
    """
    offer = read_sdp(sdp)
    return any(offer.live(kind, RECEIVES) for kind in ("audio", "video"))


def one_line(error: Exception) -> str:
    """An error's message on one line, 200 characters at most; its type where there is none."""
    return " ".join(str(error).split())[:200] or type(error).__name__
