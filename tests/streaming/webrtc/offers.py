"""Offers as text, of which a test states just what it is about."""

from __future__ import annotations

from collections.abc import Iterable

HEAD = ("v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0")
TRANSPORT = (
    "a=ice-ufrag:abcd",
    "a=ice-pwd:abcdefghijklmnopqrstuv",
    "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
    "a=setup:actpass",
    "a=rtcp-mux",
)
OPUS = ("a=rtpmap:111 opus/48000/2", "a=fmtp:111 minptime=10;useinbandfec=1")
VP8 = ("a=rtpmap:96 VP8/90000",)


def h264(payload_type: int, parameters: str | None) -> tuple[str, ...]:
    fmtp = () if parameters is None else (f"a=fmtp:{payload_type} {parameters}",)
    return (f"a=rtpmap:{payload_type} H264/90000", *fmtp)


def audio(
    direction: str | None = "sendrecv",
    mid: str | None = "0",
    lines: Iterable[str] = OPUS,
    transport: Iterable[str] = TRANSPORT,
    port: int = 9,
) -> list[str]:
    """A section; None leaves out its direction or its mid."""
    return section(f"m=audio {port} UDP/TLS/RTP/SAVPF", direction, mid, [*lines, *transport])


def video(
    direction: str | None = "recvonly",
    mid: str | None = "1",
    lines: Iterable[str] = VP8,
    transport: Iterable[str] = TRANSPORT,
    port: int = 9,
) -> list[str]:
    return section(f"m=video {port} UDP/TLS/RTP/SAVPF", direction, mid, [*lines, *transport])


def section(head: str, direction: str | None, mid: str | None, lines: list[str]) -> list[str]:
    types = [line[9:].split()[0] for line in lines if line.startswith("a=rtpmap:")]
    out = [f"{head} {' '.join(types)}".rstrip(), "c=IN IP4 0.0.0.0"]
    out += [f"a=mid:{mid}"] if mid is not None else []
    out += [f"a={direction}"] if direction is not None else []
    return out + lines


def offer(*sections: list[str], session: Iterable[str] = (), bundle: bool = True) -> str:
    """An offer; its sections with a mid are in one BUNDLE group."""
    mids = [line[6:] for one in sections for line in one if line.startswith("a=mid:")]
    group = [f"a=group:BUNDLE {' '.join(mids)}"] if bundle and mids else []
    lines = [*HEAD, *group, *session, *(line for one in sections for line in one)]
    return "\r\n".join(lines) + "\r\n"
