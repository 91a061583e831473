"""The neural renderer: mends the warped mouth in a small crop that moves with the head.

    painted mouth ─► crop 192×160 ─► network ─► gates ─► what to add ─► back to the picture,
                        ▲            ▲     ▲                            inside the mask
     where lips and gap lie   expected    its own last crop, mended

What is expected (`engine.target.appearance`) is learned from all of the person's footage: a lent
mouth is sharp and wrong here and there, the expected one is soft and right on the whole. The
network says, pixel by pixel, how much of either to show. So all that is shown comes from the
person's own pictures: a face or a light that it never met can lead it to take the worse of two
mouths, and to no third one.

Detail is how many pixels 1.8 inter-ocular distances get: 256 as trained, 384 and 512 where the
footage holds more. Of that square only the part is cut where a lip layer can be, 3/4 of its width
and 5/8 of its height: what lies beyond has no opacity, and would cost as much again.

What the gates let through is added as a difference: where it is nothing the picture keeps its
pixels, at whatever resolution they are, and resampling never blurs them. The difference is weighed
by the opacity of the lip layer, so outside the mouth mask nothing changes.
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

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.face.mesh import LIP_OUTLINE
from lipstream.engine.face.model import FaceModel
from lipstream.engine.face.retarget import Placement
from lipstream.engine.networks.base import FAST, Model, Network
from lipstream.engine.networks.registry import select_backend
from lipstream.engine.profiling import span
from lipstream.engine.types import F32, U8
from lipstream.kernels.crop import (
    apply_gates,
    attenuate_in_synthetic,
    crop_in,
    crop_out,
    override_in_synthetic,
    unsharp_mask,
)

log = logging.getLogger(__name__)

RENDERERS: Final = ("auto", "network", "none")
CROP_RESOLUTIONS: Final = (256, 384, 512)  # px per SQUARE_EYES
SQUARE_EYES: Final = 1.8  # inter-ocular distances
_TOP, _LEFT = 9 / 32, 1 / 8  # of the square, where the crop begins: mouths open downwards
_ROWS, _COLUMNS = 5 / 8, 3 / 4
GUIDES: Final = 3  # opacity of the lip layer; row of the gap from upper to lower lip; trust in it
# What is expected comes out soft, by more for one face than for another, and training cannot know:
# on its own people it is right. Calibration finds each person's own amount; these are the means of
# eleven, with an appearance and without, for photos and footage too short to tell. Of
# the mended crop, a little softened, over its mean of 5 x 5.
SHARPEN: Final = 1.25
SHARPEN_ALONE: Final = 0.5
CHANNELS: Final = 3 + GUIDES + 3 + 3  # the painted crop, guides, what is expected, previous crop
INPUT, OUTPUT = "crop", "gates"


def crop_shape(crop_resolution: int = CROP_RESOLUTIONS[0]) -> tuple[int, int]:
    """Rows and columns of the crop, px; 8 divides both."""
    return int(crop_resolution * _ROWS), int(crop_resolution * _COLUMNS)


CROP_SHAPE: Final = crop_shape()


@dataclass(frozen=True, slots=True)
class MouthCrop:
    """The rectangle round the mouth in one picture. It follows the head, not the lips."""

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
        side = SQUARE_EYES * placement.scale
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


class Renderer:
    """A loaded network. Immutable; one is shared by all sessions of a target."""

    def __init__(
        self, network: Network, crop_resolution: int = CROP_RESOLUTIONS[0], sharpen: float = SHARPEN
    ) -> None:
        """`network` maps INPUT f32 [1, 12, h, w], 0 to 1, to OUTPUT f32 [1, 3, h, w].

        detail: one of DETAILS. Raises: UsageError for another.
        """
        if crop_resolution not in CROP_RESOLUTIONS:
            raise UsageError(
                f"crop resolution {crop_resolution}: expected one of "
                f"{', '.join(map(str, CROP_RESOLUTIONS))}"
            )
        self.network, self.crop_resolution, self.sharpen = network, crop_resolution, sharpen

    @span("renderer")
    def refine(
        self,
        picture: U8,
        guides: U8,
        prior: U8 | None,
        confidence: float,
        crop: MouthCrop,
        previous: U8 | None,
    ) -> U8:
        """Mend the mouth of `picture` u8 [h, w, 3], in place.

        guides u8 [h, w, 3]; expected: u8 [h', w', 3], what is expected there, None without, and
        how far to trust it, 0 to 1; previous: what this returned for the frame before, None for
        the first. Returns the mended crop u8 [rows, columns, 3].
        """
        pixels, planes = crop_in(
            picture, guides, prior, previous, crop.place, crop.shape, confidence
        )
        gates = self.network.run({INPUT: planes[None]})[OUTPUT][0]
        difference = residual(gates, planes, pixels, self.sharpen, has_prior=prior is not None)
        return crop_out(difference, pixels, picture, guides, crop.place)


def residual(gates: F32, planes: F32, crop: U8, sharpen: float, *, has_prior: bool) -> F32:
    """What is added to the crop `seen`, f32 [3, rows, columns], by the network's gates.

    told: whether there is something expected, for which a drawn mouth gives way. Where there is
    not, the network leaves what is drawn as it is.
    """
    if has_prior:
        return unsharp_mask(apply_gates(override_in_synthetic(gates, crop), planes), crop, sharpen)
    return attenuate_in_synthetic(unsharp_mask(apply_gates(gates, planes), crop, sharpen), crop)


def shipped_model() -> Model:
    """The network that shipped."""
    folder = Path(str(files("lipstream.engine.weights")))
    return Model(folder / "renderer.onnx", folder / "renderer.safetensors")


def load_renderer(
    choice: str, backend: str, crop_resolution: int = CROP_RESOLUTIONS[0], sharpen: float = SHARPEN
) -> Renderer | None:
    """The network that shipped, or None to show the warped mouth as it is.

    `choice` is one of RENDERERS. "auto" does without where no weights are shipped or the backend
    has no code for them, and says so.

    Raises:
        UsageError: an unknown choice or detail.
        BackendUnavailable: the network was asked for by name and cannot run.
    """
    if choice not in RENDERERS:
        raise UsageError(f"renderer {choice!r}: expected one of {', '.join(RENDERERS)}")
    if choice == "none":
        return None
    model = shipped_model()
    try:
        if not (model.onnx.is_file() and model.safetensors.is_file()):
            raise BackendUnavailable("no renderer weights in the package; reinstall lipstream")
        return Renderer(select_backend(backend, model, FAST), crop_resolution, sharpen)
    except BackendUnavailable as error:
        if choice == "network":
            raise
        log.warning("no renderer, mouths are warped only: %s", error)
        return None
