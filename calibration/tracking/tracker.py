"""Tracks one person's face through footage, and measures each frame in the same pass.

The landmarker runs on each frame alone. Its video mode smooths over past frames only: on fast
speech it takes 7 % off the mouth's peaks and delays it by half a frame (correlation of lip opening
with the per-frame result 0.93 at lag 0, 0.85 one frame late, against 0.75 for an undelayed copy).
Smoothing without lag is done by `fitting.factorise`.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from lipstream.calibration.media.video import FootageFrame
from lipstream.calibration.tracking.frame_metrics import (
    FaceMetrics,
    frame_signature,
    measure_face,
    skin_points,
)
from lipstream.calibration.tracking.landmarker import Face, Landmarker
from lipstream.engine.errors import CalibrationError
from lipstream.engine.face.model import LEFT_EYE, RIGHT_EYE
from lipstream.engine.types import F32, I32, U8

__all__ = ["Landmarker", "RawTrack", "inter_ocular_px", "track"]

LANDMARKS: Final = 478
BLENDSHAPES: Final = 52
_FULL_SEARCH_FRAMES: Final = 25  # how often the whole frame is searched
_WINDOW_FACES: Final = 2.4  # side of the search window, in sizes of the face
_QUEUE_FRAMES: Final = 4
_SIMILAR_SIZE: Final = 0.8  # of the size of the largest face


class TrackedFootage(Protocol):
    """What the tracker needs of footage."""

    width: int
    height: int
    fps: Fraction

    def __iter__(self) -> Any: ...  # noqa: D105


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

    @property
    def frames(self) -> int:
        """T."""
        return int(self.landmarks.shape[0])

    @property
    def found(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """bool [T], whether there is a face."""
        return np.isfinite(self.landmarks[:, 0, 0])


def is_ambiguous(face: Face, others: list[Face]) -> bool:
    """Whether another face is nearly as large, so that size does not identify the person."""
    return any(other.box[2] > _SIMILAR_SIZE * face.box[2] for other in others)


class _Follower:
    """Chooses one face and follows it."""

    def __init__(self, landmarker: Landmarker, width: int, height: int) -> None:
        self._landmarker = landmarker
        self._size = (width, height)
        self._last: Face | None = None
        self._window: tuple[int, int, int, int] | None = None  # x0, y0, x1, y1, px
        self._since_search = 0
        self.face_count = 0
        self.most_faces = 0
        self.ambiguous_at: int | None = None

    def cut(self) -> None:
        """A new shot begins: the whole frame is searched again."""
        self._window = None

    def __call__(self, rgb: U8, index: int) -> Face | None:
        face: Face | None = None
        self._since_search += 1
        if self._window is not None and self._since_search < _FULL_SEARCH_FRAMES:
            face = self._search_window(rgb)
        if face is None:
            face = self._search_frame(rgb, index)
        if face is not None:
            self._last = face
            self._aim(face)
        else:
            self._window = None
        return face

    def _search_window(self, rgb: U8) -> Face | None:
        assert self._window is not None
        x0, y0, x1, y1 = self._window
        found = self._landmarker.faces(rgb[y0:y1, x0:x1])
        return self._same([_translated(face, x0, y0) for face in found])

    def _search_frame(self, rgb: U8, index: int) -> Face | None:
        self._since_search = 0
        faces = self._landmarker.faces(rgb)
        self.face_count = len(faces)
        self.most_faces = max(self.most_faces, len(faces))
        if self._window is not None:
            # The search only counts faces. The followed face is measured in its window as before,
            # or the landmarks would shift by a fraction of a pixel once a second.
            followed = self._search_window(rgb)
            if followed is not None:
                return followed
        same = self._same(faces)
        if same is not None or not faces:
            return same
        ranked = sorted(faces, key=self._prominence, reverse=True)
        if is_ambiguous(ranked[0], ranked[1:]):
            if self._last is None:
                raise CalibrationError(
                    f"{len(faces)} faces of nearly one size are in the picture, so the person to "
                    "follow is ambiguous; crop the footage to one person, or use --start and --end"
                )
            if self.ambiguous_at is None:
                self.ambiguous_at = index
        return ranked[0]

    def _same(self, faces: list[Face]) -> Face | None:
        """The face that continues the last one, if any."""
        if self._last is None or not faces:
            return None
        x, y, size = self._last.box

        def distance(face: Face) -> float:
            fx, fy, fsize = face.box
            return math.hypot(fx - x, fy - y) / size + 2 * abs(math.log(fsize / size))

        nearest = min(faces, key=distance)
        return nearest if distance(nearest) < 0.7 else None

    def _prominence(self, face: Face) -> float:
        """Size of the face, reduced towards the border of the frame."""
        x, y, size = face.box
        width, height = self._size
        off_centre = np.hypot(x / width - 0.5, y / height - 0.5)
        return size * float(1.0 - 0.4 * min(1.0, off_centre / 0.7))

    def _aim(self, face: Face) -> None:
        """Move the search window only when the face nears its border: a window that follows each
        movement would add its own to the landmarks."""
        x, y, size = face.box
        width, height = self._size
        if self._window is not None:
            x0, y0, x1, y1 = self._window
            room = min(
                x - x0 if x0 > 0 else np.inf,
                x1 - x if x1 < width else np.inf,
                y - y0 if y0 > 0 else np.inf,
                y1 - y if y1 < height else np.inf,
            )
            side = max(x1 - x0, y1 - y0)
            if (
                room > 0.75 * size
                and size * _WINDOW_FACES * 0.7 < side < size * _WINDOW_FACES * 1.5
            ):
                return
        half = size * _WINDOW_FACES / 2
        x0, y0 = max(0, round(x - half)), max(0, round(y - half))
        x1, y1 = min(width, round(x + half)), min(height, round(y + half))
        self._window = (x0, y0, x1, y1)


def _translated(face: Face, x0: int, y0: int) -> Face:
    shift = np.array([x0, y0, 0], np.float32)
    return Face(face.landmarks + shift, face.blendshapes, face.transform)


def track(
    footage: Iterable[FootageFrame] | TrackedFootage,
    sink: Callable[[FootageFrame], None],
    model: Path,
    progress: Callable[[int], None] | None = None,
) -> RawTrack:
    """Follow one face through footage; hand every frame to `sink` on the way.

    Decoding and `sink` run in the caller's thread, the landmarker in one of its own, with at most
    four frames between them. When several faces are there the largest and most central one is
    followed, and `warnings` says so.

    Args:
        footage: from `open_footage`.
        sink: called once per frame, in order, in the caller's thread (the frame writer).
        model: path of face_landmarker.task.
        progress: called with the number of frames done, in the caller's thread.

    Raises:
        CalibrationError: no face in any frame, or two as large as each other at the start.
        AssetError: MediaPipe or its model cannot be loaded.
        MediaError: from the footage.
    """
    rows = _Rows(int(footage.width), int(footage.height), footage.fps)  # type: ignore[union-attr]
    pending: queue.Queue[FootageFrame | None] = queue.Queue(_QUEUE_FRAMES)
    failures: list[BaseException] = []
    stop = threading.Event()

    with Landmarker(model) as landmarker:

        def work() -> None:
            follower = _Follower(landmarker, rows.width, rows.height)
            try:
                while (frame := pending.get()) is not None:
                    if not stop.is_set():
                        rows.add(frame, follower)
                rows.finish(follower)
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                failures.append(error)
                stop.set()
                while pending.get() is not None:
                    pass

        worker = threading.Thread(target=work, name="lipstream-tracker", daemon=True)
        worker.start()
        try:
            for frame in footage:
                pending.put(frame)
                sink(frame)
                if progress is not None:
                    progress(frame.index + 1)
                if stop.is_set():
                    break
        except BaseException:
            stop.set()
            raise
        finally:
            pending.put(None)
            worker.join()
    if failures:
        raise failures[0]
    return rows.result()


class _Rows:
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

    def add(self, frame: FootageFrame, follower: _Follower) -> None:
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
            follower.cut()
        self._difference.append(difference)
        face = follower(frame.rgb, frame.index)
        self._faces.append(face)
        self._metrics.append(None if face is None else measure_face(frame.rgb, face.landmarks))
        self._counts.append(follower.face_count)

    def _is_cut(self, difference: float) -> bool:
        recent = [d for d in self._difference[-25:] if d > 0]
        usual = float(np.median(recent)) if recent else 0.01
        return difference > max(0.06, 6 * usual)

    def finish(self, follower: _Follower) -> None:
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

    def result(self) -> RawTrack:
        """The track, as arrays."""
        count = len(self._faces)
        if not any(self._faces):
            raise CalibrationError(
                f"no face was found in any of {count} frames; expected one person, facing the "
                "camera, the face at least 64 pixels wide"
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
        )


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
