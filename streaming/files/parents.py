"""What a video is made of, by hash: for its manifest, and for an id that follows from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lipstream.engine.target.bundle_checks import sha256_of
from lipstream.streaming.files.provenance import Synthesis
from lipstream.streaming.marking.marker import ID_BITS, FrameMarker

if TYPE_CHECKING:
    from lipstream.engine.target.bundle import Target


@dataclass(frozen=True, slots=True)
class Parents:
    """The target and the sound of a video."""

    target: Target
    target_sha256: str  # of target.json, which holds the hashes of the other files
    sound_sha256: str | None  # None: a pipe, which cannot be read twice

    @classmethod
    def of(cls, target: Target, sound: Path) -> Parents:
        """Reads the files."""
        of_sound = sha256_of(sound) if sound.is_file() else None
        return cls(target, sha256_of(target.folder / "target.json"), of_sound)

    def watermark(self, options: dict[str, Any]) -> int | None:
        """The id of the video: the same sound, target and options give the same frames.

        options: those that the frames depend on, as JSON takes them.

        Returns:
            None where the sound has no hash.
        """
        if self.sound_sha256 is None:
            return None
        whole = json.dumps([self.target_sha256, self.sound_sha256, options], sort_keys=True)
        digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[: ID_BITS // 8], "big")

    def synthesis(self, marker: FrameMarker) -> Synthesis:
        """For the manifest."""
        target = self.target
        consent = None if target.consent is None else target.consent.as_json()
        stated = target.info.get("provenance")
        source = stated.get("source") if isinstance(stated, dict) else None
        return Synthesis(
            version("lipstream"),
            {
                "kind": target.kind,
                "sha256": self.target_sha256,
                "footage_sha256": source.get("sha256") if isinstance(source, dict) else None,
            },
            self.sound_sha256,
            # Whose face it is stays with the target: a manifest is published.
            consent and {key: consent[key] for key in ("for", "recorded", "statement_sha256")},
            marker.as_json(),
        )
