"""8-bit convolutions for CPUs without bf16, derived from the f32 graph when it is loaded.

Weights are quantised per output channel, activations per tensor, over the range that they had on
real examples when the model was exported (`ranges`, in its metadata). So no second file ships.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from lipstream.engine.errors import BackendUnavailable

Ranges = Mapping[str, tuple[float, float]]  # name of a convolution's weights: least, most input

_LEVELS: Final = 256
# AVX2 multiplies u8 by s8 in pairs and adds the two in 16 bits; 7 bits of weight cannot overflow.
_WEIGHT_STEPS: Final = 63


def quantise(model: Any, ranges: Ranges) -> None:
    """Mark every convolution of an OpenVINO model for 8 bits, in place.

    Raises: BackendUnavailable when a convolution has no range.
    """
    from openvino import opset13 as ops

    marked: dict[tuple[str, int], Any] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        weights, activations = node.input_value(1), node.input_value(0)
        name = weights.get_node().get_friendly_name()
        if name not in ranges:
            raise BackendUnavailable(f"no range of {name} for int8; use precision f32")
        source = activations.get_node().get_friendly_name(), activations.get_index()
        if source not in marked:
            low, high = _aligned_to_zero(*ranges[name])
            quantised = ops.fake_quantize(activations, low, high, low, high, _LEVELS)
            marked[source] = quantised.output(0)
        node.input(0).replace_source_output(marked[source])
        values = weights.get_node().get_data().astype(np.float32)
        largest = np.maximum(np.abs(values).max((1, 2, 3), keepdims=True), np.float32(1e-8))
        bound = largest * np.float32(127 / _WEIGHT_STEPS)
        rounded = ops.fake_quantize(weights, -bound, bound, -bound, bound, _LEVELS - 1)
        node.input(1).replace_source_output(rounded.output(0))
    model.validate_nodes_and_infer_types()


def _aligned_to_zero(low: float, high: float) -> tuple[np.float32, np.float32]:
    """The range, moved by less than a step so that 0, the padding, is one of its levels."""
    low, high = min(low, 0.0), max(high, 1e-6)
    step = (high - low) / (_LEVELS - 1)
    zero = round(-low / step)
    return np.float32(-zero * step), np.float32((_LEVELS - 1 - zero) * step)
