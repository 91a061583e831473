"""The steps of the renderer's stage as torch operations, on any device that torch has.

They are those of kernels/crop.cpp and kernels/cuda/stage.cuh: what is whole numbers there is whole
numbers here, with the same bits. Only means add up in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lipstream.engine.networks.stage_arena import Arena, PlacedRow
from lipstream.kernels.crop import DIFFERENCE_KEPT, GATES_KEPT, SYNTHETIC

_FULL: Final = float(np.float32(1 / 255))
_THIRD: Final = float(np.float32(1 / (9 * 255)))
# Columns of the two tables; a row that fills a batch up is one pixel that nothing is pasted to.
_WHOLE: Final = ("first", "height", "width", "prior_first", "prior_height", "prior_width")
_NUMBERS: Final = ("left", "top", "step", "zoom", "doubt", "sharpen", "across", "down")
_FLAGS: Final = ("has_prior", "has_previous")


class TorchBody:
    """Computes the rows of one arena."""

    def __init__(self, arena: Arena) -> None:
        self._arena, batch = arena, arena.batch

        def table(columns: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
            pinned = arena.device != "cpu"
            host = torch.zeros((columns, batch), dtype=kind, pin_memory=pinned)
            return host, host.to(arena.device) if pinned else host

        self._whole, self._numbers = (
            table(len(_WHOLE), torch.int64),
            table(len(_NUMBERS), torch.float32),
        )
        self._flags = table(len(_FLAGS), torch.bool)
        self._end = table(1, torch.int64)  # of each row's pixels, for all rows
        kept = np.stack([DIFFERENCE_KEPT, GATES_KEPT])
        self._kept = torch.from_numpy(kept).to(arena.device)  # u8 [2, 256]
        rows, columns = arena.crop_shape
        make = {"device": arena.device, "dtype": torch.float32}
        self._x = torch.arange(columns, **make)[None, None, :] + 0.5
        self._y = torch.arange(rows, **make)[None, :, None] + 0.5
        self._pixels = torch.arange(len(arena.host["pictures"]), device=arena.device)
        self._crop_first = torch.arange(batch, device=arena.device) * (rows * columns)
        # Made here: what is copied from the host cannot be captured.
        gates = torch.tensor([[0.0, 0.0, -0.5], [1.0, 1.0, 0.0]])[:, :, None, None]
        self._least, self._all_prior = gates.to(arena.device)

    def prepare(self, placed: Sequence[PlacedRow]) -> None:
        """See `Body`."""
        whole, numbers, flags, end = (
            pair[0].numpy() for pair in (self._whole, self._numbers, self._flags, self._end)
        )
        whole[:], numbers[:], flags[:] = 1, 1, False
        whole[[0, 3]] = 0
        for index, one in enumerate(placed):
            row, (height, width, _) = one.row, one.shape
            prior = (1, 1) if row.prior is None else row.prior.shape[:2]
            whole[:, index] = (one.first, height, width, one.prior_first, *prior)
            numbers[:6, index] = row.numbers()
            numbers[6:, index] = prior[1] / width, prior[0] / height
            flags[:, index] = row.prior is not None, row.previous is not None
            end[0, index:] = one.first + height * width
        for host, device in (self._whole, self._numbers, self._flags, self._end):
            if host is not device:
                device.copy_(host, non_blocking=True)

    def enqueue(self, network: Callable[[Tensor], Tensor]) -> None:
        """See `Body`."""
        crop, planes = self._crop_in()
        near = self._near_gap(crop)
        gates = self._override(network(planes), near)
        # A gate that is no number counts as its least value.
        gates = torch.where(gates > self._least, gates, self._least).clamp(max=1)
        difference = _without_alternation(_without_alternation(_gated(gates, planes), 3), 2)
        stored = self._sharpened(difference, crop, near)
        refined = _add_weighted(crop[..., :3], stored, crop[..., 3:4])
        self._arena.on_device["crops"].copy_(refined.reshape(-1, 3))
        self._paste(stored)

    def _column(self, name: str) -> Tensor:
        """Of the tables, [B, 1, 1]."""
        for names, (_, table) in (
            (_WHOLE, self._whole), (_NUMBERS, self._numbers), (_FLAGS, self._flags)
        ):  # fmt: skip
            if name in names:
                return table[names.index(name)][:, None, None]
        raise KeyError(name)

    def _crop_in(self) -> tuple[Tensor, Tensor]:
        """Crop i32 [B, rows, columns, 6] and planes f32 [B, 12, rows, columns]."""
        arena, of = self._arena.on_device, self._column
        x, y = self._x * of("step") + of("left"), self._y * of("step") + of("top")
        place = _Bilinear(x, y, of("width"), of("height"), of("first"))
        crop = torch.cat([place.sample(arena["pictures"]), place.sample(arena["maps"])], 3)
        own = crop[..., :3]
        prior = _Bilinear(
            x * of("across"), y * of("down"), of("prior_width"), of("prior_height"),
            of("prior_first"),
        ).sample(arena["priors"])  # fmt: skip
        has_prior = of("has_prior")[..., None]
        layer = torch.where(has_prior, _blend(own, prior, crop[..., 3:4]), own)
        previous = arena["previous"].reshape(own.shape).int()
        previous = torch.where(of("has_previous")[..., None], previous, own)
        levels = torch.cat([crop, layer, previous], 3).permute(0, 3, 1, 2)
        planes = levels.float() * _FULL
        gap = (crop[..., 5].float() * float(np.float32(1 / SYNTHETIC))).clamp(max=1)
        doubt = 1 - (1 - of("doubt") * gap)
        doubt = torch.where(of("has_prior"), doubt, torch.zeros_like(doubt))[:, None]
        painted, shown = planes[:, :3], planes[:, 6:9]
        believed = torch.where(doubt > 0, shown + doubt * (painted - shown), shown)
        return crop, torch.cat([planes[:, :6], believed, planes[:, 9:]], 1)

    def _near_gap(self, crop: Tensor) -> Tensor:
        """How much is kept near synthetic pixels, 0 to 1, f32 [B, 1, rows, columns]."""
        last = crop[..., 5].float()[:, None]
        largest = functional.max_pool2d(last, 5, 1, 2).long()[:, 0]
        table = self._column("has_prior").long() * 256
        weights = self._kept.reshape(-1)[table + largest].float()[:, None]
        edged = functional.pad(weights, (1, 1, 1, 1), mode="replicate")
        total = functional.avg_pool2d(edged, 3, 1, divisor_override=1)  # whole numbers: exact
        return torch.where(total == 9 * 255, torch.ones_like(total), total * _THIRD)

    def _override(self, gates: Tensor, near: Tensor) -> Tensor:
        """Gates that show the prior, where there is one, near synthetic pixels."""
        shown = self._all_prior
        overridden = torch.where(near < 1, shown + near * (gates - shown), gates)
        return torch.where(self._column("has_prior")[:, None], overridden, gates)

    def _sharpened(self, difference: Tensor, crop: Tensor, near: Tensor) -> Tensor:
        """The difference in levels, i32 [B, rows, columns, 3], 128 for none."""
        refined = crop[..., :3].permute(0, 3, 1, 2).float() * _FULL + difference
        edged = functional.pad(refined, (1, 1, 1, 1), mode="replicate")
        down = ((edged[:, :, :-2] + 2 * edged[:, :, 1:-1]) + edged[:, :, 2:]) * 0.25
        soft = ((down[..., :-2] + 2 * down[..., 1:-1]) + down[..., 2:]) * 0.25
        sharpen = self._column("sharpen")[:, None]
        change = difference + sharpen * (soft - _mean_of_five(refined))
        kept = torch.where(self._column("has_prior")[:, None], torch.ones_like(near), near)
        levels = change * kept * 255.0 + 128.5
        bounded = torch.where(levels > 0, levels, 0).clamp(max=255)  # 0 for what is no number
        return bounded.int().permute(0, 2, 3, 1)

    def _paste(self, stored: Tensor) -> None:
        """Add what was stored to every pixel of every picture, by its opacity."""
        arena, pixels = self._arena.on_device, self._pixels
        ends, last = self._end[1][0], self._arena.batch - 1
        owner = torch.searchsorted(ends, pixels, right=True).clamp(max=last)
        whole, numbers = self._whole[1][:, owner], self._numbers[1][:, owner]
        at = pixels - whole[0]
        y = torch.div(at, whole[2], rounding_mode="floor")
        x = at - y * whole[2]
        left, top, zoom = numbers[0], numbers[1], numbers[3]
        rows, columns = self._arena.crop_shape
        place = _Bilinear(
            (x.float() + 0.5 - left) * zoom,
            (y.float() + 0.5 - top) * zoom,
            torch.full_like(at, columns),
            torch.full_like(at, rows),
            self._crop_first[owner],
        )
        opacity = torch.where(pixels < ends[-1], arena["maps"][:, 0].int(), 0)[:, None]
        changed = _add_weighted(
            arena["pictures"].int(), place.sample(stored.reshape(-1, 3)), opacity
        )
        arena["pictures"].copy_(changed)


class _Bilinear:
    """Positions f32 in px of pictures that lie in one list of pixels, in 1/256 px."""

    def __init__(self, x: Tensor, y: Tensor, width: Tensor, height: Tensor, first: Tensor) -> None:
        fx, fy = _fixed(x, width), _fixed(y, height)
        x0, y0 = fx >> 8, fy >> 8
        x1, y1 = torch.minimum(x0 + 1, width - 1), torch.minimum(y0 + 1, height - 1)
        above, below = first + y0 * width, first + y1 * width
        self._at = torch.stack([above + x0, above + x1, below + x0, below + x1])
        self._wx, self._wy = ((f & 255).int()[..., None] for f in (fx, fy))

    def sample(self, pixels: Tensor) -> Tensor:
        """Levels i32 [..., 3] of pixels [P, 3]."""
        corners = pixels[self._at].int()
        lines = corners[::2] * (256 - self._wx) + corners[1::2] * self._wx
        return (lines[0] * (256 - self._wy) + lines[1] * self._wy + (1 << 15)) >> 16


def _fixed(position: Tensor, size: Tensor) -> Tensor:
    """In 1/256 px from the first pixel's centre, clamped to the picture; i64."""
    scaled = position * 256.0 - 127.5
    last = ((size - 1) * 256).float()
    return torch.minimum(scaled.clamp(min=0), last).long()


def _blend(background: Tensor, layer: Tensor, alpha: Tensor) -> Tensor:
    total = background * (255 - alpha) + layer * alpha + 128
    return (total + (total >> 8)) >> 8


def _add_weighted(level: Tensor, difference: Tensor, opacity: Tensor) -> Tensor:
    return (level + (((difference - 128) * opacity * 257 + (1 << 15)) >> 16)).clamp(0, 255)


def _mean_of_five(planes: Tensor) -> Tensor:
    """Over 5 x 5, of what is inside."""
    return functional.avg_pool2d(planes, 5, 1, 2, count_include_pad=False)


def _gated(gates: Tensor, planes: Tensor) -> Tensor:
    """See `kernels.crop.apply_gates`; of bounded gates."""
    coarse, fine, own = gates.split(1, 1)
    painted = planes[:, :3]
    apart = planes[:, 6:9] - painted
    low = _mean_of_five(_mean_of_five(apart))
    soft = _mean_of_five(_mean_of_five(painted))
    return (coarse * low + fine * (apart - low)) + own * (painted - soft)


def _without_alternation(planes: Tensor, axis: int) -> Tensor:
    """Less what alternates from number to number along an axis; the border repeats."""
    sides = (2, 2, 0, 0) if axis == 3 else (0, 0, 2, 2)
    size, edged = planes.shape[axis], functional.pad(planes, sides, mode="replicate")
    a, b, own, d, e = (edged.narrow(axis, at, size) for at in range(5))
    third, twelfth = float(np.float32(2 / 3)), float(np.float32(1 / 12))
    return (own * third + (b + d) * 0.25) - (a + e) * twelfth
