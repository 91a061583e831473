"""The rectangle round the mouth that the renderer refines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lipstream.engine.face.mesh import LIP_OUTLINE
from lipstream.engine.face.model import FaceModel
from lipstream.engine.face.retarget import Placement
from lipstream.engine.networks.signatures import CROP_RESOLUTIONS, crop_shape
from lipstream.engine.types import F32

_SQUARE: Final = 1.8  # inter-ocular distances that get as many pixels as the crop's resolution
_TOP, _LEFT = 9 / 32, 1 / 8  # of that square, where the crop begins: mouths open downwards


@dataclass(frozen=True, slots=True)
class MouthCrop:
    """The crop in one picture. It follows the head, not the lips."""

    left: float  # px
    top: float  # px
    step: float  # px of the picture per px of the crop
    shape: tuple[int, int]  # rows, columns of the crop

    @classmethod
    def around(
        cls, placement: Placement, model: FaceModel, crop_resolution: int = CROP_RESOLUTIONS[0]
    ) -> MouthCrop:
        """The crop of a face."""
        middle = model.mean[list(LIP_OUTLINE)].mean(0, keepdims=True)
        x, y = placement.project(middle)[0].tolist()
        side = _SQUARE * placement.scale
        left, top = x + (_LEFT - 0.5) * side, y + (_TOP - 0.5) * side
        return cls(left, top, side / crop_resolution, crop_shape(crop_resolution))

    def corners(self) -> F32:
        """Two opposite corners f32 [2, 2], px."""
        rows, columns = self.shape
        low = np.array([self.left, self.top], np.float32)
        return np.stack([low, low + np.float32(self.step) * np.array([columns, rows], np.float32)])

    def seen_from(self, x: float, y: float) -> MouthCrop:
        """The same in a picture whose origin is at (x, y)."""
        return MouthCrop(self.left - x, self.top - y, self.step, self.shape)

    @property
    def place(self) -> tuple[float, float, float]:
        """As the kernels take it."""
        return self.left, self.top, self.step

    def inward(self) -> F32:
        """Where each pixel of the crop lies in the picture, f32 [rows, columns, 2] px."""
        rows, columns = (
            (np.arange(n, dtype=np.float32) + 0.5) * np.float32(self.step) for n in self.shape
        )
        grid = np.meshgrid(columns + np.float32(self.left), rows + np.float32(self.top))
        return np.stack(grid, -1)
