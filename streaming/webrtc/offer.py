"""What an SDP offer asks for."""

from __future__ import annotations

from dataclasses import dataclass

from lipstream.streaming.webrtc.sdp_lines import RECEIVES, SENDS, read_sdp


@dataclass(frozen=True, slots=True)
class OfferedMedia:
    """The directions of an offer's media sections."""

    receives: bool  # picture or sound
    sends_audio: bool

    @classmethod
    def parse(cls, sdp: str) -> OfferedMedia:
        """Of an offer.

        Raises:
            UsageError: it is not SDP.
        """
        offer = read_sdp(sdp)
        return cls(
            receives=any(offer.live(kind, RECEIVES) for kind in ("audio", "video")),
            sends_audio=bool(offer.live("audio", SENDS)),
        )


def one_line(error: Exception) -> str:
    """An error's message on one line, 200 characters at most; its type where there is none."""
    return " ".join(str(error).split())[:200] or type(error).__name__
