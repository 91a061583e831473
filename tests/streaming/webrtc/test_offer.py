"""What an offer asks for is read from its media sections, not from words anywhere in it."""

from __future__ import annotations

import pytest

pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.engine.errors import UsageError  # noqa: E402
from lipstream.streaming.webrtc.offer import receives  # noqa: E402

HEAD = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns={}\r\nt=0 0\r\n"
AUDIO = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na={}\r\na=rtpmap:111 opus/48000/2\r\n"
)
VIDEO = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na={}\r\na=rtpmap:96 VP8/90000\r\n"


@pytest.mark.parametrize(
    "audio, video, wanted",
    [
        ("sendonly", "recvonly", True),
        ("sendrecv", "inactive", True),
        ("recvonly", "recvonly", True),
        ("sendonly", "sendonly", False),
        ("inactive", "sendonly", False),
    ],
)
def test_directions_of_sections(audio: str, video: str, wanted: bool) -> None:
    sdp = HEAD.format("-") + AUDIO.format(audio) + VIDEO.format(video)
    assert receives(sdp) is wanted


def test_words_elsewhere_in_the_offer_mean_nothing() -> None:
    sdp = HEAD.format("a=sendrecv") + AUDIO.format("sendonly")
    assert not receives(sdp)


def test_what_is_no_sdp_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="the offer cannot be read: .*; expected WebRTC SDP"):
        receives("v=0\r\nm=audio x y z\r\n")
