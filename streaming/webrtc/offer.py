"""What an SDP offer asks for."""

from __future__ import annotations

from dataclasses import dataclass

from aiortc.sdp import SessionDescription

from lipstream.engine.errors import UsageError


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
        try:
            sections = SessionDescription.parse(sdp).media
        except Exception as error:  # the parser raises whatever comes first
            raise UsageError(
                f"the offer cannot be read: {one_line(error)}; expected WebRTC SDP"
            ) from error
        return cls(
            receives=any(m.direction in ("recvonly", "sendrecv") for m in sections),
            sends_audio=any(
                m.kind == "audio" and m.direction in ("sendonly", "sendrecv") for m in sections
            ),
        )


def one_line(error: Exception) -> str:
    """An error's message on one line, 200 characters at most; its type where there is none."""
    return " ".join(str(error).split())[:200] or type(error).__name__
