"""The results of a calibration: figures for `--json`, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lipstream.calibration.fitting.factorise import openings
from lipstream.calibration.report.page import write_report
from lipstream.calibration.report.verdict import (
    ReportData,
    ReportPicture,
    choose_pictures,
    choose_rejected,
)
from lipstream.calibration.tracking.rejection import NO_FACE, Rejection
from lipstream.engine.face.model import face_model
from lipstream.engine.paths import as_text
from lipstream.engine.target.bundle_checks import sha256_of
from lipstream.engine.target.consent import Consent
from lipstream.engine.target.frames import FrameReader
from lipstream.engine.target.track import Track
from lipstream.engine.types import I32
from lipstream.kernels.color import i420_to_rgb


@dataclass(frozen=True, slots=True)
class Summary:
    """The results, once a target is built."""

    name: str  # of the bundle
    path: Path  # of the footage
    kind: str
    fps: Fraction
    track: Track
    sources: I32  # i32 [S], track frames
    notes: tuple[str, ...] = ()
    rejected: Sequence[Rejection] = ()
    av_offset_ms: int | None = None
    av_offset_confidence: float = 0.0
    faults: tuple[str, ...] = ()  # why the target is poor, of a photo

    def figures(self) -> dict[str, Any]:
        """The keys of `calibrate --json` that belong to the target."""
        frames = len(self.track)
        return {
            "frames": frames,
            "fps": float(self.fps),
            "duration_s": round(float(frames / self.fps), 3),
            "sources": len(self.sources),
            "tracked_ratio": round(1 - len(self.rejected) / frames, 4),
            "rejected": [{"frame": r.frame, "reason": r.reason} for r in self.rejected],
            "av_offset_ms": self.av_offset_ms,
            "av_offset_confidence": round(self.av_offset_confidence, 3),
            "notes": list(self.notes),
        }

    def provenance(self, consent: Consent | str | None) -> dict[str, Any]:
        """Source of the footage, and consent."""
        source = {"file": as_text(self.path.name), "sha256": sha256_of(self.path)}
        stated = Consent.stated(consent) if isinstance(consent, str) else consent
        entries = {"consent": None} if stated is None else stated.unbound()
        return {"provenance": {"source": source, "maker": "lipstream"}, **entries}

    def write_report(self, folder: Path, reader: FrameReader) -> dict[str, Any]:
        """report.html, with pictures from the bundle's own frames.

        Returns the figures of the target, with the verdict of the report as `verdict`.
        """
        track = self.track
        free = track.pose.remove(track.landmarks)
        no_face = np.zeros(len(track), bool)
        no_face[[r.frame for r in self.rejected if r.reason in NO_FACE]] = True
        opening = np.where(no_face, np.nan, openings(track)).astype(np.float32)
        width = np.linalg.norm(free[:, 291] - free[:, 61], axis=1)
        width = np.where(no_face, np.nan, width).astype(np.float32)
        angles = np.where(no_face[:, None], np.nan, track.pose.angles_deg()).astype(np.float32)
        shown = choose_pictures(opening, width, angles, self.rejected)
        bad = choose_rejected(self.rejected)
        height = reader.shape[0] * 2 // 3
        data = ReportData(
            name=as_text(self.name),
            source=as_text(self.path.name),
            is_photo=self.kind == "photo",
            width=reader.shape[1],
            height=height,
            fps=self.fps,
            opening=opening,
            mouth_width=width,
            pose=angles,
            iod_px=float(np.median(track.pose.scale)),
            source_frames=self.sources,
            rejected=self.rejected,
            pictures=_pictures(reader, track, shown, no_face),
            rejected_pictures=_pictures(reader, track, bad, no_face),
            triangles=face_model().triangles,
            av_offset_ms=self.av_offset_ms,
            av_offset_confidence=self.av_offset_confidence,
            notes=self.notes,
            faults=self.faults,
        )
        return {**self.figures(), "verdict": asdict(write_report(folder, data))}


def _pictures(
    reader: FrameReader, track: Track, frames: Sequence[int], no_face: Any
) -> list[ReportPicture]:
    decoder = reader.decoder()
    return [
        ReportPicture(k, i420_to_rgb(decoder.read(k)), None if no_face[k] else track.landmarks[k])
        for k in frames
    ]
