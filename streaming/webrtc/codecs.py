"""The codecs of a media section, and which of them carries our sound or picture.

Source: RFC 3551 (static payload types), RFC 6184 (H.264), RFC 7587 (Opus).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from lipstream.streaming.webrtc.sdp_lines import Section

# Those of aiortc: name and clock, Hz.
AUDIO: Final = {("OPUS", 48_000), ("G722", 8_000), ("PCMU", 8_000), ("PCMA", 8_000)}
_STATIC: Final = {"0": "0 PCMU/8000", "8": "8 PCMA/8000", "9": "9 G722/8000"}
_RTCP: Final = range(72, 77)  # payload types that would read as RTCP
_NO_MEDIA: Final = {"RTX", "RED", "ULPFEC", "FLEXFEC-03", "TELEPHONE-EVENT", "CN"}

# profile_idc and profile-iop of an H.264 profile-level-id, the best first. Ours is a constrained
# baseline stream, which decoders of every profile read; these say the least beyond it.
_PROFILES: Final = (
    re.compile("42[4-7c-f]", re.IGNORECASE),  # constrained baseline
    re.compile("42", re.IGNORECASE),  # baseline
    re.compile("4d", re.IGNORECASE),  # main
    re.compile("640c", re.IGNORECASE),  # constrained high
)
_PROFILE_LEVEL_ID: Final = re.compile("[0-9a-f]{6}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Codec:
    """One format of a section."""

    payload_type: int
    name: str  # in capitals
    clock_hz: int
    rtpmap: str  # the attribute's value
    fmtp: str | None  # the same, with the payload type

    @property
    def parameters(self) -> dict[str, str]:
        """Of the format, names in small letters."""
        pairs = (one.partition("=") for one in (self.fmtp or "").partition(" ")[2].split(";"))
        return {name.strip().lower(): value.strip() for name, _, value in pairs}


@dataclass(frozen=True, slots=True)
class VideoChoice:
    """The codec that carries the picture."""

    codec: Codec
    rtx: Codec | None  # its retransmissions

    @property
    def is_h264(self) -> bool:
        """H.264, or else VP8."""
        return self.codec.name == "H264"

    @property
    def single_nal_units(self) -> bool:
        """H.264 of packetization-mode 0: one NAL unit in each packet, neither more nor a part."""
        return self.is_h264 and _packetization_mode(self.codec) == "0"

    def answered_fmtp(self, level_idc: int) -> str:
        """The value of H.264's `a=fmtp` in the answer: the profile offered, the level sent."""
        profile = _profile_level_id(self.codec)[:4]
        return (
            f"{self.codec.payload_type} level-asymmetry-allowed=1;"
            f"packetization-mode={_packetization_mode(self.codec)};"
            f"profile-level-id={profile}{level_idc:02x}"
        )


def codecs_of(section: Section) -> list[Codec]:
    """Of the formats that the `m=` line names, in its order; one without a name is left out."""
    named: dict[str, str] = {}
    for value in section.attributes.all("rtpmap"):
        named.setdefault(value.split()[0], value)
    parameters = {value.split()[0]: value for value in section.attributes.all("fmtp")}
    codecs = []
    for payload_type in dict.fromkeys(section.formats):
        rtpmap = named.get(payload_type, _STATIC.get(payload_type))
        if rtpmap is None or int(payload_type) > 127 or int(payload_type) in _RTCP:
            continue
        name, clock = rtpmap.split()[1].split("/")[:2]
        fmtp = parameters.get(payload_type)
        codecs.append(Codec(int(payload_type), name.upper(), int(clock), rtpmap, fmtp))
    return codecs


def main_codec(section: Section) -> Codec | None:
    """The first that carries media by itself, or None."""
    return next((codec for codec in codecs_of(section) if codec.name not in _NO_MEDIA), None)


def sound_codecs(section: Section) -> list[Codec]:
    """Those that we can send and take, in the order offered."""
    return [codec for codec in codecs_of(section) if (codec.name, codec.clock_hz) in AUDIO]


def choose_video(section: Section) -> VideoChoice | None:
    """The codec that we send: H.264, or else VP8, or else H.264 in single NAL units."""
    found = [c for c in codecs_of(section) if c.clock_hz == 90_000]
    ranked = sorted((c for c in found if _rank(c) is not None), key=lambda c: _rank(c) or ())
    if not ranked:
        return None
    best = ranked[0]
    again = (
        c for c in found if c.name == "RTX" and c.parameters.get("apt") == str(best.payload_type)
    )
    return VideoChoice(best, next(again, None))


def names(codecs: Iterable[Codec]) -> str:
    """For a message: the media codecs among them, each once."""
    found = dict.fromkeys(codec.name for codec in codecs if codec.name not in _NO_MEDIA)
    return ", ".join(found) or "no codec"


def _rank(codec: Codec) -> tuple[int, int] | None:
    """The smaller the better; None for what we cannot send."""
    if codec.name == "VP8":
        return 1, 0
    if codec.name != "H264":
        return None
    profile = _profile_level_id(codec)
    place = next((i for i, one in enumerate(_PROFILES) if one.match(profile)), len(_PROFILES))
    return {"1": (0, place), "0": (2, place)}.get(_packetization_mode(codec))


def _packetization_mode(codec: Codec) -> str:
    return codec.parameters.get("packetization-mode", "0")


def _profile_level_id(codec: Codec) -> str:
    """Where none is said: constrained baseline, which older WebRTC means by that."""
    said = codec.parameters.get("profile-level-id", "")
    return said if _PROFILE_LEVEL_ID.fullmatch(said) else "42e01f"
