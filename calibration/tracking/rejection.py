"""Which frames may be used, and why the others may not.

Each rule compares the clip with itself: what is sharp, or what a mouth looks like, differs more
between two people than between a good and a bad frame of one.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.tracking.frame_metrics import skin_points
from lipstream.calibration.tracking.tracker import RawTrack, inter_ocular_px
from lipstream.engine.errors import CalibrationError
from lipstream.engine.types import F32, U8

logger = logging.getLogger(__name__)

Reason = Literal["no_face", "outside", "small_face", "profile", "cut", "occlusion", "blur"]
# In order of precedence: a frame has the first that applies.
REASONS: Final[dict[Reason, str]] = {
    "no_face": "no face was found",
    "outside": "the face leaves the picture",
    "small_face": "the face is too small",
    "profile": "the head is turned too far away",
    "cut": "the picture cuts to another shot",
    "occlusion": "something covers the mouth",
    "blur": "the mouth is blurred",
}
_UNPAINTABLE: Final[tuple[Reason, ...]] = ("no_face", "outside", "profile", "occlusion")
SMALL_FACE_PX: Final = 24.0  # between the eyes
PROFILE_DEGREES: Final = 35.0
CUT_MARGIN_FRAMES: Final = 1  # on each side: encoders smear the first and last frame of a shot
# Of the clip's usual sharpness. Speech alone goes down to 0.87 on eight clips; a blur over a
# quarter of the eyes' distance takes it to 0.6 to 0.8.
_BLUR_SHARE: Final = 0.8
_FEW_FRAMES: Final = 25
_STRANGE_LEVELS: Final = 14.0  # of a face whose median is 128
_OCCLUSION_MARGIN_FRAMES: Final = 2
_MOST_COVERED: Final = 0.3
_NEARLY_SHARE: Final = 0.12
_OCCLUDED_SHARE: Final = 0.18  # of the lower face; hands cover 0.2 to 0.9 of it, grins 0.1
_LEARN_FRAMES: Final = 500
_COMPONENTS: Final = 8
_PARTS: Final = 12  # a neighbourhood is this part of the lower face


@dataclass(frozen=True, slots=True)
class Rejection:
    """One frame that is not used."""

    frame: int
    reason: Reason


def reject_frames(track: RawTrack) -> list[Rejection]:
    """Frames to leave out, each with one reason, in frame order."""
    found = track.found
    flags: dict[Reason, NDArray[np.bool_]] = {"no_face": ~found}
    with np.errstate(invalid="ignore"):
        flags["small_face"] = found & (inter_ocular_px(track.landmarks) < SMALL_FACE_PX)
        flags["profile"] = found & (np.abs(yaw_degrees(track.transform)) > PROFILE_DEGREES)
    flags["outside"] = found & _outside(track)
    flags["cut"] = _near_cuts(track.frames, track.cuts)
    fair = found & ~flags["small_face"] & ~flags["profile"] & ~flags["outside"]
    flags["occlusion"] = fair & occluded(track.skin, fair)
    flags["blur"] = fair & _blurred(track.sharpness, fair & ~flags["occlusion"])
    out: list[Rejection] = []
    for k in range(track.frames):
        reason = next((r for r in REASONS if flags[r][k]), None)
        if reason is not None:
            out.append(Rejection(k, reason))
    return out


def usable(track: RawTrack, rejected: list[Rejection]) -> NDArray[np.bool_]:
    """bool [T]: False where a frame is rejected."""
    keep = np.ones(track.frames, np.bool_)
    keep[[r.frame for r in rejected]] = False
    return keep


def paintable(track: RawTrack, rejected: list[Rejection]) -> NDArray[np.bool_]:
    """bool [T]: False where the mouth cannot be painted over, which a blur or a cut allows."""
    keep = np.ones(track.frames, np.bool_)
    keep[[r.frame for r in rejected if r.reason in _UNPAINTABLE]] = False
    return keep


def require_usable(path: Path, track: RawTrack, rejected: list[Rejection]) -> None:
    """Check that a frame is left.

    Raises:
        CalibrationError: there is none; the message names the most frequent reasons.
    """
    if len(rejected) < track.frames:
        return
    counts = Counter(r.reason for r in rejected).most_common(3)
    raise CalibrationError(
        f"{path}: none of {track.frames} frames can be used ("
        + ", ".join(f"{reason}: {count}" for reason, count in counts)
        + "); expected a face seen from the front, with nothing over the mouth"
    )


def yaw_degrees(transform: F32) -> F32:
    """Turn of the head against the line of sight, f32 [T], from f32 [T, 4, 4]."""
    yaw: F32 = np.degrees(np.arctan2(transform[:, 0, 2], transform[:, 2, 2])).astype(np.float32)
    return yaw


def _outside(track: RawTrack) -> NDArray[np.bool_]:
    """Chin, mouth or both cheeks beyond the border (the crown may be)."""
    points = track.landmarks[:, [152, 61, 291, 17, 234, 454], :2]
    with np.errstate(invalid="ignore"):
        beyond = (
            (points[..., 0] < 0)
            | (points[..., 0] > track.width - 1)
            | (points[..., 1] < 0)
            | (points[..., 1] > track.height - 1)
        )
    lower = np.asarray(beyond[:, :4].any(axis=1), np.bool_)
    return lower | np.asarray(beyond[:, 4:].all(axis=1), np.bool_)


def _near_cuts(frames: int, cuts: tuple[int, ...]) -> NDArray[np.bool_]:
    near = np.zeros(frames, np.bool_)
    for cut in cuts:
        near[max(0, cut - CUT_MARGIN_FRAMES) : cut + CUT_MARGIN_FRAMES] = True
    return near


def _blurred(sharpness: F32, fair: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Less sharp than the clip usually is."""
    if int(fair.sum()) < _FEW_FRAMES:
        return np.zeros(sharpness.size, np.bool_)
    with np.errstate(invalid="ignore"):
        low: NDArray[np.bool_] = sharpness < _BLUR_SHARE * float(np.median(sharpness[fair]))
    return low


def occluded(skin: U8, fair: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Frames whose lower face is like none of the clip's usual ones.

    On the mesh, the looks of one person's skin and lips (speech, light, pose) span a small linear
    space, fitted to the clip robustly. A hand or a microphone cannot be made from them: some
    neighbourhood on the face stays unexplained. Ours.

    Args:
        skin: u8 [T, P, 3], colours at `measures.skin_points`.
        fair: bool [T], frames to judge and to learn from.
    """
    out = np.zeros(fair.size, np.bool_)
    frames = np.flatnonzero(fair)
    if frames.size < _FEW_FRAMES:
        return out  # a second: nothing usual to compare with
    strange = unexplained(skin[frames])
    # A grin or a shadow is strange in one place; what covers the mouth is strange all over it.
    usual = float(np.median(strange))
    covered = strange > usual + _OCCLUDED_SHARE
    if float(covered.mean()) > _MOST_COVERED:
        # Two looks of like weight, as when the head turns once in a short clip: neither is odd.
        logger.info("no usual look of the lower face", extra={"strange": float(covered.mean())})
        return out
    out[frames[covered]] = True
    # Coming and going it covers less: take the frames beside it too.
    wider = np.convolve(out, np.ones(2 * _OCCLUSION_MARGIN_FRAMES + 1), mode="same") > 0
    return wider & fair


def unexplained(skin: U8) -> NDArray[np.float64]:
    """f64 [T], 0 to 1: share of each lower face that the clip's usual looks do not explain."""
    count = skin.shape[0]
    learn = _even_light(skin[np.linspace(0, count - 1, min(count, _LEARN_FRAMES)).astype(int)])
    start: F32 = np.median(learn, axis=0).astype(np.float32)
    looks: tuple[F32, F32] = (start, np.zeros((1, learn.shape[1]), np.float32))
    for share in (0.5, 0.6, 0.7):
        # Half of the clip is taken for usual; then what looks most like it.
        score = _worst_part(_residual(learn, *looks))
        looks = _looks(learn[score <= np.quantile(score, share)])
    before = 0
    for _ in range(12):
        # Poses and light drift: what is nearly explained is learnt, and explains its neighbours.
        # What covers the mouth comes at once, and finds no way in.
        strange = _strange_share(learn, looks)
        known = strange <= float(np.median(strange)) + _NEARLY_SHARE
        if int(known.sum()) <= before:
            break
        before = int(known.sum())
        looks = _looks(learn[known])
    # A part at a time: an hour of footage must not stand in memory as floats.
    parts = np.array_split(skin, -(-count // 2000))
    return np.concatenate([_strange_share(_even_light(part), looks) for part in parts])


def _even_light(skin: U8) -> F32:
    """f32 [T, P * 3]; exposure changes as a whole, so the face's own brightness is taken out."""
    flat = skin.reshape(skin.shape[0], -1).astype(np.float32)
    level = np.median(flat, axis=1, keepdims=True)
    even: F32 = flat * (np.float32(128.0) / np.maximum(level, np.float32(80.0))).astype(np.float32)
    return even


def _looks(usual: F32) -> tuple[F32, F32]:
    """Mean f32 [P * 3] and main axes f32 [rank, P * 3] of usual faces."""
    middle = usual.mean(axis=0)
    rank = min(_COMPONENTS, max(1, usual.shape[0] // 6))
    centred = usual - middle
    # The few main axes through the small frame-by-frame matrix: fifty times quicker than an SVD.
    _, mixes = np.linalg.eigh(centred @ centred.T)
    axes = mixes[:, ::-1][:, :rank].T @ centred
    axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-6)
    return middle, axes.astype(np.float32)


def _strange_share(flat: F32, looks: tuple[F32, F32]) -> NDArray[np.float64]:
    error = np.abs(_residual(flat, *looks)).reshape(flat.shape[0], -1, 3).mean(axis=2)
    share: NDArray[np.float64] = (error > _STRANGE_LEVELS).mean(axis=1)
    return share


def _residual(flat: F32, middle: F32, axes: F32) -> F32:
    """What projection leaves. Fitted twice, the second time without the worst points, so that an
    occluder cannot pull the whole face towards itself."""
    centred = flat - middle
    error = centred - (centred @ axes.T) @ axes
    size = np.abs(error)
    limit = 2.5 * np.median(size, axis=1, keepdims=True) + 6.0
    trimmed = np.where(size > limit, centred - error, centred)
    out: F32 = centred - (trimmed @ axes.T) @ axes
    return out


@cache
def _neighbourhoods() -> NDArray[np.int64]:
    """i64 [P, n]: the nearest points of each point on the mean face."""
    _, places = skin_points()
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    return np.argsort(distance, axis=1)[:, : max(8, len(places) // _PARTS)]


def _worst_part(error: F32) -> NDArray[np.float64]:
    """Largest mean error over neighbourhoods, f64 [T], from f32 [T, P * 3]."""
    near = _neighbourhoods()
    size = np.abs(error).reshape(error.shape[0], near.shape[0], 3).mean(axis=2)
    share = np.zeros((near.shape[0], near.shape[0]), np.float32)
    np.put_along_axis(share, near, 1.0 / near.shape[1], axis=1)
    worst: NDArray[np.float64] = (size @ share.T).max(axis=1).astype(np.float64)
    return worst
