"""Which frames are rejected, and why.

Each rule compares the clip with itself: sharpness and the appearance of a mouth differ more between
two people than between a good and a bad frame of one.
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

from lipstream.calibration.footage.subset import spread_over
from lipstream.calibration.tracking.frame_metrics import skin_points
from lipstream.calibration.tracking.raw_track import RawTrack, inter_ocular_px
from lipstream.engine.errors import CalibrationError
from lipstream.engine.types import F32, U8

logger = logging.getLogger(__name__)

Reason = Literal[
    "other_person", "no_face", "outside", "small_face", "profile", "cut", "occlusion", "blur"
]
# In order of precedence: a frame has the first that applies.
REASONS: Final[dict[Reason, str]] = {
    "other_person": "other person",
    "no_face": "no face was found",
    "outside": "the face leaves the picture",
    "small_face": "the face is too small",
    "profile": "the head is turned too far away",
    "cut": "the picture cuts to another shot",
    "occlusion": "something covers the mouth",
    "blur": "the mouth is blurred",
}
NO_FACE: Final[tuple[Reason, ...]] = ("other_person", "no_face")
_UNPAINTABLE: Final[tuple[Reason, ...]] = (*NO_FACE, "outside", "profile", "occlusion")
SMALL_FACE_PX: Final = 24.0  # between the eyes
PROFILE_DEGREES: Final = 35.0
CUT_MARGIN_FRAMES: Final = 1  # on each side: encoders smear the first and last frame of a shot
# Relative to the median of the clip. Speech alone lowers it to 0.87 on eight clips, a blur over
# a quarter of the inter-ocular distance to 0.6 to 0.8.
_BLUR_RATIO: Final = 0.8
_MIN_FRAMES: Final = 25  # with fewer, nothing is usual
_UNUSUAL_LEVELS: Final = 14.0  # of a face whose median is 128
_OCCLUSION_MARGIN_FRAMES: Final = 2
_MAX_OCCLUDED: Final = 0.3  # fraction of the frames
_NEARLY_EXPLAINED: Final = 0.12  # fraction of the lower face above the median
_OCCLUDED_FRACTION: Final = 0.18  # above the median; hands cover 0.2 to 0.9 of it, grins 0.1
_FIT_FRAMES: Final = 500
_COMPONENTS: Final = 8
_NEIGHBOURHOODS: Final = 12  # a neighbourhood is one twelfth of the lower face


@dataclass(frozen=True, slots=True)
class Rejection:
    """One frame that is not used."""

    frame: int
    reason: Reason


def reject_frames(track: RawTrack) -> list[Rejection]:
    """Frames to leave out, each with one reason, in frame order."""
    found = track.found
    other = np.zeros(track.frames, np.bool_)
    for first, stop in track.others:
        other[first:stop] = True
    flags: dict[Reason, NDArray[np.bool_]] = {"other_person": other, "no_face": ~found}
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
    """Frames with chin, mouth or both cheeks beyond the border (the crown may be)."""
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
    """Frames less sharp than the clip usually is."""
    if int(fair.sum()) < _MIN_FRAMES:
        return np.zeros(sharpness.size, np.bool_)
    with np.errstate(invalid="ignore"):
        low: NDArray[np.bool_] = sharpness < _BLUR_RATIO * float(np.median(sharpness[fair]))
    return low


def occluded(skin: U8, fair: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Frames whose lower face differs from the clip's usual appearance.

    On the mesh, the skin and lips of one person (speech, light, pose) span a small linear space,
    which is fitted to the clip robustly. A hand or a microphone lies outside it: some neighbourhood
    of the face stays unexplained. Source: ours.

    Args:
        skin: u8 [T, P, 3], colors at `frame_metrics.skin_points`.
        fair: bool [T], frames to test and to fit to.
    """
    out = np.zeros(fair.size, np.bool_)
    frames = np.flatnonzero(fair)
    if frames.size < _MIN_FRAMES:
        return out
    fraction = unexplained(skin[frames])
    # A grin or a shadow is unusual in one place; what covers the mouth is unusual all over it.
    covered = fraction > float(np.median(fraction)) + _OCCLUDED_FRACTION
    if float(covered.mean()) > _MAX_OCCLUDED:
        # Two appearances of similar frequency, as when the head turns once in a short clip.
        logger.info("no usual appearance", extra={"occluded": float(covered.mean())})
        return out
    out[frames[covered]] = True
    # An occluder covers less when it comes and goes: its neighbouring frames are rejected too.
    wider = np.convolve(out, np.ones(2 * _OCCLUSION_MARGIN_FRAMES + 1), mode="same") > 0
    return wider & fair


def unexplained(skin: U8) -> NDArray[np.float64]:
    """Fraction of each lower face that the clip's usual appearance does not explain, f64 [T]."""
    count = skin.shape[0]
    sample = _normalise_exposure(skin[spread_over(np.arange(count), _FIT_FRAMES)])
    start: F32 = np.median(sample, axis=0).astype(np.float32)
    usual = _Usual(start, np.zeros((1, sample.shape[1]), np.float32))
    for fraction in (0.5, 0.6, 0.7):
        # At first half of the clip counts as usual; then the frames nearest to it.
        score = _worst_part(usual.residual(sample))
        usual = _Usual.fit(sample[score <= np.quantile(score, fraction)])
    before = 0
    for _ in range(12):
        # Pose and light drift: nearly explained frames are added and explain their neighbours.
        # An occluder appears at once, so no such chain of frames leads to it.
        fractions = usual.unexplained(sample)
        explained = fractions <= float(np.median(fractions)) + _NEARLY_EXPLAINED
        if int(explained.sum()) <= before:
            break
        before = int(explained.sum())
        usual = _Usual.fit(sample[explained])
    # In parts: an hour of footage in f32 does not fit into memory.
    parts = np.array_split(skin, -(-count // 2000))
    return np.concatenate([usual.unexplained(_normalise_exposure(part)) for part in parts])


def _normalise_exposure(skin: U8) -> F32:
    """Colors f32 [T, P * 3], each face brought to a median level of 128."""
    flat = skin.reshape(skin.shape[0], -1).astype(np.float32)
    level = np.median(flat, axis=1, keepdims=True)
    even: F32 = flat * (np.float32(128.0) / np.maximum(level, np.float32(80.0))).astype(np.float32)
    return even


@dataclass(frozen=True, slots=True)
class _Usual:
    """Linear model of the usual appearance."""

    mean: F32  # f32 [P * 3]
    axes: F32  # f32 [rank, P * 3]

    @classmethod
    def fit(cls, faces: F32) -> _Usual:
        """Mean and principal axes of faces f32 [T, P * 3].

        From the T × T matrix, which is fifty times quicker than an SVD.
        """
        mean = faces.mean(axis=0)
        rank = min(_COMPONENTS, max(1, faces.shape[0] // 6))
        centred = faces - mean
        _, vectors = np.linalg.eigh(centred @ centred.T)
        axes = vectors[:, ::-1][:, :rank].T @ centred
        axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-6)
        return cls(mean, axes.astype(np.float32))

    def residual(self, faces: F32) -> F32:
        """What projection leaves of faces f32 [T, P * 3].

        Projected twice, the second time without the worst points, so that an occluder does not
        pull the whole face towards itself.
        """
        centred = faces - self.mean
        error = centred - (centred @ self.axes.T) @ self.axes
        size = np.abs(error)
        limit = 2.5 * np.median(size, axis=1, keepdims=True) + 6.0
        trimmed = np.where(size > limit, centred - error, centred)
        out: F32 = centred - (trimmed @ self.axes.T) @ self.axes
        return out

    def unexplained(self, faces: F32) -> NDArray[np.float64]:
        """Fraction of the points of each face with a large residual, f64 [T]."""
        error = np.abs(self.residual(faces)).reshape(faces.shape[0], -1, 3).mean(axis=2)
        fraction: NDArray[np.float64] = (error > _UNUSUAL_LEVELS).mean(axis=1)
        return fraction


@cache
def _neighbourhoods() -> NDArray[np.int64]:
    """i64 [P, n]: the nearest points of each point on the mean face."""
    _, places = skin_points()
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    return np.argsort(distance, axis=1)[:, : max(8, len(places) // _NEIGHBOURHOODS)]


def _worst_part(error: F32) -> NDArray[np.float64]:
    """Largest mean error over neighbourhoods, f64 [T], from f32 [T, P * 3]."""
    near = _neighbourhoods()
    size = np.abs(error).reshape(error.shape[0], near.shape[0], 3).mean(axis=2)
    average = np.zeros((near.shape[0], near.shape[0]), np.float32)
    np.put_along_axis(average, near, 1.0 / near.shape[1], axis=1)
    worst: NDArray[np.float64] = (size @ average.T).max(axis=1).astype(np.float64)
    return worst
