"""report.html: will this target look good, and what footage would help?

One file that needs no other: pictures are embedded, curves are inline SVG, there is no script. The
page is the template report.html, its style sheet report.css.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lipstream.calibration.bundle_writer import write_errors
from lipstream.calibration.report.charts import Band, coverage_chart, time_chart
from lipstream.calibration.report.page_style import style_sheet
from lipstream.calibration.report.pictures import data_uri, face_crop, with_mesh
from lipstream.calibration.report.verdict import (
    Grade,
    ReportData,
    ReportPicture,
    Verdict,
    coverage,
    judge_target,
)
from lipstream.calibration.tracking.rejection import REASONS

_MARKS: Final[dict[Grade, str]] = {"good": "✓", "usable": "~", "poor": "✕"}
_MIN_CONFIDENCE: Final = 0.2  # of the A/V offset; with less it is not shown
_IN_SYNC_MS: Final = 20


def write_report(folder: str | Path, data: ReportData) -> Verdict:
    """Write report.html into the folder and return its verdict.

    Raises:
        MediaError: the folder cannot be written to.
    """
    verdict = judge_target(data)
    page = _render(data, verdict)
    target = Path(folder) / "report.html"
    with write_errors(Path(target.parent.name) / target.name):
        target.write_text(page, encoding="utf-8")
    return verdict


@dataclass(frozen=True, slots=True)
class _Figure:
    """A picture of the page."""

    uri: str  # embedded JPEG
    time: str  # empty for a photo
    opening: str | None = None


@dataclass(frozen=True, slots=True)
class _Group:
    """The frames that were rejected for one reason."""

    reason: str
    count: int
    fraction: str
    pictures: list[_Figure]


def _render(data: ReportData, verdict: Verdict) -> str:
    template = files("lipstream.calibration.report").joinpath("report.html").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    bands = _bands(data)
    return environment.from_string(template).render(
        data=data,
        verdict=verdict,
        style=Markup(style_sheet()),
        mark=_MARKS[verdict.grade],
        facts=_facts(data),
        contact_sheet=[_contact(data, picture) for picture in data.pictures],
        shaded=" Shaded: left out." if bands else "",
        charts={} if data.is_photo else _charts(data, bands),
        rejected=_rejected(data),
        notes=[f"{note[:1].upper()}{note[1:]}." for note in data.notes],
        rate=f"{float(data.fps):.2f}",
    )


def _facts(data: ReportData) -> list[tuple[str, str]]:
    total = int(data.opening.size)
    used = total - len({r.frame for r in data.rejected})
    facts = [
        ("Picture", f"{data.width} × {data.height}"),
        ("Eye distance", f"{data.iod_px:.0f} px"),
    ]
    if data.is_photo:
        return [("Source", "one photo"), *facts]
    return [
        ("Footage", f"{total / float(data.fps):.1f} s"),
        ("Frames used", f"{used} of {total}"),
        *facts,
        ("Mouth sources", str(int(data.source_frames.size))),
        ("Mouth shapes", f"{coverage(data):.0%}"),
        ("Sound", _av_offset(data)),
    ]


def _av_offset(data: ReportData) -> str:
    if data.av_offset_ms is None:
        return "none"
    if data.av_offset_confidence < _MIN_CONFIDENCE:
        return "offset unclear"
    if abs(data.av_offset_ms) < _IN_SYNC_MS:
        return "in sync"
    return f"{abs(data.av_offset_ms)} ms {'late' if data.av_offset_ms > 0 else 'early'}"


def _time(data: ReportData, frame: int) -> str:
    return "" if data.is_photo else f"{frame / float(data.fps):.2f} s"


def _contact(data: ReportData, picture: ReportPicture) -> _Figure:
    crop, points = face_crop(picture.rgb, picture.landmarks)
    image = with_mesh(crop, points, data.triangles) if points is not None else crop
    time, opening = _time(data, picture.frame), data.opening[picture.frame]
    shown = f"{opening:.2f}" if time and np.isfinite(opening) else None
    return _Figure(data_uri(image), time, shown)


def _charts(data: ReportData, bands: Sequence[Band]) -> dict[str, Markup]:
    fps = float(data.fps)
    lips = time_chart(
        "Lip opening over time",
        [("opening", data.opening)],
        fps,
        bands,
        "over the distance between the eyes",
    )
    angles = [("yaw", data.pose[:, 0]), ("pitch", data.pose[:, 1]), ("roll", data.pose[:, 2])]
    head = time_chart("Head pose over time", angles, fps, bands, "degrees")
    keep = np.ones(data.opening.size, np.bool_)
    keep[[r.frame for r in data.rejected if r.frame < keep.size]] = False
    shapes = coverage_chart(data.opening, data.mouth_width, keep, data.source_frames)
    return {"lips": Markup(lips), "head": Markup(head), "shapes": Markup(shapes)}


def _bands(data: ReportData) -> list[Band]:
    bands: list[Band] = []
    for rejection in sorted(data.rejected, key=lambda r: r.frame):
        last = bands[-1] if bands else None
        if last and last.end == rejection.frame and last.label == REASONS[rejection.reason]:
            bands[-1] = Band(last.start, rejection.frame + 1, last.label)
        else:
            bands.append(Band(rejection.frame, rejection.frame + 1, REASONS[rejection.reason]))
    return bands


def _rejected(data: ReportData) -> list[_Group]:
    pictures = {p.frame: p for p in data.rejected_pictures}
    groups = []
    for reason, count in Counter(r.reason for r in data.rejected).most_common():
        frames = [r.frame for r in data.rejected if r.reason == reason and r.frame in pictures]
        figures = [
            _Figure(data_uri(face_crop(pictures[k].rgb, pictures[k].landmarks)[0]), _time(data, k))
            for k in frames
        ]
        fraction = f"{count / data.opening.size:.1%}"
        groups.append(_Group(REASONS[reason].capitalize(), count, fraction, figures))
    return groups
