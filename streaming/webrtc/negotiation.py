"""What an offer is answered: which section carries what, and the answer's text.

aiortc is given a description of just the sections that carry something, in the form it reads. What
it answers is put back into the order of the offer, among the sections that carry nothing:

    offer          for aiortc      answer
    audio   ────►  audio  ──────►  audio    our sound, their voice, or both
    video   ────►  video  ──────►  video    our picture
    video                          video    inactive: nothing is taken in that nobody reads
    text                           text     refused: port 0

Source: RFC 3264 (offer and answer), RFC 9143 (BUNDLE), RFC 9429 (JSEP).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lipstream.engine.errors import UsageError
from lipstream.streaming.webrtc.codecs import (
    VideoChoice,
    choose_video,
    codecs_of,
    main_codec,
    names,
    sound_codecs,
)
from lipstream.streaming.webrtc.sdp_lines import (
    RECEIVES,
    SENDS,
    Attributes,
    Description,
    Section,
    is_local_name,
    usable_candidate,
)

_DIGESTS: Final = ("sha-256", "sha-384", "sha-512")  # that aiortc can check
_MID_EXTENSION: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"
_TRANSPORT: Final = ("a=ice-", "a=fingerprint:", "a=setup:", "a=candidate:", "a=end-of-candidates")
_EXPECTED: Final = "expected WebRTC SDP"
_REVERSED: Final = {"sendonly": "recvonly", "recvonly": "sendonly"}


@dataclass(frozen=True, slots=True)
class Use:
    """A section of the offer that carries something."""

    index: int
    mid: str  # for aiortc, which needs one that is unique
    kind: str
    sends: bool = False  # our sound or picture
    takes: bool = False  # their voice

    @property
    def direction(self) -> str:
        """Ours."""
        if self.sends:
            return "sendrecv" if self.takes else "sendonly"
        return "recvonly"


class Negotiation:
    """One offer and what becomes of its sections."""

    def __init__(self, offer: Description, listens: bool, shows: bool) -> None:
        """`listens`: their voice is wanted; `shows`: our sound and picture are sent.

        Raises:
            UsageError: there is nothing to take or to send, no codec for it, or no transport.
        """
        if not offer.sections:
            raise UsageError(f"the offer cannot be read: no line begins with m=; {_EXPECTED}")
        self._offer = offer
        self._mids = _unique_mids(offer)
        voice = self._section("audio", SENDS) if listens else None
        sound = self._section("audio", RECEIVES) if shows else None
        picture = self._section("video", RECEIVES) if shows else None
        if shows and sound is None and picture is None:
            raise UsageError("the offer receives nothing: expected recvonly video or audio")
        if not shows and voice is None:
            raise UsageError("the offer sends no sound: expected an audio section that sends")
        self.video: VideoChoice | None = None
        if picture is not None:
            self.video = choose_video(offer.sections[picture])
        grouped = self._grouped()
        self.uses: list[Use] = []
        for index, section in enumerate(offer.sections):
            sends, takes = index in (sound, picture), index == voice
            if sends or takes or (index in grouped and _is_data(section)):
                self.uses.append(Use(index, self._mids[index], section.kind, sends, takes))
        # The sections of one transport, in the order of the group.
        self._bundle = [index for index in grouped if self._is_answered(index)]

    def _section(self, kind: str, directions: tuple[str, ...]) -> int | None:
        """The first section of these directions that has a codec of ours."""
        found = self._offer.live(kind, directions)
        usable = choose_video if kind == "video" else sound_codecs
        fitting = [index for index in found if usable(self._offer.sections[index])]
        if found and not fitting:
            offered = names(c for index in found for c in codecs_of(self._offer.sections[index]))
            ours = "H.264 or VP8" if kind == "video" else "Opus, G722, PCMU or PCMA"
            raise UsageError(f"the offer's {kind} has {offered} only: expected {ours}")
        return fitting[0] if fitting else None

    def _grouped(self) -> list[int]:
        """Sections in the BUNDLE group, in its order."""
        by_mid: dict[str, int] = {}
        for index, section in enumerate(self._offer.sections):
            mid = section.attributes.first("mid")
            if mid is not None and self._offer.is_live(section):
                by_mid.setdefault(mid, index)
        return [by_mid[mid] for mid in dict.fromkeys(self._offer.bundle) if mid in by_mid]

    def _is_answered(self, index: int) -> bool:
        """Whether a section of the group is accepted, be it as inactive."""
        if any(use.index == index for use in self.uses):
            return True
        section = self._offer.sections[index]
        return section.is_media and main_codec(section) is not None

    # ------------------------------------------------------------- for aiortc

    def for_aiortc(self) -> str:
        """The offer as aiortc is given it: `uses`, in their order."""
        lines = ["v=0", "o=- 0 0 IN IP4 0.0.0.0", "s=-", "t=0 0"]
        if self._offer.attributes.first("ice-lite") is not None:
            lines.append("a=ice-lite")
        mids = [self._mids[i] for i in self._bundle if any(use.index == i for use in self.uses)]
        if mids:
            lines.append(f"a=group:BUNDLE {' '.join(mids)}")
        for use in self.uses:
            lines += self._section_for_aiortc(use)
        return "\r\n".join(lines) + "\r\n"

    def _section_for_aiortc(self, use: Use) -> Iterator[str]:
        section = self._offer.sections[use.index]
        said = section.attributes
        if use.kind == "application":
            yield f"m=application 9 {_sctp(section)} {' '.join(section.formats)}"
            for name in ("sctp-port", "sctpmap", "max-message-size"):
                yield from (f"a={name}:{value}" for value in said.all(name))
        else:
            yield from self._media_for_aiortc(use, section)
        yield f"a=mid:{use.mid}"
        yield from self._transport(use)

    def _media_for_aiortc(self, use: Use, section: Section) -> Iterator[str]:
        said = section.attributes
        if use.kind == "video":
            assert self.video is not None
            codecs = [one for one in (self.video.codec, self.video.rtx) if one is not None]
        else:
            codecs = sound_codecs(section)
        types = [str(codec.payload_type) for codec in codecs]
        yield f"m={use.kind} 9 UDP/TLS/RTP/SAVPF {' '.join(types)}"
        yield f"a={_REVERSED.get(use.direction, use.direction)}"
        yield "a=rtcp-mux"
        for codec in codecs:
            yield f"a=rtpmap:{codec.rtpmap}"
            if codec.name == "H264":  # as aiortc knows it; `answer` says it as it was offered
                yield (
                    f"a=fmtp:{codec.payload_type} level-asymmetry-allowed=1;"
                    "packetization-mode=1;profile-level-id=42e01f"
                )
            elif codec.name == "RTX":
                yield f"a=fmtp:{codec.payload_type} apt={codec.parameters['apt']}"
        for value in said.all("rtcp-fb"):
            if value.split()[0] in ("*", *types):
                yield f"a=rtcp-fb:{value}"
        for value in said.all("extmap"):
            number, uri = value.split()
            has_mid = uri != _MID_EXTENSION or said.first("mid") == use.mid
            if 0 < int(number.partition("/")[0]) < 15 and has_mid:
                yield f"a=extmap:{value}"

    # -------------------------------------------------------------- transport

    def _sources(self, index: int) -> list[Attributes]:
        """Where a section's transport may be said, the first place first."""
        sections = [self._offer.sections[index]]
        if index in self._bundle:  # the first of the group says it for all
            sections = [self._offer.sections[i] for i in self._bundle[:1]] + sections
            sections += [self._offer.sections[i] for i in self._bundle[1:]]
        return [*(section.attributes for section in sections), self._offer.attributes]

    def _transport(self, use: Use) -> Iterator[str]:
        what = f"the offer's {use.kind} section has"
        sources = self._sources(use.index)
        bundled = use.index in self._bundle
        own = self._offer.sections[use.index].attributes
        if use.kind != "application" and not bundled and own.first("rtcp-mux") is None:
            raise UsageError(f"{what} no a=rtcp-mux: {_EXPECTED}")
        ice = next((s for s in sources if s.first("ice-ufrag") and s.first("ice-pwd")), None)
        if ice is None:
            raise UsageError(f"{what} no a=ice-ufrag and a=ice-pwd: {_EXPECTED}")
        prints = next((s.all("fingerprint") for s in sources if s.all("fingerprint")), [])
        known = [value for value in prints if value.lower().startswith(_DIGESTS)]
        if not known:
            raise UsageError(f"{what} no a=fingerprint of {', '.join(_DIGESTS)}: {_EXPECTED}")
        setup = next((s.first("setup") for s in sources if s.first("setup")), "actpass")
        yield f"a=ice-ufrag:{ice.first('ice-ufrag')}"
        yield f"a=ice-pwd:{ice.first('ice-pwd')}"
        yield from (f"a=fingerprint:{value}" for value in known)
        yield f"a=setup:{setup}"
        # Never the end of candidates: the other side's own checks reach us whatever it lists, and
        # a call that comes to nothing is given up after a time.
        yield from (f"a=candidate:{c}" for c in self._candidates(use.index) if usable_candidate(c))

    def _candidates(self, index: int) -> list[str]:
        return next((s.all("candidate") for s in self._sources(index) if s.all("candidate")), [])

    def local_names(self) -> list[tuple[str, str]]:
        """(candidate, mid for aiortc) of the candidates that hide their address behind a name."""
        owners = [u for u in self.uses if u.index not in self._bundle]
        owners += [u for i in self._bundle for u in self.uses if u.index == i][:1]
        return [
            (value, use.mid)
            for use in owners
            for value in self._candidates(use.index)
            if is_local_name(value)
        ]

    # ----------------------------------------------------------------- answer

    def answer(self, answered: str, level_idc: int) -> str:
        """The answer to the offer.

        Args:
            answered: aiortc's answer to `for_aiortc`.
            level_idc: of the H.264 that is sent.
        """
        session, *blocks = _blocks(answered)
        by_index = {use.index: block for use, block in zip(self.uses, blocks, strict=True)}
        transport: list[str] = []
        if self._bundle:
            first = next(by_index[i] for i in self._bundle if i in by_index)
            transport = [line for line in first if line.startswith(_TRANSPORT)]
        lines = [line for line in session if not line.startswith("a=group:")]
        if self._bundle:
            mids = (self._offer.sections[i].attributes.first("mid") for i in self._bundle)
            lines.append(f"a=group:BUNDLE {' '.join(mid for mid in mids if mid)}")
        for index in range(len(self._offer.sections)):
            if index in by_index:
                lines += self._answered(index, by_index[index], level_idc)
            elif index in self._bundle:
                lines += self._inactive(index, transport)
            else:
                lines += self._refused(index)
        return with_one_fingerprint("\r\n".join(lines) + "\r\n")

    def _answered(self, index: int, block: list[str], level_idc: int) -> Iterator[str]:
        """aiortc's section, with the names of the offer."""
        section = self._offer.sections[index]
        kind, port, _, formats = block[0].split(" ", 3)
        yield f"{kind} {port} {section.profile} {formats}"
        for line in block[1:]:
            if line.startswith("a=mid:"):
                yield from self._mid(index)
            elif line.startswith("a=fmtp:") and self._is_h264(section, line):
                assert self.video is not None
                yield f"a=fmtp:{self.video.answered_fmtp(level_idc)}"
            else:
                yield line

    def _is_h264(self, section: Section, line: str) -> bool:
        video = self.video
        return (
            section.kind == "video"
            and video is not None
            and video.is_h264
            and line.startswith(f"a=fmtp:{video.codec.payload_type} ")
        )

    def _inactive(self, index: int, transport: list[str]) -> Iterator[str]:
        """A section of the group that carries nothing, answered with its first codec."""
        section = self._offer.sections[index]
        codec = main_codec(section)
        assert codec is not None
        yield f"m={section.kind} 9 {section.profile} {codec.payload_type}"
        yield "c=IN IP4 0.0.0.0"
        yield "a=inactive"
        yield from self._mid(index)
        yield "a=rtcp-mux"
        yield f"a=rtpmap:{codec.rtpmap}"
        if codec.fmtp is not None:
            yield f"a=fmtp:{codec.fmtp}"
        yield from transport

    def _refused(self, index: int) -> Iterator[str]:
        section = self._offer.sections[index]
        yield f"m={section.kind} 0 {section.profile} {' '.join(section.formats) or '0'}"
        yield "c=IN IP4 0.0.0.0"
        yield "a=inactive"
        yield from self._mid(index)

    def _mid(self, index: int) -> Iterator[str]:
        mid = self._offer.sections[index].attributes.first("mid")
        if mid is not None:
            yield f"a=mid:{mid}"


def with_level(sdp: str, level_idc: int) -> str:
    """An offer of aiortc's, of which H.264 has this level."""
    return re.sub(r"(?<=profile-level-id=[0-9a-f]{4})[0-9a-f]{2}", f"{level_idc:02x}", sdp)


def with_one_fingerprint(sdp: str) -> str:
    """With sha-256 alone: libdatachannel checks whichever it read last against a sha-256."""
    return "".join(
        line
        for line in sdp.splitlines(keepends=True)
        if not line.startswith("a=fingerprint:") or line.startswith("a=fingerprint:sha-256 ")
    )


def _is_data(section: Section) -> bool:
    """Data channels; nobody reads them, but their section may own the transport of all."""
    if section.kind != "application":
        return False
    if _sctp(section) == "DTLS/SCTP":
        return section.formats[:1] != () and section.formats[0].isdecimal()
    return section.profile.endswith("/DTLS/SCTP") and bool(section.attributes.all("sctp-port"))


def _sctp(section: Section) -> str:
    """The profile as aiortc knows it; the bare one is that of older browsers."""
    return "DTLS/SCTP" if section.profile == "DTLS/SCTP" else "UDP/DTLS/SCTP"


def _unique_mids(offer: Description) -> list[str]:
    mids: list[str] = []
    for index, section in enumerate(offer.sections):
        mid = section.attributes.first("mid")
        mids.append(mid if mid is not None and mid not in mids else f"section-{index}")
    return mids


def _blocks(sdp: str) -> list[list[str]]:
    """The lines of the session, then those of each section."""
    blocks: list[list[str]] = [[]]
    for line in sdp.splitlines():
        if line.startswith("m="):
            blocks.append([])
        blocks[-1].append(line)
    return blocks
