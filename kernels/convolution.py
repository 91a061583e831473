"""The renderer as a kernel: 16-bit integers, for processors with AVX2.

Weights come as they ship and are brought to integers here, per output, as large as they can be
without any sum of products leaving 32 bits, whatever the picture. Activations are levels of 0 to
MOST, over twice the range that they have in the training data.
"""

from __future__ import annotations

import queue
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.checks import require
from lipstream.kernels.errors import UsageError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I16 = NDArray[np.int16]

MOST: Final = 4095  # level of an activation; four of them, which Winograd adds, fit into 16 bits
ENTRY_LEVEL: Final = 8160.0  # of an input of 1 less one half: each of 256 grey levels is whole
_HEADROOM: Final = 2.0  # of the range that activations have in the training data
_LARGEST_SUM: Final = 2.0**31 - 1
# Weights of F(2x2, 3x3): G w Gt.
_G: Final = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def fits() -> bool:
    """Whether this processor runs it; asks the compiled kernels."""
    return bool(native.library().ls_renderer_fits())


def has_wider_simd() -> bool:
    """Whether this processor has instructions that others use and that are faster yet: AVX-512."""
    return bool(native.library().ls_renderer_fits() == 2)


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution in integers."""

    weights: I16  # i16 [16, outputs, inputs] of Winograd's, or [1, outputs, side * side * inputs]
    scale: F32  # f32 [outputs], a sum of products to output levels
    bias: F32  # f32 [outputs], output levels
    ratio: float  # level of what is added on top, over the output's
    inputs: int

    @property
    def outputs(self) -> int:
        """Channels, with those that only pad to a multiple of 8."""
        return len(self.bias)

    def packed(self) -> I16:
        """The weights as the kernel reads them: blocks of 16 outputs (the last may have 8), and
        in each for two inputs after another the pairs of all its outputs."""
        positions, outputs, count = self.weights.shape
        pairs = self.weights.reshape(positions, outputs, count // 2, 2)
        parts = []
        for position in pairs:
            for first in range(0, outputs, 16):
                parts.append(position[first : first + 16].transpose(1, 0, 2).ravel())
        return np.concatenate(parts)


def integer_layers(
    weights: Mapping[str, NDArray[Any]], step_of: Mapping[str, float]
) -> list[Layer]:
    """The renderer's convolutions in their order; `step_of` gives the real size of a level of
    each one's input, by the name of its weights.

    Raises: UsageError when weights or steps do not fit together.
    """
    names = _order(weights)
    missing = [
        name
        for name in names
        if not {f"{name}.weight", f"{name}.bias"} <= weights.keys()
        or f"{name}.weight" not in step_of
    ]
    if missing:
        raise UsageError(f"no weights or no range of {', '.join(missing)}")
    odd = [n for n in names[:-1] if len(weights[f"{n}.bias"]) % 8 or len(weights[f"{n}.bias"]) < 16]
    if odd:
        raise UsageError(f"width of {', '.join(odd)}: expected a multiple of 8 from 16 on")
    steps = {name: step_of[f"{name}.weight"] for name in names}
    after = {name: steps[later] for name, later in zip(names, names[1:], strict=False)}
    after["leave"] = 1.0
    # What is added on top has the level of the layer that reads it as well.
    skips = {"up1": "down2", "up2": "down1"}
    skips |= {n: n.replace("second", "first") for n in names if n.endswith("second")}
    layers = []
    for name in names:
        weight = np.asarray(weights[f"{name}.weight"], np.float64)
        bias = np.asarray(weights[f"{name}.bias"], np.float64)
        if name in ("up1", "up2"):  # [channel, row, column] to [row, column, channel]
            order = np.arange(len(bias)).reshape(-1, 4).T.ravel()
            weight, bias = weight[order], bias[order]
        ratio = steps[skips[name]] / after[name] if name in skips else 0.0
        stride_1 = weight.shape[2] == 3 and not name.startswith("down")
        layers.append(_layer(weight, bias, stride_1, steps[name], after[name], ratio))
    return layers


def _order(weights: Mapping[str, NDArray[Any]]) -> list[str]:
    def blocks(part: str) -> list[str]:
        count = len({name.split(".")[1] for name in weights if name.startswith(f"{part}.")})
        return [f"{part}.{i}.{which}" for i in range(count) for which in ("first", "second")]

    names = ["enter", "down1", "down2", *blocks("coarse"), "up1", *blocks("middle"), "up2"]
    return [*names, "fine.first", "fine.second", "leave"]


def _layer(
    weight: F64, bias: F64, winograd: bool, step: float, step_out: float, ratio: float
) -> Layer:
    outputs, inputs = weight.shape[:2]
    if winograd:
        spread = np.einsum("ai,ocij,bj->aboc", _G, weight, _G).reshape(16, outputs, inputs)
        largest = 4 * MOST
    else:
        spread = weight.transpose(0, 2, 3, 1).reshape(1, outputs, -1)
        largest = MOST
    padded = -(-outputs // 8) * 8
    spread = np.pad(spread, ((0, 0), (0, padded - outputs), (0, 0)))
    # Rounding moves each weight by up to a half.
    most = _LARGEST_SUM / largest - spread.shape[2] / 2
    size = np.maximum(np.abs(spread).sum(2).max(0), 1e-9)
    factor = np.minimum(most / size, 32767 / np.maximum(np.abs(spread).max((0, 2)), 1e-9))
    return Layer(
        weights=np.rint(spread * factor[:, None]).astype(np.int16),
        scale=(step / (factor * step_out)).astype(np.float32),
        bias=np.pad(bias / step_out, (0, padded - outputs)).astype(np.float32),
        ratio=float(np.float32(ratio)),
        inputs=inputs,
    )


class RendererPass:
    """The renderer with its weights; any number of threads may call it.

    Raises: UsageError when the weights are not of a renderer, or have no ranges.
    """

    def __init__(
        self, weights: Mapping[str, NDArray[Any]], ranges: Mapping[str, tuple[float, float]]
    ) -> None:
        """`ranges`: least and most of each convolution's input in the training data, by the name of
        its weights."""
        steps = {name: _HEADROOM * most / MOST for name, (_, most) in ranges.items()}
        steps["enter.weight"] = 1 / ENTRY_LEVEL
        self.layers = integer_layers(weights, steps)
        self._held = [(layer.packed(), layer.scale, layer.bias) for layer in self.layers]
        convolution = native.structure("LsConvolution")
        self._convolutions = (convolution * len(self.layers))(
            *(
                convolution(
                    *(native.address(array) for array in held),
                    layer.inputs,
                    layer.outputs,
                    layer.ratio,
                )
                for held, layer in zip(self._held, self.layers, strict=True)
            )
        )
        names = _order(weights)
        self.blocks = (
            sum(name.startswith("coarse") for name in names) // 2,
            sum(name.startswith("middle") for name in names) // 2,
        )
        self.channels = self.layers[0].inputs // 4
        self._widths = (*(layer.outputs for layer in self.layers[:3]), *self.blocks)
        self._free: dict[tuple[int, int], queue.LifoQueue[I16]] = {}

    def __call__(self, planes: F32) -> F32:
        """planes f32 [12, rows, columns], 0 to 1, to gates, f32 [3, rows, columns].

        Raises: UsageError for another shape; 16 divides rows and columns, which are 96 or more.
        """
        require("planes", planes, np.float32, (self.channels, None, None))
        rows, columns = planes.shape[1:]
        if rows % 16 or columns % 16 or columns < 96:
            raise UsageError(
                f"crop of {columns}x{rows}; expected multiples of 16, 96 px wide or more"
            )
        planes = np.ascontiguousarray(planes)
        sizes = native.structure("LsRendererSizes")(rows, columns, self.channels, *self._widths)
        library = native.library()
        # One for each thread that ever computed at the same time; borders stay 0 between frames.
        free = self._free.setdefault((rows, columns), queue.LifoQueue())
        try:
            scratch = free.get_nowait()
        except queue.Empty:
            scratch = native.zeros(library.ls_renderer_scratch(sizes), np.int16)
        gates = native.empty((3, rows, columns), np.float32)
        library.ls_renderer_run(self._convolutions, sizes, ENTRY_LEVEL, planes, scratch, gates)
        free.put(scratch)
        return gates
