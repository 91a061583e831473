"""Changes to bytes and text, drawn from a `random.Random`: the same one gives the same change."""

from __future__ import annotations

import random
import re

# Numbers at which arithmetic on lengths, counts and rates goes wrong.
NUMBERS = (
    0, 1, 2, 3, 7, 8, 16, 64, 127, 128, 255, 256, 1000, 4096, 32_767, 32_768, 65_535, 65_536,
    2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
WORDS = (
    "", " ", "0", "-1", "1", "65535", "65536", "4294967296", "1e400", "nan", "Infinity", "null",
    "true", "[]", "{}", '"', "\\u0000", "\0", "\ufeff", "é", "\U0001f600", "\ud800", "%00", "../..",
    "a=", "m=audio 9 UDP/TLS/RTP/SAVPF 0", "9" * 400, "a" * 3000, "[" * 500, "0" * 40, "::1",
)  # fmt: skip
_HEADERS_BYTES = (48, 512, 1 << 30)
_TOKEN = re.compile(r"[A-Za-z]+|-?\d+(?:\.\d+)?|\s+|[^\sA-Za-z\d]")


def mutated(data: bytes, rng: random.Random, most: int = 6) -> bytes:
    """`data` with one to `most` changes: flipped, cut, grown, other numbers."""
    out = bytearray(data)
    for _ in range(rng.randint(1, most)):
        _change(out, rng)
    return bytes(out)


def _place(out: bytearray, rng: random.Random) -> int:
    """Two thirds of them among the first bytes, where headers are."""
    end = min(len(out), rng.choice(_HEADERS_BYTES))
    return rng.randrange(end) if end else 0


def _change(out: bytearray, rng: random.Random) -> None:
    kind, at = rng.randrange(8), _place(out, rng)
    length = min(len(out) - at, 1 << rng.randrange(12))
    if kind == 0 and out:
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and out:
        out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
    elif kind in (2, 3):
        width = rng.choice((2, 4, 4, 8))
        value = rng.choice(NUMBERS) % (1 << 8 * width)
        if at + width <= len(out):
            out[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
    elif kind == 4:
        del out[len(out) - rng.randrange(len(out) + 1) :]
    elif kind == 5:
        del out[at : at + length]
    elif kind == 6:
        out[at:at] = bytes(out[at : at + length])
    else:
        out[at:at] = rng.randbytes(length)


def mutated_text(text: str, rng: random.Random, most: int = 4) -> str:
    """`text` with one to `most` changes of lines and tokens."""
    lines = text.splitlines(keepends=True)
    for _ in range(rng.randint(1, most)):
        kind = rng.randrange(6)
        at = rng.randrange(len(lines)) if lines else 0
        if not lines or kind == 0:
            lines.insert(at, rng.choice(WORDS) + rng.choice(("\r\n", "\n", "")))
        elif kind == 1:
            del lines[at]
        elif kind == 2:
            lines.insert(rng.randrange(len(lines)), lines[at])
        elif kind == 3:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        else:
            lines[at] = _other_token(lines[at], rng)
    return "".join(lines)


def _other_token(line: str, rng: random.Random) -> str:
    tokens = _TOKEN.findall(line)
    if not tokens:
        return rng.choice(WORDS)
    at = rng.randrange(len(tokens))
    tokens[at] = rng.choice((rng.choice(WORDS), str(rng.choice(NUMBERS)), tokens[at] * 2))
    return "".join(tokens)
