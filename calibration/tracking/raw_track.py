"""The measurements of every frame of footage, before any smoothing."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np

from lipstream.calibration.media.video import FootageFrame
from lipstream.calibration.tracking.face_identity import describe
from lipstream.calibration.tracking.follower import FaceFollower
from lipstream.calibration.tracking.frame_metrics import (
    FaceMetrics,
    frame_signature,
    measure_face,
    skin_points,
)
from lipstream.calibration.tracking.landmarker import Face
from lipstream.calibration.tracking.people import Descriptors, Span, other_people, times
from lipstream.engine.errors import CalibrationError
from lipstream.engine.face.model import LEFT_EYE, RIGHT_EYE
from lipstream.engine.types import F32, I32, U8

LANDMARKS: Final = 478
BLENDSHAPES: Final = 52
_DESCRIBED_FIRST: Final = 3  # frames after a cut or a gap, and then every fifth
_DESCRIBED_EVERY: Final = 5
_DESCRIBED_DEGREES: Final = 30.0  # a face turned farther looks like no other of its own


@dataclass(frozen=True, slots=True)
class RawTrack:
    """Measurements of each of T frames, neither smoothed nor rejected."""

    landmarks: F32  # f32 [T, 478, 3], px (z = nz * frame width); NaN without a face
    blendshapes: F32  # f32 [T, 52], MediaPipe's order; NaN without a face
    transform: F32  # f32 [T, 4, 4], MediaPipe's pose relative to the search window; or NaN
    face_count: I32  # i32 [T], faces in the frame, as last counted
    cuts: tuple[int, ...]  # first frame of each new shot; 0 is not among them
    difference: F32  # f32 [T], 0 to 1, from the frame before
    sharpness: F32  # f32 [T], of the mouth, 1 is the clip's median; NaN without a face
    skin: U8  # u8 [T, P, 3], colors at frame_metrics.skin_points(); 0 without a face
    repeated: np.ndarray[Any, np.dtype[np.bool_]]  # bool [T], same source frame as the one before
    width: int  # px
    height: int  # px
    fps: Fraction
    warnings: tuple[str, ...]  # for the person who calibrates: several faces, a choice made
    others: tuple[Span, ...] = ()  # frames of other people, which count as without a face

    @property
    def frames(self) -> int:
        """T."""
        return int(self.landmarks.shape[0])

    @property
    def found(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """bool [T], whether there is a face."""
        return np.isfinite(self.landmarks[:, 0, 0])


class RawTrackBuilder:
    """Collects one row per frame."""

    def __init__(self, width: int, height: int, fps: Fraction) -> None:
        self.width, self.height, self.fps = width, height, fps
        self._faces: list[Face | None] = []
        self._metrics: list[FaceMetrics | None] = []
        self._counts: list[int] = []
        self._difference: list[float] = []
        self._repeated: list[bool] = []
        self._cuts: list[int] = []
        self._signature: F32 | None = None
        self._warnings: list[str] = []
        self._described: dict[int, np.ndarray[Any, np.dtype[np.float16]]] = {}
        self._age = 0  # frames with a face since the last cut or gap

    def add(self, frame: FootageFrame, follower: FaceFollower) -> None:
        """Track one frame."""
        self._repeated.append(frame.repeated)
        if frame.repeated and self._faces:
            self._faces.append(self._faces[-1])
            self._metrics.append(self._metrics[-1])
            self._counts.append(self._counts[-1])
            self._difference.append(0.0)
            return
        signature = frame_signature(frame.rgb)
        difference = 0.0
        if self._signature is not None:
            difference = float(np.abs(signature - self._signature).mean())
        self._signature = signature
        if self._is_cut(difference):
            self._cuts.append(frame.index)
            self._age = 0
            follower.cut()
        self._difference.append(difference)
        face = follower(frame.rgb, frame.index)
        self._faces.append(face)
        self._metrics.append(None if face is None else measure_face(frame.rgb, face.landmarks))
        self._counts.append(follower.face_count)
        self._describe(frame, face)

    def _describe(self, frame: FootageFrame, face: Face | None) -> None:
        if face is None:
            self._age = 0
            return
        yaw = float(np.degrees(np.arctan2(face.transform[0, 2], face.transform[2, 2])))
        due = self._age < _DESCRIBED_FIRST or self._age % _DESCRIBED_EVERY == 0
        if due and abs(yaw) < _DESCRIBED_DEGREES:
            self._described[len(self._faces) - 1] = describe(frame.rgb, face.landmarks)
        self._age += 1

    def _is_cut(self, difference: float) -> bool:
        recent = [d for d in self._difference[-25:] if d > 0]
        usual = float(np.median(recent)) if recent else 0.01
        return difference > max(0.06, 6 * usual)

    def finish(self, follower: FaceFollower) -> None:
        """Collect the warnings."""
        if follower.most_faces > 1:
            warning = f"{follower.most_faces} faces were found; the largest was followed"
            if follower.ambiguous_at is not None:
                at_s = follower.ambiguous_at / float(self.fps)
                warning += (
                    f" (at {at_s:.1f} s two are nearly equal in size and the choice may be wrong: "
                    "crop the footage to one person to be sure)"
                )
            self._warnings.append(warning)

    def result(self, person: int | None = None) -> RawTrack:
        """The track of one person, as arrays; `person` as in `other_people`."""
        count = len(self._faces)
        if not any(self._faces):
            raise CalibrationError(
                f"no face was found in any of {count} frames; expected one person, facing the "
                "camera, the eyes at least 24 pixels apart"
            )
        landmarks = np.full((count, LANDMARKS, 3), np.nan, np.float32)
        blendshapes = np.full((count, BLENDSHAPES), np.nan, np.float32)
        transform = np.full((count, 4, 4), np.nan, np.float32)
        sharpness = np.full(count, np.nan, np.float32)
        skin = np.zeros((count, len(skin_points()[0]), 3), np.uint8)
        for k, (face, metrics) in enumerate(zip(self._faces, self._metrics, strict=True)):
            if face is None or metrics is None:
                continue
            landmarks[k], blendshapes[k] = face.landmarks, face.blendshapes
            transform[k], sharpness[k] = face.transform, metrics.sharpness
            skin[k] = metrics.skin
        cuts = sorted(set(self._cuts) | set(_landmark_jumps(landmarks)))
        others = self._other_people(landmarks, cuts, person)
        for first, stop in others:
            for array in (landmarks, blendshapes, transform, sharpness):
                array[first:stop] = np.nan
            skin[first:stop] = 0
        return RawTrack(
            landmarks,
            blendshapes,
            transform,
            np.asarray(self._counts, np.int32),
            tuple(cuts),
            np.asarray(self._difference, np.float32),
            sharpness / np.float32(np.nanmedian(sharpness)),
            skin,
            np.asarray(self._repeated, np.bool_),
            self.width,
            self.height,
            self.fps,
            tuple(self._warnings),
            others,
        )

    def _other_people(
        self, landmarks: F32, cuts: list[int], person: int | None
    ) -> tuple[Span, ...]:
        if not self._described:
            return ()
        described = Descriptors(
            np.array(list(self._described), np.int64), np.stack(list(self._described.values()))
        )
        found = np.isfinite(landmarks[:, 0, 0])
        others = other_people(described, found, cuts, self.fps, person)
        if others:
            self._warnings.append(f"other person, not used: {times(others, self.fps)}")
        return others


def inter_ocular_px(landmarks: F32) -> F32:
    """Distance between the eyes' middles in the picture, f32 [T], px."""
    left = landmarks[:, list(LEFT_EYE), :].mean(axis=1)
    right = landmarks[:, list(RIGHT_EYE), :].mean(axis=1)
    distance: F32 = np.linalg.norm(left - right, axis=1).astype(np.float32)
    return distance


def _landmark_jumps(landmarks: F32) -> list[int]:
    """Frames where the whole head has jumped: a cut within one scene."""
    middle = landmarks[:, [168, 6, 33, 263], :2].mean(axis=1)
    iod = inter_ocular_px(landmarks)
    move = np.zeros(len(middle))
    move[1:] = np.linalg.norm(np.diff(middle, axis=0), axis=1) / iod[1:]
    jumps = []
    for k in np.flatnonzero(move > 0.35):
        around = np.r_[move[max(0, k - 6) : k], move[k + 1 : k + 7]]
        around = around[np.isfinite(around)]
        # A fast turn of the head also moves its neighbouring frames; a cut does not.
        if around.size == 0 or move[k] > 4 * max(float(np.max(around)), 0.02):
            jumps.append(int(k))
    return jumps
