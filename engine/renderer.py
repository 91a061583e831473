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
from lipstream.kernels.crop import crop_in, crop_out

log = logging.getLogger(__name__)

RENDERERS: Final = ("auto", "network", "none")
CROP_PX: Final = 256
CROP_EYES: Final = 1.8  # side of the crop, inter-ocular distances
GUIDES: Final = 3  # opacity of the lip layer; row of the gap from upper to lower lip; trust in it
CHANNELS: Final = 3 + GUIDES + 3  # the painted crop, the guides, the previous crop
INPUT, OUTPUT = "crop", "difference"


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

    @property
    def square(self) -> tuple[float, float, float]:
        """As the kernels take it."""
        return self.left, self.top, self.side

    def inward(self) -> F32:
        """Where each pixel of the crop lies in the picture, f32 [256, 256, 2] px."""
        steps = (np.arange(CROP_PX, dtype=np.float32) + 0.5) * np.float32(self.side / CROP_PX)
        place = np.meshgrid(steps + np.float32(self.left), steps + np.float32(self.top))
        return np.stack(place, -1)


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
        seen, planes = crop_in(picture, guides, previous, crop.square, CROP_PX)
        difference = self.network.run({INPUT: planes[None]})[OUTPUT][0]
        return crop_out(difference, seen, picture, guides, crop.square)


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
