"""The neural renderer: mends the warped mouth in a small crop that moves with the head.

    painted mouth ─► crop 256×256 ─► network ─► what to add ─► back to the picture, inside the mask
                        ▲               ▲
         where lips and gap lie   its own last crop, mended

The network is asked for a difference, not for a picture: where it has nothing to mend the
picture keeps its pixels, at whatever resolution they are, and resampling never blurs them. The
difference is weighed by the opacity of the lip layer, so outside the mouth mask nothing changes.
Source: the rendering network of *Everybody's Talkin'* (arXiv 2001.05201, §III-C) paints the whole
lower face from a masked one; this one starts from a picture that is nearly right and is ours.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np

from lipstream.engine.backends.base import FAST, Model, Network, select_backend
from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.face_model import FaceModel
from lipstream.engine.timing import stage
from lipstream.engine.types import F32, U8
from lipstream.engine.warp import LIP_OUTLINE, Placement
from lipstream.kernels.mesh import remap

log = logging.getLogger(__name__)

RENDERERS: Final = ("auto", "network", "none")
CROP_PX: Final = 256
CROP_EYES: Final = 1.8  # side of the crop, inter-ocular distances
GUIDES: Final = 3  # opacity of the lip layer; row of the gap from upper to lower lip; trust in it
CHANNELS: Final = 3 + GUIDES + 3  # the painted crop, the guides, the previous crop
INPUT, OUTPUT = "crop", "difference"
NONE: Final = 128  # of a stored difference: nothing to add


@dataclass(frozen=True, slots=True)
class MouthCrop:
    """The square round the mouth in one picture. It follows the head, not the lips."""

    left: float  # px
    top: float  # px
    side: float  # px of the picture

    @classmethod
    def around(cls, placement: Placement, model: FaceModel) -> MouthCrop:
        """The crop of a face."""
        middle = model.mean[list(LIP_OUTLINE)].mean(0, keepdims=True)
        x, y = placement.project(middle)[0].tolist()
        side = CROP_EYES * placement.scale
        return cls(x - side / 2, y - side / 2, side)

    def corners(self) -> F32:
        """Two opposite corners f32 [2, 2], px."""
        low = np.array([self.left, self.top], np.float32)
        return np.stack([low, low + np.float32(self.side)])

    def seen_from(self, x: float, y: float) -> MouthCrop:
        """The same in a picture whose origin is at (x, y)."""
        return MouthCrop(self.left - x, self.top - y, self.side)

    def inward(self) -> F32:
        """Where each pixel of the crop lies in the picture, f32 [256, 256, 2] px."""
        steps = (np.arange(CROP_PX, dtype=np.float32) + 0.5) * np.float32(self.side / CROP_PX)
        return _plane(steps + np.float32(self.left), steps + np.float32(self.top))

    def outward(self, x0: int, y0: int, x1: int, y1: int) -> F32:
        """Where each pixel of a rectangle of the picture lies in the crop, f32 [h, w, 2] px."""
        zoom = np.float32(CROP_PX / self.side)
        columns = (np.arange(x0, x1, dtype=np.float32) + 0.5 - np.float32(self.left)) * zoom
        rows = (np.arange(y0, y1, dtype=np.float32) + 0.5 - np.float32(self.top)) * zoom
        return _plane(columns, rows)


def _plane(columns: F32, rows: F32) -> F32:
    out = np.empty((len(rows), len(columns), 2), np.float32)
    out[..., 0], out[..., 1] = columns, rows[:, None]
    return out


def cut(picture: U8, guides: U8, crop: MouthCrop) -> U8:
    """Picture u8 [h, w, 3] and guides u8 [h, w, 3] at the crop's size, u8 [256, 256, 6]."""
    stack = np.concatenate([picture, guides], axis=2)
    return remap(np.ascontiguousarray(stack), crop.inward())


class Renderer:
    """A loaded network. Immutable; one is shared by all sessions of a target."""

    def __init__(self, network: Network) -> None:
        """`network` maps INPUT f32 [1, 9, 256, 256], 0 to 1, to OUTPUT f32 [1, 3, 256, 256]."""
        self.network = network

    @stage("renderer")
    def mend(self, picture: U8, guides: U8, crop: MouthCrop, previous: U8 | None) -> U8:
        """Mend the mouth of `picture` u8 [h, w, 3], in place.

        guides u8 [h, w, 3]; previous: what this returned for the frame before, None for the
        first. Returns the mended crop u8 [256, 256, 3].
        """
        seen = cut(picture, guides, crop)
        own = seen[..., :3]
        stack = np.concatenate([seen, own if previous is None else previous], axis=2)
        values = np.ascontiguousarray(stack.transpose(2, 0, 1), np.float32) * np.float32(1 / 255)
        found = self.network.run({INPUT: values[None]})[OUTPUT][0].transpose(1, 2, 0)
        difference = np.clip(found * np.float32(255) + np.float32(NONE + 0.5), 0, 255)
        stored = np.ascontiguousarray(difference, np.uint8)
        rows, columns = np.flatnonzero(guides[..., 0].any(1)), np.flatnonzero(guides[..., 0].any(0))
        if len(rows):
            box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
            x0, y0, x1, y1 = box
            own_size = remap(stored, crop.outward(*box))
            part = picture[y0:y1, x0:x1]
            part[:] = added(part, own_size, guides[y0:y1, x0:x1, 0])
        return added(own, stored, seen[..., 3])


def added(picture: U8, difference: U8, opacity: U8) -> U8:
    """Picture plus difference (stored, NONE is 0), both u8 [h, w, 3], by opacity u8 [h, w]."""
    change = (difference.astype(np.int32) - NONE) * opacity[..., None]
    # Rounded half up; the shift is a division by 255 that is exact in this range.
    level = picture + ((change * 257 + (1 << 15)) >> 16)
    return np.clip(level, 0, 255).astype(np.uint8)


def shipped_model() -> Model:
    """The universal renderer."""
    folder = Path(str(files("lipstream.engine.weights")))
    return Model(folder / "renderer.onnx", folder / "renderer.safetensors")


def load_renderer(choice: str, backend: str, own: Path | None) -> Renderer | None:
    """The renderer of a target, or None to show the warped mouth as it is.

    `choice` is one of RENDERERS; `own`: the target's adapted weights, if it has any. "auto" does
    without where no weights are shipped or the backend has no code for them, and says so.

    Raises:
        UsageError: an unknown choice.
        BackendUnavailable: the network was asked for by name and cannot run.
    """
    if choice not in RENDERERS:
        raise UsageError(f"renderer {choice!r}: expected one of {', '.join(RENDERERS)}")
    if choice == "none":
        return None
    shipped = shipped_model()
    model = Model(shipped.onnx, shipped.safetensors, own)
    try:
        if not (model.onnx.is_file() and model.safetensors.is_file()):
            raise BackendUnavailable("no renderer weights in the package; reinstall lipstream")
        return Renderer(select_backend(backend, model, FAST))
    except BackendUnavailable as error:
        if choice == "network":
            raise
        log.warning("no renderer, mouths are warped only: %s", error)
        return None
