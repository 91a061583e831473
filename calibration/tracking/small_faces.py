"""Finds faces that are too small for the landmarker's own detector, in overlapping tiles.

The landmarker looks for faces in the whole picture at 128 × 128 pixels, and misses those narrower
than a tenth of it. Its model file holds the detector by itself (BlazeFace, short range; Bazarevsky
et al. 2019), which finds them in tiles; the landmarker then measures each in a crop.
"""

from __future__ import annotations

import logging
import math
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from lipstream.calibration.tracking.landmarker import Face, Landmarker, quiet_stderr, translated
from lipstream.engine.errors import AssetError
from lipstream.engine.types import U8

logger = logging.getLogger(__name__)

_DETECTOR: Final = "face_detector.tflite"
_LAST_SIDE_PX: Final = 560  # tiles of this side or less show faces of 24 px between the eyes
_STRIDE: Final = 2 / 3  # of the side of a tile; the overlap holds the faces that only it shows
_HALF_CROP: Final = 1.6  # of the detector's box, which ends at chin and eyebrows
_MAX_FACES: Final = 4


class SmallFaces:
    """Finds small faces; the detector is loaded at the first search."""

    def __init__(self, model: Path) -> None:
        """model: path of face_landmarker.task."""
        self._model = model
        self._detector: Any = None

    def close(self) -> None:
        """Free the detector, which logs when it goes."""
        if self._detector is not None:
            with quiet_stderr():
                self._detector.close()
                self._detector = None

    def find(self, rgb: U8, landmarker: Landmarker) -> list[Face]:
        """Every face in the tiles of u8 [h, w, 3] that the landmarker confirms, at most four."""
        boxes: list[tuple[float, float, float]] = []  # centre x, centre y, side
        for side in _tile_sides(rgb):
            for y0 in _tile_starts(rgb.shape[0], side):
                for x0 in _tile_starts(rgb.shape[1], side):
                    for x, y, size in self._detect(rgb[y0 : y0 + side, x0 : x0 + side]):
                        boxes.append((x0 + x, y0 + y, size))
        faces: list[Face] = []
        for box in sorted(boxes, key=lambda b: b[2], reverse=True):
            if len(faces) < _MAX_FACES and not any(_covers(face.box, box) for face in faces):
                faces += _in_crop(rgb, box, landmarker)[:1]
        logger.debug("tiles searched", extra={"detections": len(boxes), "faces": len(faces)})
        return faces

    def _detect(self, tile: U8) -> list[tuple[float, float, float]]:
        if self._detector is None:
            self._detector = self._load()
        boxes = [d.bounding_box for d in self._detector.detect(_image(tile)).detections]
        return [
            (b.origin_x + b.width / 2, b.origin_y + b.height / 2, max(b.width, b.height))
            for b in boxes
        ]

    def _load(self) -> Any:
        from mediapipe.tasks.python import BaseOptions, vision

        try:
            with zipfile.ZipFile(self._model) as parts:
                detector = parts.read(_DETECTOR)
            options = vision.FaceDetectorOptions(
                base_options=BaseOptions(model_asset_buffer=detector)
            )
            with quiet_stderr():
                loaded = vision.FaceDetector.create_from_options(options)
                loaded.detect(_image(np.zeros((64, 64, 3), np.uint8)))  # logs at its first picture
                return loaded
        except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
            raise AssetError(
                f"{self._model}: holds no {_DETECTOR} that MediaPipe can load ({error}); run: "
                "lipstream assets fetch"
            ) from None


def _image(rgb: U8) -> Any:
    from mediapipe import Image, ImageFormat

    return Image(image_format=ImageFormat.SRGB, data=np.ascontiguousarray(rgb))


def _tile_sides(rgb: U8) -> list[int]:
    """Sides of the tiles, px: the shorter side of the picture, and halves of it."""
    sides = [min(rgb.shape[:2])]
    while sides[-1] > _LAST_SIDE_PX:
        sides.append(-(-sides[-1] // 2))
    return sides


def _tile_starts(length: int, side: int) -> list[int]:
    """First rows or columns of tiles that cover `length`, evenly spread."""
    count = 1 + math.ceil(max(0, length - side) / (side * _STRIDE))
    return [round(k * (length - side) / max(1, count - 1)) for k in range(count)]


def _covers(face: tuple[float, float, float], box: tuple[float, float, float]) -> bool:
    return math.hypot(face[0] - box[0], face[1] - box[1]) < 0.5 * face[2]


def _in_crop(rgb: U8, box: tuple[float, float, float], landmarker: Landmarker) -> list[Face]:
    x, y, size = box
    half = _HALF_CROP * size
    x0, y0 = max(0, round(x - half)), max(0, round(y - half))
    x1, y1 = min(rgb.shape[1], round(x + half)), min(rgb.shape[0], round(y + half))
    found = [translated(face, x0, y0) for face in landmarker.faces(rgb[y0:y1, x0:x1])]
    return [face for face in found if _covers(face.box, box)]
