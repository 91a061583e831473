"""The content of a report, and the verdict on the target: grade, reasons and advice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

import numpy as np

from lipstream.calibration.footage.subset import spread_over
from lipstream.calibration.tracking.rejection import REASONS, Rejection
from lipstream.engine.types import F32, I32, U8

Grade = Literal["good", "usable", "poor"]

_MAX_COMPARED: Final = 4000  # frames that the contact sheet is chosen from


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
    faults: tuple[str, ...] = ()  # sentences: why the target is poor, found before it was built


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of the report."""

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
    frames = spread_over(frames, _MAX_COMPARED)
    shape = np.column_stack([opening[frames], mouth_width[frames], pose[frames] / 60.0])
    shape = (shape - shape.mean(axis=0)) / (shape.std(axis=0) + 1e-3)
    # Farthest-point order: each next frame is the one farthest from those chosen.
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
        of_reason = np.array([r.frame for r in rejected if r.reason == reason], np.intp)
        frames.extend(spread_over(of_reason, each).tolist())
    return sorted(set(frames))


def judge_target(data: ReportData) -> Verdict:
    """Grade, reasons and advice. Thresholds are ours, set on the clips of docs/calibration.md."""
    poor: list[str] = list(data.faults)
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
    if data.faults:
        advice.append("A photograph of the whole face from the front, with nothing over the mouth.")
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
        advice.append("Look towards the camera; turns of up to 20 degrees are fine.")
    counts = Counter(r.reason for r in data.rejected)
    if counts["occlusion"] > 0.05 * total:
        advice.append("Keep hands and microphone below the chin.")
    if counts["blur"] > 0.05 * total:
        advice.append("More light, or a shorter exposure: the mouth blurs when it moves.")
    if counts["other_person"] > 0.1 * total:
        advice.append("Footage of this person alone.")
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
    """Fraction of the usual mouth shapes (opening × width, in 5 × 5 cells) in the used frames."""
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
