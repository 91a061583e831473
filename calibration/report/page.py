"""report.html: will this target look good, and what footage would help?

One file that needs nothing else: pictures are embedded, curves are inline SVG, there is no script.
"""

from __future__ import annotations

import html
import os
from collections import Counter
from pathlib import Path

import numpy as np

from lipstream.calibration.report.charts import Band, coverage_chart, time_chart
from lipstream.calibration.report.page_style import STYLE
from lipstream.calibration.report.pictures import data_uri, face_crop, with_mesh
from lipstream.calibration.report.verdict import (
    Grade,
    ReportData,
    ReportPicture,
    Verdict,
    choose_pictures,
    choose_rejected,
    coverage,
    judge_target,
)
from lipstream.calibration.tracking.rejection import REASONS
from lipstream.engine.errors import MediaError

__all__ = [
    "ReportData",
    "ReportPicture",
    "Verdict",
    "choose_pictures",
    "choose_rejected",
    "coverage",
    "judge_target",
    "write_report",
]

_MARKS: dict[Grade, str] = {"good": "✓", "usable": "~", "poor": "✕"}


def write_report(folder: str | Path, data: ReportData) -> Verdict:
    """Write report.html into the folder, whole or not at all, and return its verdict.

    Raises:
        MediaError: the folder cannot be written to.
    """
    verdict = judge_target(data)
    target = Path(folder) / "report.html"
    partial = target.with_name(".report.html.part")
    try:
        partial.write_text(_page(data, verdict), encoding="utf-8")
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise MediaError(f"{target}: cannot be written ({error.strerror})") from None
    return verdict


def _page(data: ReportData, verdict: Verdict) -> str:
    title = html.escape(data.name)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{title}: calibration report</title><style>{STYLE}</style></head><body><main>",
        _header(data, verdict, title),
        _contact_sheet(data),
    ]
    if not data.is_photo:
        parts += [_curves(data), _coverage(data)]
    parts += [_rejected(data), _footer(data), "</main></body></html>"]
    return "\n".join(parts)


def _header(data: ReportData, verdict: Verdict, title: str) -> str:
    total = int(data.opening.size)
    used = total - len({r.frame for r in data.rejected})
    if data.is_photo:
        facts = [("Source", "one photo")]
    else:
        facts = [
            ("Footage", f"{total / float(data.fps):.1f} s"),
            ("Frames used", f"{used} of {total}"),
        ]
    facts += [
        ("Picture", f"{data.width} × {data.height}"),
        ("Eye distance", f"{data.iod_px:.0f} px"),
    ]
    if not data.is_photo:
        facts.append(("Mouth sources", str(int(data.source_frames.size))))
        facts.append(("Mouth shapes", f"{coverage(data):.0%}"))
        facts.append(("Sound", _sound(data)))
    cells = "".join(f"<div><dt>{html.escape(k)}</dt><dd>{v}</dd></div>" for k, v in facts)
    reasons = "".join(f"<li>{html.escape(r)}</li>" for r in verdict.reasons)
    advice = ""
    if verdict.advice:
        items = "".join(f"<li>{html.escape(a)}</li>" for a in verdict.advice)
        advice = f"<div><h2>What would help</h2><ul>{items}</ul></div>"
    return (
        f'<header><p class="eyebrow">Calibration report</p><h1>{title}</h1>'
        f'<section class="verdict {verdict.grade}" aria-label="Verdict"><div class="grade">'
        f'<span aria-hidden="true">{_MARKS[verdict.grade]}</span>'
        f"<strong>{verdict.grade.capitalize()}</strong>"
        f"</div><div><h2>Why</h2><ul>{reasons}</ul></div>{advice}</section>"
        f"<dl>{cells}</dl></header>"
    )


def _sound(data: ReportData) -> str:
    if data.av_offset_ms is None:
        return "none"
    if data.av_offset_confidence < 0.2:
        return "offset unclear"
    if abs(data.av_offset_ms) < 20:
        return "in time"
    return f"{abs(data.av_offset_ms)} ms {'late' if data.av_offset_ms > 0 else 'early'}"


def _time(data: ReportData, frame: int) -> str:
    return "" if data.is_photo else f"{frame / float(data.fps):.2f} s"


def _contact_sheet(data: ReportData) -> str:
    figures = []
    for picture in data.pictures:
        crop, points = face_crop(picture.rgb, picture.landmarks)
        image = with_mesh(crop, points, data.triangles) if points is not None else crop
        when = _time(data, picture.frame)
        words = f"face at {when} with the fitted mesh" if when else "face with the fitted mesh"
        caption = ""
        if when and np.isfinite(data.opening[picture.frame]):
            opened = f"{data.opening[picture.frame]:.2f}"
            caption = f"<figcaption>{when}<span>open {opened}</span></figcaption>"
        figures.append(f'<figure><img src="{data_uri(image)}" alt="{words}">{caption}</figure>')
    lead = "The mesh must lie on the face: lips on lips, chin on chin."
    if not data.is_photo:
        lead = "The most different frames of the footage, in order. " + lead
    return (
        f'<section><h2>Contact sheet</h2><p class="lead">{lead}</p>'
        f'<div class="sheet">{"".join(figures)}</div></section>'
    )


def _curves(data: ReportData) -> str:
    bands = _bands(data)
    fps = float(data.fps)
    lips = time_chart(
        "Lip opening over time",
        [("opening", data.opening)],
        fps,
        bands,
        "over the distance between the eyes",
    )
    pose = time_chart(
        "Head pose over time",
        [("yaw", data.pose[:, 0]), ("pitch", data.pose[:, 1]), ("roll", data.pose[:, 2])],
        fps,
        bands,
        "degrees",
    )
    shade = " Shaded: left out." if bands else ""
    return (
        f'<section><h2>Lips</h2><p class="lead">Gap between the inner lips.{shade}</p>{lips}'
        f'<h2>Head</h2><p class="lead">Turn (yaw), nod (pitch) and tilt (roll).{shade}</p>{pose}'
        "</section>"
    )


def _bands(data: ReportData) -> list[Band]:
    bands: list[Band] = []
    for rejection in sorted(data.rejected, key=lambda r: r.frame):
        last = bands[-1] if bands else None
        if last and last.end == rejection.frame and last.label == REASONS[rejection.reason]:
            bands[-1] = Band(last.start, rejection.frame + 1, last.label)
        else:
            bands.append(Band(rejection.frame, rejection.frame + 1, REASONS[rejection.reason]))
    return bands


def _coverage(data: ReportData) -> str:
    keep = np.ones(data.opening.size, np.bool_)
    keep[[r.frame for r in data.rejected if r.frame < keep.size]] = False
    chart = coverage_chart(data.opening, data.mouth_width, keep, data.source_frames)
    return (
        '<section><h2>Mouth shapes</h2><p class="lead">Each dot is a frame, each ring a mouth that '
        "is kept as a source. Speech needs closed lips (bottom), wide smiles (right), rounded lips "
        f"(left) and open vowels (top).</p>{chart}</section>"
    )


def _rejected(data: ReportData) -> str:
    if not data.rejected:
        text = "None." if not data.is_photo else ""
        return f'<section><h2>Frames left out</h2><p class="lead">{text}</p></section>' * bool(text)
    shown = {p.frame: p for p in data.rejected_pictures}
    counts = Counter(r.reason for r in data.rejected)
    groups = []
    for reason, count in counts.most_common():
        figures = []
        for rejection in data.rejected:
            picture = shown.get(rejection.frame)
            if rejection.reason != reason or picture is None:
                continue
            crop, _ = face_crop(picture.rgb, picture.landmarks)
            when = _time(data, picture.frame)
            figures.append(
                f'<figure><img src="{data_uri(crop)}" alt="frame at {when}">'
                f"<figcaption>{when}</figcaption></figure>"
            )
        share = count / data.opening.size
        noun = "frame" if count == 1 else "frames"
        sheet = f'<div class="sheet small">{"".join(figures)}</div>' if figures else ""
        groups.append(
            f"<h3>{html.escape(REASONS[reason].capitalize())} "
            f"<small>{count} {noun}, {share:.1%}</small></h3>{sheet}"
        )
    return f"<section><h2>Frames left out</h2>{''.join(groups)}</section>"


def _footer(data: ReportData) -> str:
    notes = "".join(f"<li>{html.escape(n[:1].upper() + n[1:])}.</li>" for n in data.notes)
    listed = f"<section><h2>Notes</h2><ul>{notes}</ul></section>" if notes else ""
    source = html.escape(data.source)
    rate = "" if data.is_photo else f", {float(data.fps):.2f} frames a second"
    return f"{listed}<footer>Made by lipstream from {source}{rate}.</footer>"
