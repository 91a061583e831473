"""One pass over the footage: its frames are written to the bundle, and the face is tracked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from lipstream.calibration.bundle_writer import FrameFile
from lipstream.calibration.media.video import Footage, FootageFrame
from lipstream.calibration.tracking.raw_track import RawTrack
from lipstream.calibration.tracking.tracker import track
from lipstream.engine.types import U8

_THUMBNAIL_PX: Final = 32


@dataclass(frozen=True, slots=True)
class IngestedFootage:
    """The result of the pass over T frames."""

    raw: RawTrack
    thumbnails: U8  # u8 [T, 32, 32], luma
    file: FrameFile  # closed
    fps: Fraction
    notes: tuple[str, ...]  # what was changed or chosen, for the report


def ingest(
    footage: Footage,
    folder: Path,
    landmarker: Path,
    report: Callable[[float], None],
    person: int | None = None,
) -> IngestedFootage:
    """Write frames.mjpeg into `folder` and track the face.

    landmarker: path of face_landmarker.task. report: takes the fraction of frames done. person: as
    in `track`.

    Raises:
        CalibrationError: no face in any frame, or it is not clear whom to follow.
        AssetError: the landmarker cannot be loaded.
        MediaError: the footage cannot be read, or the frames not written.
    """
    expected = footage.expected_frames
    thumbnails: list[U8] = []
    with FrameFile(folder, footage.width, footage.height) as file:

        def write(frame: FootageFrame) -> None:
            file.append(frame.i420)
            thumbnails.append(thumbnail(frame.i420))

        def progress(done: int) -> None:
            report(done / max(expected or done, done, 1))

        raw = track(footage, write, landmarker, progress, person)
    notes = (*footage.notes, *raw.warnings)
    return IngestedFootage(raw, np.stack(thumbnails), file, footage.fps, notes)


def thumbnail(i420: U8) -> U8:
    """Mean luma of the cells of a 32 × 32 grid, u8 [32, 32], of a frame u8 [h*3/2, w].

    Enough to see whether two backgrounds agree.
    """
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    rows = np.linspace(0, height, _THUMBNAIL_PX + 1).astype(int)
    columns = np.linspace(0, width, _THUMBNAIL_PX + 1).astype(int)
    luma = i420[:height].astype(np.float32)
    sums = np.add.reduceat(np.add.reduceat(luma, rows[:-1], 0), columns[:-1], 1)
    area = np.diff(rows)[:, None] * np.diff(columns)[None]
    return (sums / area + 0.5).astype(np.uint8)
