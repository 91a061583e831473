"""Short marked videos, made as `dub` makes them, without a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from lipstream.engine.types import AudioChunk, VideoFrame
from lipstream.streaming.files.audio_file import AudioFile
from lipstream.streaming.files.dub import Outgoing, write_dub
from lipstream.streaming.files.partial_file import PartialFile
from lipstream.streaming.files.provenance import Provenance, Synthesis
from lipstream.streaming.marking.marker import FrameMarker, Marking
from tests.streaming.fake_engine import FakeEngine, FakeSession
from tests.streaming.sound_files import write_wav


class TexturedEngine(FakeEngine):
    """Something to see: a smooth picture that moves, with grain that stands still."""

    def session(self) -> FakeSession:
        return _TexturedSession(self)


class _TexturedSession(FakeSession):
    def frames(self, chunk: AudioChunk | None) -> Iterator[VideoFrame]:
        for frame in super().frames(chunk):
            yield replace(frame, i420=picture(frame.frame_index, frame.width, frame.height))


@cache
def _grain(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, (height, width)).astype(np.float32)


def picture(index: int, width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    grain = _grain(height, width)
    waves = 45 * np.sin(x / 41 + index / 9) + 30 * np.cos(y / 29 - index / 13)
    frame = np.full((height * 3 // 2, width), 120, np.uint8)
    frame[:height] = np.clip(126 + waves + grain, 16, 235)
    return frame


def synthesis(marker: FrameMarker) -> Synthesis:
    consent = {"for": "tests", "recorded": "2026-11-29T00:00:00+00:00", "statement_sha256": "ab"}
    target = {"kind": "video", "sha256": "12", "footage_sha256": None}
    return Synthesis("9.9", target, "34", consent, marker.as_json())


def write_marked(
    path: Path,
    marking: Marking | None = None,
    provenance: Provenance | None = None,
    seconds: float = 0.4,
    size: tuple[int, int] = (160, 120),
) -> Outgoing:
    """A video; signed where there is a `provenance`."""
    sound = write_wav(path.with_suffix(".wav"), np.zeros(int(16_000 * seconds), np.float32))
    outgoing = Outgoing(FrameMarker(marking))
    if provenance is not None:
        outgoing.seal = partial(_seal, provenance, outgoing.marker)
    with AudioFile(sound) as source, PartialFile(path) as part:
        write_dub(TexturedEngine(*size), source, part, None, outgoing)
    return outgoing


def _seal(provenance: Provenance, marker: FrameMarker, part: PartialFile):  # type: ignore[no-untyped-def]
    return provenance.seal(part, synthesis(marker))
