"""Marks frames on their way out of the engine, for files, calls and `present` alike."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any, Final

from lipstream.engine.errors import UsageError
from lipstream.engine.types import VideoFrame
from lipstream.engine.watermark.embed import Watermark
from lipstream.streaming.marking.label import KINDS, OFF, label_patch

ID_BITS: Final = 32  # of a watermark


@dataclass(frozen=True, slots=True)
class Marking:
    """What frames carry. Each part is on unless somebody says why not."""

    label: str = "corner"  # of KINDS, or OFF
    no_label: str | None = None  # the reason why it is off
    no_watermark: str | None = None  # likewise

    def __post_init__(self) -> None:
        """Raises: UsageError for an unknown label, and for a part that is off without a reason."""
        if self.label != OFF and self.label not in KINDS:
            raise UsageError(f"--label {self.label}: expected {', '.join(KINDS)} or off:REASON")
        if self.label == OFF and not (self.no_label or "").strip():
            raise UsageError(
                "--label off: say why, as in --label 'off:the player shows its own'; "
                "the reason is written into the file's manifest"
            )
        if self.no_watermark is not None and not self.no_watermark.strip():
            raise UsageError("--no-watermark: say why; the reason is written into the manifest")

    @classmethod
    def parse(cls, label: str, no_watermark: str | None = None) -> Marking:
        """From `--label corner|bar|off:REASON` and `--no-watermark REASON`. Raises: UsageError."""
        kind, _, reason = label.partition(":")
        if kind == OFF:
            return cls(OFF, reason.strip(), no_watermark)
        return cls(label, None, no_watermark)


def as_hex(session: int) -> str:
    """A watermark's id as people and manifests see it: eight digits."""
    return f"{session:08x}"


class FrameMarker:
    """The label and the watermark of one file or one conversation."""

    def __init__(self, marking: Marking | None = None, session: int | None = None) -> None:
        """`session`: the watermark's id, of 32 bits; None: a random one."""
        self.marking = marking or Marking()
        if session is None:
            session = secrets.randbits(ID_BITS)
        self._watermark = None if self.marking.no_watermark else Watermark(session)

    @property
    def session_hex(self) -> str | None:
        """The id in the watermark, eight digits, as `verify` shows it."""
        return None if self._watermark is None else as_hex(self._watermark.session)

    def prepare(self, width: int, height: int) -> None:
        """For frames of this size, before the first: 20 ms, which a call should not wait for."""
        if self._watermark is not None:
            self._watermark.prepare(height, width)
        if self.marking.label != OFF:
            label_patch(self.marking.label, width, height)

    def mark(self, frame: VideoFrame) -> VideoFrame:
        """The frame with its marks; the engine's own stays as it is, for it may be shown again."""
        picture = frame.i420.copy()
        if self._watermark is not None:
            self._watermark.apply(picture)
        if self.marking.label != OFF:
            label_patch(self.marking.label, frame.width, frame.height).draw(picture)
        return replace(frame, i420=picture)

    def as_json(self) -> dict[str, Any]:
        """For reports and manifests."""
        return {
            "label": self.marking.label,
            "no_label": self.marking.no_label,
            "watermark": self.session_hex,
            "no_watermark": self.marking.no_watermark,
        }
