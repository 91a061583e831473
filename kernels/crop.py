"""A rectangle of the picture into a network's input, and what the network adds back.

A place is (left, top, step): the corner in px of the picture, and how many of them lie between two
neighbours of the crop. CPU only: a network on a GPU is not fed from here yet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require
from lipstream.kernels.dispatch import use_native
from lipstream.kernels.errors import UsageError
from lipstream.kernels.reference import all as reference

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Place = tuple[float, float, float]
SYNTHETIC = 40  # of a gap's trust as a guide: all of what is seen there is drawn
_LEVELS = np.arange(256)
# Below DRAWN a pixel is partly outside the gap, and 0 is far from it.
_OUTSIDE, _SOURCES = 1 - _LEVELS / SYNTHETIC, (_LEVELS - SYNTHETIC) / (255 - SYNTHETIC)
_SHOWN: U8 = (255 * np.maximum(_OUTSIDE, _SOURCES)).astype(np.uint8)
_KEPT: U8 = (255 * np.maximum(_OUTSIDE, 2 * _SOURCES)).clip(0, 255).astype(np.uint8)


def crop_in(
    picture: U8,
    guides: U8,
    prior: U8 | None,
    previous: U8 | None,
    place: Place,
    shape: tuple[int, int],
    confidence: float = 1.0,
) -> tuple[U8, F32]:
    """Bilinear samples of picture and guides, both u8 [h, w, 3]; the border repeats.

    expected: u8 [h', w', 3], another layer for the same rectangle at a size of its own, laid over
    the picture by the guides' first channel and, in the gap, by `trust`, 0 to 1; None: the
    picture's own.
    previous: u8 [rows, columns, 3], the crop of the frame before; None: this one's own. Returns u8
    [rows, columns, 6], and with expected and previous f32 [12, rows, columns], 0 to 1.
    """
    require("picture", picture, np.uint8, (None, None, 3))
    require("guides", guides, np.uint8, picture.shape)
    if prior is not None:
        require("expected", prior, np.uint8, (None, None, 3))
    if previous is not None:
        require("previous", previous, np.uint8, (*shape, 3))
    _require_place(place)
    implementation = native if use_native() else reference
    crop, planes = implementation.crop_in(picture, guides, prior, previous, place, shape)
    if prior is not None and confidence < 1:
        doubt = 1 - prior_weight(crop[..., 5], confidence)
        planes[6:9] += doubt * (planes[:3] - planes[6:9])
    return crop, planes


def prior_weight(gap: U8, confidence: float) -> F32:
    """How much of what is expected to show, f32 [rows, columns]: `trust` in the gap, all of it on
    the lips, whose looks hardly depend on what they do.

    gap: u8 [rows, columns], a guide's last channel.
    """
    within = np.minimum(gap.astype(np.float32) * np.float32(1 / SYNTHETIC), 1)
    return 1 - np.float32(1 - confidence) * within


def override_in_synthetic(gates: F32, crop: U8) -> F32:
    """Gates f32 [3, rows, columns] of `fused` by which what is drawn between the lips, and the two
    pixels round it, give way to what is expected there.

    seen: what `crop_in` returned.
    """
    require("seen", crop, np.uint8, (None, None, 6))
    require("gates", gates, np.float32, (3, *crop.shape[:2]))
    implementation = native if use_native() else reference
    own = implementation.attenuate_in_synthetic(np.ones_like(gates), crop, _SHOWN)
    if own.min() == 1:
        return gates
    prior = np.array([1, 1, 0], np.float32)[:, None, None]
    return prior + own * (gates - prior)


def fused(gates: F32, planes: F32) -> F32:
    """What to add to the painted crop to bring it nearer to what is expected, f32 [3, h, w].

    planes: f32 [12, h, w] of `crop_in`. gates: f32 [3, h, w], pixel by pixel and for all colours
    alike: how much of the expected crop's coarse part to take and how much of its fine part, 0 to
    1, and how much of the painted crop's own fine part to add, -1/2 to 1; beyond that they are cut.
    Coarse is what a mean of 5 x 5, taken twice, leaves.
    """
    require("planes", planes, np.float32, (12, None, None))
    require("gates", gates, np.float32, (3, *planes.shape[1:]))
    return (native if use_native() else reference).fused(gates, planes)


def unsharp_mask(difference: F32, crop: U8, amount: float) -> F32:
    """A difference f32 [3, rows, columns] that also sharpens what it mends.

    seen: what `crop_in` returned. Out of the difference goes what alternates from pixel to pixel
    along rows or columns, and to it is added `amount` times what the crop, mended and softened by
    1 2 1, has over its own mean of 5 x 5 (of what is inside). So edges gain, and single pixels do
    not.
    """
    require("seen", crop, np.uint8, (None, None, 6))
    require("difference", difference, np.float32, (3, *crop.shape[:2]))
    implementation = native if use_native() else reference
    return implementation.unsharp_mask(difference, crop, amount)


def attenuate_in_synthetic(difference: F32, crop: U8) -> F32:
    """A difference f32 [3, rows, columns], kept away from what is drawn between the lips.

    seen: what `crop_in` returned; its last channel is `DRAWN` in the gap where nothing of the
    source is to be seen, 255 where all is, and 0 outside the gap. All of the difference stays
    where the source gives half and more, nothing where the gap is drawn and within two pixels of
    it; between them it fades.
    """
    require("seen", crop, np.uint8, (None, None, 6))
    require("difference", difference, np.float32, (3, *crop.shape[:2]))
    implementation = native if use_native() else reference
    return implementation.attenuate_in_synthetic(difference, crop, _KEPT)


def crop_out(difference: F32, crop: U8, picture: U8, guides: U8, place: Place) -> U8:
    """Add a difference f32 [3, rows, columns] (1 is full scale) to `picture` u8 [h, w, 3].

    In place, and by the first channel of the guides u8 [h, w, 3], the opacity; where that is 0
    nothing changes. seen: what `crop_in` returned. Differences are rounded to levels and bounded
    to half of full scale. Returns the crop with the same added, u8 [rows, columns, 3].
    """
    shape = crop.shape[:2]
    require("seen", crop, np.uint8, (*shape, 6))
    require("difference", difference, np.float32, (3, *shape))
    require("picture", picture, np.uint8, (None, None, 3))
    require("guides", guides, np.uint8, picture.shape)
    _require_place(place)
    if not picture.flags.c_contiguous:
        raise UsageError("picture is not contiguous; it is written in place")
    if use_native():
        return native.crop_out(difference, crop, picture, guides, place)
    return reference.crop_out(difference, crop, picture, guides, place)


def _require_place(place: Place) -> None:
    if not (np.isfinite(place).all() and place[2] > 0):
        raise UsageError(f"place {place}; expected finite left, top and a step above 0")
