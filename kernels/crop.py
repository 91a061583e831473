"""A rectangle of the picture into the renderer's input, and what its gates add back.

A place is (left, top, step): the corner in px of the picture, and how many of them lie between two
neighbours of the crop. The three conditioning maps are the opacity of the lip layer, the row of the
gap between the lips, and how much of a pixel comes from a source and not from synthetic teeth.
The last map tells two things in one byte: 0 to SYNTHETIC, how far inside the gap a pixel of its rim
is; SYNTHETIC to 255, how much of it the source shows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require
from lipstream.kernels.dispatch import kernel
from lipstream.kernels.errors import UsageError
from lipstream.kernels.reference import crop as reference

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Place = tuple[float, float, float]
SYNTHETIC = 40  # the last conditioning map in the gap, where all of the pixel is synthetic
_LEVELS = np.arange(256)
# Below SYNTHETIC a pixel is partly outside the gap, and 0 is far from it. A source that shows half
# of a pixel is enough to keep all of a difference: hence the 2.
_OUTSIDE, _SOURCES = 1 - _LEVELS / SYNTHETIC, (_LEVELS - SYNTHETIC) / (255 - SYNTHETIC)
GATES_KEPT: U8 = (255 * np.maximum(_OUTSIDE, _SOURCES)).astype(np.uint8)
DIFFERENCE_KEPT: U8 = (255 * np.maximum(_OUTSIDE, 2 * _SOURCES)).clip(0, 255).astype(np.uint8)


def crop_in(
    picture: U8,
    conditioning: U8,
    prior: U8 | None,
    previous: U8 | None,
    place: Place,
    shape: tuple[int, int],
    confidence: float = 1.0,
) -> tuple[U8, F32]:
    """Bilinear samples of picture and conditioning, both u8 [h, w, 3]; the border repeats.

    Args:
        picture, conditioning: see the module.
        prior: u8 [h', w', 3], the appearance prior of the same rectangle at a size of its own. It
            is laid over the picture by the first conditioning map and, in the gap, by `confidence`,
            0 to 1. None: the picture itself.
        previous: u8 [rows, columns, 3], the crop of the previous frame; None: this frame's.
        place, shape: where the crop lies, and its (rows, columns).

    Returns:
        crop u8 [rows, columns, 6], picture and conditioning maps; planes f32 [12, rows, columns],
        0 to 1: the crop, the prior and the previous crop.
    """
    require("picture", picture, np.uint8, (None, None, 3))
    require("conditioning", conditioning, np.uint8, picture.shape)
    if prior is not None:
        require("prior", prior, np.uint8, (None, None, 3))
    if previous is not None:
        require("previous", previous, np.uint8, (*shape, 3))
    for name, image in (("picture", picture), ("prior", prior)):
        if image is not None and 0 in image.shape:
            raise UsageError(f"{name} is u8 {list(image.shape)}; expected at least one pixel")
    if min(shape) <= 0:
        raise UsageError(f"shape is {shape}; expected (rows, columns) above 0")
    _require_place(place)
    crop, planes = sample_crop(picture, conditioning, prior, previous, place, shape)
    if prior is not None and confidence < 1:
        doubt = 1 - prior_weight(crop[..., 5], confidence)
        planes[6:9] += doubt * (planes[:3] - planes[6:9])
    return crop, planes


def prior_weight(gap: U8, confidence: float) -> F32:
    """How much of the appearance prior shows, f32 [rows, columns].

    It is `confidence` in the gap and 1 on the lips, whose appearance hardly depends on the
    expression. gap: u8 [rows, columns], the last conditioning map.
    """
    within = np.minimum(gap.astype(np.float32) * np.float32(1 / SYNTHETIC), 1)
    return 1 - np.float32(1 - confidence) * within


def override_in_synthetic(gates: F32, crop: U8) -> F32:
    """Gates f32 [3, rows, columns] that show the prior where the gap is synthetic.

    There, and within two pixels of it, all of the prior is taken and nothing of the synthetic
    teeth. crop: what `crop_in` returned.
    """
    require("crop", crop, np.uint8, (None, None, 6))
    require("gates", gates, np.float32, (3, *crop.shape[:2]))
    own = attenuate(np.ones_like(gates), crop, GATES_KEPT)
    if own.min() == 1:
        return gates
    prior = np.array([1, 1, 0], np.float32)[:, None, None]
    return prior + own * (gates - prior)


def apply_gates(gates: F32, planes: F32) -> F32:
    """What to add to the painted crop to bring it nearer to the prior, f32 [3, rows, columns].

    planes: f32 [12, rows, columns] of `crop_in`. gates: f32 [3, rows, columns], pixel by pixel and
    for all colours alike: how much of the prior's coarse part to take and how much of its fine
    part, 0 to 1, and how much of the painted crop's own fine part to add, -1/2 to 1. Gates beyond
    that are cut. Coarse is what a mean of 5 x 5, taken twice, leaves.
    """
    require("planes", planes, np.float32, (12, None, None))
    require("gates", gates, np.float32, (3, *planes.shape[1:]))
    return gate(gates, planes)


def unsharp_mask(difference: F32, crop: U8, amount: float) -> F32:
    """A difference f32 [3, rows, columns] that also sharpens what it refines.

    What alternates from pixel to pixel along rows or columns is taken out of the difference. Then
    `amount` times the fine part of the refined crop is added: the crop softened by 1 2 1, less its
    mean of 5 x 5 of what is inside. So edges gain, and single pixels do not. crop: what `crop_in`
    returned.
    """
    require("crop", crop, np.uint8, (None, None, 6))
    require("difference", difference, np.float32, (3, *crop.shape[:2]))
    return sharpen(difference, crop, amount)


def attenuate_in_synthetic(difference: F32, crop: U8) -> F32:
    """A difference f32 [3, rows, columns], attenuated where the gap is synthetic.

    crop: what `crop_in` returned. Its last channel is `SYNTHETIC` in the gap where nothing comes
    from a source, 255 where all does, and 0 outside the gap. All of the difference stays where half
    and more comes from a source, nothing where the gap is synthetic and within two pixels of it;
    between them it fades.
    """
    require("crop", crop, np.uint8, (None, None, 6))
    require("difference", difference, np.float32, (3, *crop.shape[:2]))
    return attenuate(difference, crop, DIFFERENCE_KEPT)


def crop_out(difference: F32, crop: U8, picture: U8, conditioning: U8, place: Place) -> U8:
    """Add a difference f32 [3, rows, columns] (1 is full scale) to `picture` u8 [h, w, 3].

    In place, by the opacity, the first conditioning map (u8 [h, w, 3]); where that is 0 nothing
    changes. crop: what `crop_in` returned. Differences are rounded to levels and bounded to half of
    full scale. Returns the crop with the same added, u8 [rows, columns, 3].
    """
    shape = crop.shape[:2]
    require("crop", crop, np.uint8, (*shape, 6))
    require("difference", difference, np.float32, (3, *shape))
    require("picture", picture, np.uint8, (None, None, 3))
    require("conditioning", conditioning, np.uint8, picture.shape)
    _require_place(place)
    if 0 in crop.shape:
        raise UsageError(f"crop is u8 {list(crop.shape)}; expected at least one pixel")
    if not (picture.flags.c_contiguous and picture.flags.writeable):
        raise UsageError("picture is not contiguous or read-only; it is written in place")
    return add_crop(difference, crop, picture, conditioning, place)


@kernel(reference.crop_in)
def sample_crop(
    picture: U8,
    conditioning: U8,
    prior: U8 | None,
    previous: U8 | None,
    place: Place,
    shape: tuple[int, int],
) -> tuple[U8, F32]:
    """`crop_in` without its checks, at confidence 1."""
    picture, conditioning = np.ascontiguousarray(picture), np.ascontiguousarray(conditioning)
    prior = None if prior is None else np.ascontiguousarray(prior)
    previous = None if previous is None else np.ascontiguousarray(previous)
    prior_size = (0, 0) if prior is None else prior.shape[:2]
    crop = native.empty((*shape, 6), np.uint8)
    planes = native.empty((12, *shape), np.float32)
    native.library().ls_crop_in(
        picture, conditioning, prior, previous, *picture.shape[:2], *prior_size, *place, *shape,
        crop, planes,
    )  # fmt: skip
    return crop, planes


@kernel(reference.apply_gates)
def gate(gates: F32, planes: F32) -> F32:
    """`apply_gates` without its checks."""
    gates, planes = np.ascontiguousarray(gates), np.ascontiguousarray(planes)
    rows, columns = planes.shape[1:]
    out = native.empty((3, rows, columns), np.float32)
    scratch = native.empty((3 * rows + 1, columns), np.float32)
    native.library().ls_apply_gates(gates, planes, rows, columns, scratch, out)
    return out


@kernel(reference.unsharp_mask)
def sharpen(difference: F32, crop: U8, amount: float) -> F32:
    """`unsharp_mask` without its checks."""
    crop = np.ascontiguousarray(crop)
    rows, columns = crop.shape[:2]
    out = _copy(difference)
    refined = native.empty((rows, columns), np.float32)
    lines = native.empty((3, columns), np.float32)
    native.library().ls_unsharp_mask(crop, rows, columns, amount, refined, lines, out)
    return out


@kernel(reference.attenuate_in_synthetic)
def attenuate(difference: F32, crop: U8, table: U8) -> F32:
    """`attenuate_in_synthetic` without its checks; table u8 [256]: of each level of the crop's last
    channel, how much is kept, in 255ths."""
    crop = np.ascontiguousarray(crop)
    rows, columns = crop.shape[:2]
    out, spare = _copy(difference), native.empty((2, rows, columns), np.uint8)
    native.library().ls_attenuate_in_synthetic(crop, rows, columns, table, spare, out)
    return out


@kernel(reference.crop_out)
def add_crop(difference: F32, crop: U8, picture: U8, conditioning: U8, place: Place) -> U8:
    """`crop_out` without its checks."""
    difference, crop = np.ascontiguousarray(difference), np.ascontiguousarray(crop)
    conditioning = np.ascontiguousarray(conditioning)
    left, top, step = place
    shape = crop.shape[:2]
    stored = native.empty((*shape, 3), np.uint8)
    refined = native.empty((*shape, 3), np.uint8)
    native.library().ls_crop_out(
        difference, crop, *shape, conditioning, *picture.shape[:2], left, top, 1 / step,
        stored, picture, refined,
    )  # fmt: skip
    return refined


def _copy(array: F32) -> F32:
    copy = native.empty(array.shape, np.float32)
    copy[:] = array
    return copy


def _require_place(place: Place) -> None:
    if not (np.isfinite(place).all() and place[2] > 0):
        raise UsageError(f"place {place}; expected finite left, top and a step above 0")
