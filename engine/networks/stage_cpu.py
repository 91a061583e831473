"""The steps of the renderer's stage as the CPU's kernels, a row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lipstream.engine.errors import UsageError
from lipstream.engine.frozen import Frozen
from lipstream.engine.networks.base import Network
from lipstream.engine.networks.signatures import RENDERER_INPUT, RENDERER_OUTPUT
from lipstream.engine.networks.stage import Refined, StageRow, padded_size, refuse
from lipstream.engine.types import F32, U8
from lipstream.kernels.crop import (
    apply_gates,
    attenuate_in_synthetic,
    crop_in,
    crop_out,
    override_in_synthetic,
    unsharp_mask,
)


def refine_row(network: Network, row: StageRow, shape: tuple[int, int]) -> U8:
    """Refine `row.painted` in place, on the CPU but for the network.

    shape: of the crop. Returns: the refined crop u8 [rows, columns, 3].
    """
    crop, planes = crop_in(
        row.painted, row.conditioning, row.prior, row.previous, row.place, shape, row.confidence
    )
    gates = network.run({RENDERER_INPUT: planes[None]})[RENDERER_OUTPUT][0]
    difference = residual(gates, planes, crop, row.sharpen, has_prior=row.prior is not None)
    return crop_out(difference, crop, row.painted, row.conditioning, row.place)


class CpuStage(Frozen):
    """A `StageExecutor` of the CPU's own steps: what the others are compared with."""

    def __init__(self, network: Network, crop_shape: tuple[int, int]) -> None:
        """`network`: any backend's."""
        self._network, self.crop_shape = network, crop_shape
        self.name, self.device, self.precision = network.name, network.device, network.precision

    def run(self, rows: Sequence[StageRow]) -> list[Refined | UsageError]:
        """See `StageExecutor`; rows are computed one after another."""
        padded_size(len(rows))
        refused = refuse(rows, self.crop_shape)
        return [
            self._refined(row) if error is None else error
            for row, error in zip(rows, refused, strict=True)
        ]

    def _refined(self, row: StageRow) -> Refined:
        pixels = row.painted.copy()
        crop = refine_row(self._network, replace(row, painted=pixels), self.crop_shape)
        return Refined(pixels, crop)


def residual(gates: F32, planes: F32, crop: U8, sharpen: float, *, has_prior: bool) -> F32:
    """The difference that the gates let through, to be added to the crop, f32 [3, rows, columns].

    A synthetic mouth gives way to the prior; without one, the model leaves it as it is.
    """
    if has_prior:
        return unsharp_mask(apply_gates(override_in_synthetic(gates, crop), planes), crop, sharpen)
    return attenuate_in_synthetic(unsharp_mask(apply_gates(gates, planes), crop, sharpen), crop)
