"""MediaPipe's face landmarker on single pictures, with its log output suppressed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from lipstream.calibration.tracking.system_libraries import SYSTEM_LIBRARIES, missing_packages
from lipstream.engine.errors import AssetError
from lipstream.engine.extras import pip_install
from lipstream.engine.types import F32, U8

logger = logging.getLogger(__name__)

MAX_FACES: Final = 4


@dataclass(frozen=True, slots=True)
class Face:
    """One face in one picture."""

    landmarks: F32  # f32 [478, 3], px
    blendshapes: F32  # f32 [52]
    transform: F32  # f32 [4, 4]

    @property
    def box(self) -> tuple[float, float, float]:
        """Centre x, centre y, size (the longer side), px."""
        low, high = self.landmarks[:, :2].min(axis=0), self.landmarks[:, :2].max(axis=0)
        middle = (low + high) / 2
        return float(middle[0]), float(middle[1]), float((high - low).max())


class Landmarker:
    """MediaPipe's face landmarker on single pictures. Use as a context manager."""

    def __init__(self, model: Path) -> None:
        """Load the model; MediaPipe is imported here, as it needs the system's GL libraries."""
        with quiet_stderr():
            try:
                import mediapipe as mp
                from mediapipe.tasks.python import BaseOptions, vision
            except (ImportError, OSError) as error:
                raise _not_loaded(error) from None
            self._mp = mp
            options = vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_path=str(model)),
                running_mode=vision.RunningMode.IMAGE,
                num_faces=MAX_FACES,
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=True,
            )
            try:
                self._landmarker = vision.FaceLandmarker.create_from_options(options)
            except OSError as error:  # its graphics libraries are loaded here, not at the import
                if isinstance(error, FileNotFoundError) and not model.is_file():
                    raise AssetError(
                        f"{model}: no such file; run: lipstream assets fetch"
                    ) from None
                raise _not_loaded(error) from None
            except (RuntimeError, ValueError) as error:
                raise AssetError(
                    f"{model}: MediaPipe cannot load it ({error}); run: lipstream assets fetch"
                ) from None
            # The C++ library also logs at its first picture.
            self.faces(np.zeros((64, 64, 3), np.uint8))

    def __enter__(self) -> Landmarker:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free the graph."""
        self._landmarker.close()

    def faces(self, rgb: U8) -> list[Face]:
        """Every face in u8 [h, w, 3], at most four."""
        height, width = rgb.shape[:2]
        image = self._mp.Image(
            image_format=self._mp.ImageFormat.SRGB, data=np.ascontiguousarray(rgb)
        )
        result = self._landmarker.detect(image)
        scale = np.array([width, height, width], np.float32)
        faces = []
        for k, points in enumerate(result.face_landmarks):
            xyz = np.array([(p.x, p.y, p.z) for p in points], np.float32) * scale
            shapes = np.array([b.score for b in result.face_blendshapes[k]], np.float32)
            pose = np.asarray(result.facial_transformation_matrixes[k], np.float32)
            faces.append(Face(xyz, shapes, pose))
        return faces


def translated(face: Face, x0: int, y0: int) -> Face:
    """The face found in a crop that begins at x0, y0 of a picture, in px of that picture."""
    shift = np.array([x0, y0, 0], np.float32)
    return Face(face.landmarks + shift, face.blendshapes, face.transform)


def _not_loaded(error: Exception) -> AssetError:
    if isinstance(error, ModuleNotFoundError):
        return AssetError(f"MediaPipe is not installed ({error}): {pip_install('calibrate')}")
    packages = missing_packages() or SYSTEM_LIBRARIES.values()
    return AssetError(
        f"MediaPipe cannot be loaded ({error}); on Debian: apt-get install {' '.join(packages)}"
    )


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Silence file descriptor 2: the C++ library logs there before its settings can be made."""
    if logger.isEnabledFor(logging.DEBUG):
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
