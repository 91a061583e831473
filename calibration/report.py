"""report.html: will this target look good, and what footage would help?

One file that needs nothing else: pictures are embedded, curves are inline SVG, there is no script.
"""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from lipstream.calibration.quality import REASONS, Rejection
from lipstream.calibration.report_charts import Band, coverage_chart, time_chart
from lipstream.calibration.report_pictures import data_uri, face_crop, with_mesh
from lipstream.calibration.report_style import STYLE
from lipstream.engine.errors import MediaError
from lipstream.engine.types import F32, I32, U8

Grade = Literal["good", "usable", "poor"]
_MARKS: dict[Grade, str] = {"good": "✓", "usable": "~", "poor": "✕"}


@dataclass(frozen=True, slots=True)
class ReportPicture:
    """One frame to show."""

    frame: int
    rgb: U8  # u8 [h, w, 3], the whole frame
    landmarks: F32 | None  # f32 [>=468, >=2], px of `rgb`; None without a face


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that the report shows. Build it when the bundle is ready.

    `choose_pictures` names the frames to fetch for `pictures` (about 24) and `choose_rejected`
    those for `rejected_pictures` (up to 4 for each reason).
    """

    name: str  # of the target
    source: str  # file name of the footage, as the user knows it
    is_photo: bool
    width: int  # px
    height: int  # px
    fps: Fraction
    opening: F32  # f32 [T], over the inter-ocular distance; NaN where there is no face
    mouth_width: F32  # f32 [T], over the inter-ocular distance; NaN where there is no face
    pose: F32  # f32 [T, 3], yaw, pitch, roll in degrees; NaN where there is no face
    iod_px: float  # median inter-ocular distance in the picture
    source_frames: I32  # i32 [S], frames whose mouths are kept as sources
    rejected: Sequence[Rejection]
    pictures: Sequence[ReportPicture]  # contact sheet
    rejected_pictures: Sequence[ReportPicture]
    triangles: I32 | None  # i32 [F, 3], mesh to draw; None draws the points
    av_offset_ms: int | None  # positive: the sound is late; None without sound
    av_offset_confidence: float  # 0 to 1
    notes: tuple[str, ...]  # footage.notes and track.warnings


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer at a glance."""

    grade: Grade
    reasons: tuple[str, ...]  # what decided, the worst first
    advice: tuple[str, ...]  # what footage would help


def choose_pictures(
    opening: F32, mouth_width: F32, pose: F32, rejected: Sequence[Rejection], count: int = 24
) -> list[int]:
    """Frames for the contact sheet: far apart in mouth shape and pose, in time order."""
    keep = np.isfinite(opening) & np.isfinite(mouth_width) & np.isfinite(pose).all(axis=1)
    keep[[r.frame for r in rejected if r.frame < keep.size]] = False
    frames = np.flatnonzero(keep)
    if frames.size <= count:
        return [int(k) for k in frames]
    if frames.size > 4000:
        frames = frames[np.linspace(0, frames.size - 1, 4000).astype(int)]
    shape = np.column_stack([opening[frames], mouth_width[frames], pose[frames] / 60.0])
    shape = (shape - shape.mean(axis=0)) / (shape.std(axis=0) + 1e-3)
    # Farthest-point order: each next frame is the one least like those already shown.
    chosen = [int(np.argmin(shape[:, 0]))]
    distance = np.linalg.norm(shape - shape[chosen[0]], axis=1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(shape - shape[chosen[-1]], axis=1))
    return sorted(int(frames[k]) for k in chosen)


def choose_rejected(rejected: Sequence[Rejection], each: int = 4) -> list[int]:
    """Up to `each` rejected frames of each reason, spread over time."""
    frames: list[int] = []
    for reason in REASONS:
        of_reason = [r.frame for r in rejected if r.reason == reason]
        picks = np.linspace(0, len(of_reason) - 1, min(each, len(of_reason))).astype(int)
        frames.extend(of_reason[k] for k in picks)
    return sorted(set(frames))


def judge_target(data: ReportData) -> Verdict:
    """Grade, reasons and advice. Thresholds are ours, set on the clips of docs/calibration.md."""
    poor: list[str] = []
    limits: list[str] = []
    advice: list[str] = []
    total = int(data.opening.size)
    used = total - len({r.frame for r in data.rejected})
    used_s = used / float(data.fps)
    opening = data.opening[np.isfinite(data.opening)]
    largest = float(np.percentile(opening, 95)) if opening.size else 0.0

    if data.iod_px < 32:
        poor.append(f"The face is very small: the eyes are {data.iod_px:.0f} pixels apart.")
    elif data.iod_px < 60:
        limits.append(f"The face is small: the eyes are {data.iod_px:.0f} pixels apart.")
    if data.iod_px < 60:
        advice.append("Film closer, or in a higher resolution: 80 pixels between the eyes or more.")
    if data.is_photo:
        limits.append("One photo: the inside of the mouth and the teeth have to be invented.")
        advice.append("Twenty seconds of video of the same person talking will look better.")
        return _verdict(poor, limits, advice)

    if used < 0.5 * total:
        poor.append(f"Only {used} of {total} frames can be used.")
    elif used < 0.85 * total:
        limits.append(f"{total - used} of {total} frames had to be left out.")
    if used_s < 2:
        poor.append(f"There are only {used_s:.1f} s of usable footage.")
    elif used_s < 8:
        limits.append(f"There are only {used_s:.1f} s of usable footage; movement will repeat.")
    if used_s < 8:
        advice.append("Twenty seconds or more of one unbroken shot.")
    if largest < 0.06:
        poor.append("The mouth hardly opens in this footage.")
        advice.append("The person should talk, not only listen: wide vowels (ah, oh) matter most.")
    elif largest < 0.11:
        limits.append("The mouth does not open far in this footage.")
        advice.append("A few lively sentences, with the mouth opened well on ah and oh.")
    elif opening.size and float(np.percentile(opening, 10)) > 0.3 * largest:
        limits.append("The lips are seldom closed in this footage.")
        advice.append("A pause or two with the lips closed.")
    covered = coverage(data)
    if largest >= 0.06 and covered < 0.35:
        limits.append(f"The mouth shows little variety ({covered:.0%} of the usual shapes).")
        advice.append("Speech with smiles (ee) and rounded lips (oo, w), not one tone throughout.")
    yaw = data.pose[:, 0]
    if np.isfinite(yaw).any() and float(np.nanpercentile(np.abs(yaw), 75)) > 22:
        limits.append("The head is turned away from the camera much of the time.")
        advice.append("Look towards the camera; turns of up to 20 degrees are well.")
    counts = Counter(r.reason for r in data.rejected)
    if counts["occlusion"] > 0.05 * total:
        advice.append("Keep hands and microphone below the chin.")
    if counts["blur"] > 0.05 * total:
        advice.append("More light, or a shorter exposure: the mouth blurs when it moves.")
    if counts["cut"] > 0.1 * total:
        advice.append("One shot without cuts, or name a part with --start and --end.")
    verdict = _verdict(poor, limits, advice)
    if verdict.grade != "good":
        return verdict
    praise = ["A large face, seen from the front, whose mouth shows what speech needs."]
    if used < 0.97 * total:
        praise.append(f"{total - used} of {total} frames had to be left out; enough remain.")
    return Verdict("good", tuple(praise), verdict.advice)


def coverage(data: ReportData) -> float:
    """Share of a 5 x 5 grid of usual mouth shapes (opening x width) that a used frame falls in."""
    keep = np.isfinite(data.opening) & np.isfinite(data.mouth_width)
    keep[[r.frame for r in data.rejected if r.frame < keep.size]] = False
    if not keep.any():
        return 0.0
    opening, width = data.opening[keep], data.mouth_width[keep]
    rest = float(np.median(width))
    rows = np.clip((opening / 0.25 * 5).astype(int), 0, 4)
    columns = np.clip(((width - rest) / 0.24 * 5 + 2.5).astype(int), 0, 4)
    counts = np.bincount(rows * 5 + columns, minlength=25)
    # Wide open with pulled corners does not happen in speech: 18 of the 25 cells do.
    return min(1.0, int((counts >= 2).sum()) / 18)


def _verdict(poor: list[str], limits: list[str], advice: list[str]) -> Verdict:
    grade: Grade = "poor" if poor else "usable" if limits else "good"
    return Verdict(grade, tuple(poor + limits), tuple(dict.fromkeys(advice)))


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
