"""An SDP description as lines: what can be read is kept, what cannot is left out.

Clients write many attributes that nobody here needs, some in forms that aiortc's parser refuses
together with the whole offer. So a description is read line by line, and only what a connection
needs is handed on: the attributes of `_READABLE`, in the form that stands there.

Source: RFC 8866 (SDP), RFC 8839 (ICE), RFC 8842 (DTLS), RFC 8285 (header extensions).
"""

from __future__ import annotations

import ipaddress
import logging
import re
from dataclasses import dataclass
from typing import Final

from lipstream.engine.errors import UsageError

logger = logging.getLogger(__name__)

DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")
SENDS: Final = ("sendrecv", "sendonly")
RECEIVES: Final = ("sendrecv", "recvonly")

_MEDIA: Final = re.compile(r"m=(\S+) (\d{1,5})(?:/\d+)? (\S+)(?: (.*))?", re.ASCII)
_RTP: Final = re.compile(r"((UDP|TCP)/(D?TLS)/)?RTP/S?AVPF?")

# Attribute -> the form in which its value is kept; what follows the match is dropped.
_FORMS: Final = {
    "mid": r"\S{1,256}",
    "group": r"BUNDLE( \S+)*",
    "ice-ufrag": r"\S{1,256}",
    "ice-pwd": r"\S{1,256}",
    "fingerprint": r"\S{1,32} [0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2})+",
    "setup": r"(active|passive|actpass)\b",
    "rtpmap": r"\d{1,3} [^\s/]+/\d{1,7}(/\d{1,3})?",
    "fmtp": r"\d{1,3} .+",
    "rtcp-fb": r"(\d{1,3}|\*) \S+( \S+)*",
    "extmap": r"\d{1,5}(/\w+)? \S+",
    "candidate": r"\S{1,64} \d{1,3} \w+ \d{1,10} \S+ \d{1,5} typ \w+",
    "sctp-port": r"\d{1,5}\b",
    "sctpmap": r"\d{1,5} \S+( \S+)*",
    "max-message-size": r"\d{1,18}\b",
    **dict.fromkeys((*DIRECTIONS, "ice-lite", "rtcp-mux", "bundle-only"), ""),
}
_READABLE: Final = {name: re.compile(form, re.ASCII) for name, form in _FORMS.items()}


@dataclass(frozen=True, slots=True)
class Attributes:
    """Attributes in their order: (name, value), the value empty for a flag."""

    lines: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """Every value of a name."""
        return [value for own, value in self.lines if own == name]

    def first(self, name: str) -> str | None:
        """The first value of a name, or None."""
        return next(iter(self.all(name)), None)

    @property
    def direction(self) -> str | None:
        """One of `DIRECTIONS`, or None where none is said."""
        return next((name for name, _ in self.lines if name in DIRECTIONS), None)


@dataclass(frozen=True, slots=True)
class Section:
    """A media section: its `m=` line and its attributes."""

    kind: str  # audio, video, application or another word
    port: int
    profile: str
    formats: tuple[str, ...]
    attributes: Attributes

    @property
    def is_media(self) -> bool:
        """Sound or picture over RTP."""
        return self.kind in ("audio", "video") and _RTP.fullmatch(self.profile) is not None


@dataclass(frozen=True, slots=True)
class Description:
    """A whole description."""

    attributes: Attributes  # of the session
    sections: tuple[Section, ...]

    @property
    def bundle(self) -> list[str]:
        """The mids of the first BUNDLE group."""
        return next((value.split()[1:] for value in self.attributes.all("group")), [])

    def is_live(self, section: Section) -> bool:
        """Whether a section is offered at all; in a group, one of port 0 may be."""
        said = section.attributes
        return section.port != 0 or (
            said.first("bundle-only") is not None and said.first("mid") in self.bundle
        )

    def direction(self, section: Section) -> str:
        """One of `DIRECTIONS`; where none is said, both ways."""
        return section.attributes.direction or self.attributes.direction or "sendrecv"

    def live(self, kind: str, directions: tuple[str, ...]) -> list[int]:
        """The places of the sections of RTP of a kind and of one of these directions."""
        return [
            index
            for index, section in enumerate(self.sections)
            if section.kind == kind
            and section.is_media
            and self.is_live(section)
            and self.direction(section) in directions
        ]


def read_sdp(sdp: str) -> Description:
    """Of an offer.

    Raises:
        UsageError: the first line of a media section cannot be read.
    """
    blocks: list[list[str]] = [[]]
    for line in sdp.removeprefix("\ufeff").splitlines():
        line = " ".join(line.split())
        if line.startswith("m="):
            blocks.append([])
        blocks[-1].append(line)
    return Description(_attributes(blocks[0]), tuple(map(_section, blocks[1:])))


def _section(lines: list[str]) -> Section:
    found = _MEDIA.fullmatch(lines[0])
    if found is None:
        raise UsageError(f"the offer cannot be read: {lines[0][:100]!r}; expected WebRTC SDP")
    kind, port, profile, formats = found.groups()
    return Section(kind, int(port), profile, tuple((formats or "").split()), _attributes(lines[1:]))


def _attributes(lines: list[str]) -> Attributes:
    kept = []
    for line in lines:
        if not line.startswith("a="):
            continue
        name, _, value = line[2:].partition(":")
        form = _READABLE.get(name)
        if form is None:
            continue
        found = form.match(value.strip())
        if found is None:
            logger.debug("left out of a description: %s", line)
        else:
            kept.append((name, found[0]))
    return Attributes(tuple(kept))


def usable_candidate(value: str) -> bool:
    """Whether aioice can pair a candidate: RTP over UDP, at an address and not a name."""
    _, component, transport, _, host, port, _, kind = value.split()
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return (
        component == "1"
        and transport.lower() == "udp"
        and 0 < int(port) < 65536
        and kind in ("host", "srflx", "relay")
    )


def is_local_name(value: str) -> bool:
    """Whether a candidate's address is a multicast DNS name, as browsers write to hide it."""
    _, component, transport, _, host = value.split()[:5]
    return component == "1" and transport.lower() == "udp" and host.lower().endswith(".local")
