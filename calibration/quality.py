"""Which frames may be used, and why the others may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from lipstream.calibration.tracker import RawTrack, inter_ocular_px

Reason = Literal[
    "no_face", "outside", "small_face", "profile", "cut", "blur", "occlusion", "other_person"
]
REASONS: Final[dict[Reason, str]] = {
    "no_face": "no face was found",
    "outside": "the face leaves the picture",
    "small_face": "the face is too small",
    "profile": "the head is turned too far away",
    "cut": "the picture cuts to another shot",
    "blur": "the mouth is blurred",
    "occlusion": "something covers the mouth",
    "other_person": "another person is shown",
}


@dataclass(frozen=True, slots=True)
class Rejection:
    """One frame that is not used."""

    frame: int
    reason: Reason


def judge(track: RawTrack) -> list[Rejection]:
    """Frames to leave out, each with one reason, in frame order."""
    iod = inter_ocular_px(track.landmarks)
    out: list[Rejection] = []
    for k in range(track.frames):
        if not track.found[k]:
            out.append(Rejection(k, "no_face"))
        elif iod[k] < 24:
            out.append(Rejection(k, "small_face"))
    return out


def usable(track: RawTrack, rejected: list[Rejection]) -> np.ndarray:
    """bool [T]: False where a frame is rejected."""
    keep = np.ones(track.frames, np.bool_)
    keep[[r.frame for r in rejected]] = False
    return keep
