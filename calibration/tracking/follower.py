"""Chooses one person's face in footage and follows it."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from lipstream.calibration.tracking.landmarker import Face, Landmarker, translated
from lipstream.calibration.tracking.small_faces import SmallFaces
from lipstream.engine.errors import CalibrationError
from lipstream.engine.types import U8

_FULL_SEARCH_FRAMES: Final = 25  # how often the whole frame is searched
_WINDOW_FACES: Final = 2.4  # side of the search window, in sizes of the face
_TILES_FRAMES: Final = 5  # how often the tiles are searched while no face is found
_SIMILAR_SIZE: Final = 0.8  # of the size of the largest face


def is_ambiguous(face: Face, others: list[Face]) -> bool:
    """Whether another face is nearly as large, so that size does not identify the person."""
    return any(other.box[2] > _SIMILAR_SIZE * face.box[2] for other in others)


class FaceFollower:
    """Chooses one face and follows it."""

    def __init__(self, landmarker: Landmarker, small: SmallFaces, width: int, height: int) -> None:
        self._landmarker = landmarker
        self._small = small
        self._tiles_from = 0  # frame
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
        self._tiles_from = 0

    def __call__(self, rgb: U8, index: int) -> Face | None:
        """The followed face in frame `index`, u8 [h, w, 3]; None if it is not found.

        Raises:
            CalibrationError: several faces of one size, and none was followed before.
        """
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
        return self._same([translated(face, x0, y0) for face in found])

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
                self.face_count = max(self.face_count, 1)  # it may be too small for the search
                return followed
        if not faces and index >= self._tiles_from:
            faces = self._small.find(rgb, self._landmarker)
            self.face_count = len(faces)
            self.most_faces = max(self.most_faces, len(faces))
            self._tiles_from = index + _TILES_FRAMES if not faces else 0
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
