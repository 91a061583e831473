"""Writes a trained encoder as safetensors and as ONNX, weights stored in f16.

The ONNX graph is written node by node from plain matrix products, so that no exporter is needed and
every runtime computes the same. The stored f16 is cast to f32 once, when a runtime folds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lipstream.engine.networks.signatures import ENCODER_INPUTS as INPUTS
from lipstream.engine.networks.signatures import ENCODER_OUTPUTS as OUTPUTS
from lipstream.engine.networks.signatures import LOOK_AHEADS_MS
from lipstream.engine.types import F32

if TYPE_CHECKING:
    import onnx

_OPSET: Final = 17
_IR_VERSION: Final = 9
_GRUS: Final = ("gru1", "gru2", "head_gru")


def save_encoder(weights: Mapping[str, F32], folder: Path, notes: Mapping[str, str]) -> None:
    """Write encoder.safetensors and encoder.onnx into `folder`.

    `weights` are EncoderNet's parameters by name; `notes` go into the safetensors header.
    """
    from safetensors.numpy import save_file

    stored = {name: np.ascontiguousarray(w.astype(np.float16)) for name, w in weights.items()}
    tensors: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = dict(stored)
    tensors["look_aheads_ms"] = np.array(LOOK_AHEADS_MS, np.int32)
    widths = [stored[f"{name}.weight_hh_l0"].shape[1] for name in _GRUS]
    metadata = {
        "architecture": "lipstream-encoder",
        "state_widths": ",".join(map(str, widths)),
        "coefficients": str(stored["head.bias"].shape[0] // len(LOOK_AHEADS_MS)),
        "phones": str(stored["phone.bias"].shape[0] // len(LOOK_AHEADS_MS)),
        **notes,
    }
    save_file(tensors, str(folder / "encoder.safetensors"), metadata=metadata)
    (folder / "encoder.safetensors").chmod(0o644)
    (folder / "encoder.onnx").write_bytes(encoder_onnx(weights).SerializeToString())


class _Graph:
    """Collects nodes and constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._count = 0

    def constant(self, value: np.ndarray[tuple[int, ...], np.dtype[np.generic]], cast: bool) -> str:
        from onnx import TensorProto, numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return self.add("Cast", [name], to=TensorProto.FLOAT) if cast else name

    def add(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        from onnx import helper

        self._count += 1
        output = output or f"t{self._count}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def linear(self, x: str, weight: F32, bias: F32) -> str:
        product = self.add("MatMul", [x, self.constant(weight.T.astype(np.float16), True)])
        return self.add("Add", [product, self.constant(bias.astype(np.float16), True)])

    def slice(self, x: str, start: int, end: int) -> str:
        ends = [self.constant(np.array([v], np.int64), False) for v in (start, end, 1)]
        return self.add("Slice", [x, *ends])

    def gru(self, x: str, h: str, weights: Mapping[str, F32], name: str, output: str) -> str:
        width = weights[f"{name}.weight_hh_l0"].shape[1]
        i = self.linear(x, weights[f"{name}.weight_ih_l0"], weights[f"{name}.bias_ih_l0"])
        s = self.linear(h, weights[f"{name}.weight_hh_l0"], weights[f"{name}.bias_hh_l0"])
        parts = [
            (self.slice(i, k * width, (k + 1) * width), self.slice(s, k * width, (k + 1) * width))
            for k in range(3)
        ]
        reset = self.add("Sigmoid", [self.add("Add", list(parts[0]))])
        update = self.add("Sigmoid", [self.add("Add", list(parts[1]))])
        gated = self.add("Mul", [reset, parts[2][1]])
        fresh = self.add("Tanh", [self.add("Add", [parts[2][0], gated])])
        kept = self.add("Mul", [update, self.add("Sub", [h, fresh])])
        return self.add("Add", [fresh, kept], output)


def encoder_onnx(weights: Mapping[str, F32]) -> onnx.ModelProto:
    """One step of EncoderNet as an ONNX model with a free batch axis."""
    from onnx import TensorProto, checker, helper

    graph = _Graph()
    heads = len(LOOK_AHEADS_MS)
    phones = weights["phone.bias"].shape[0] // heads
    coefficients = weights["head.bias"].shape[0] // heads
    lifted = graph.add(
        "Relu", [graph.linear(INPUTS[0], weights["dense.weight"], weights["dense.bias"])]
    )
    h1 = graph.gru(lifted, INPUTS[1], weights, "gru1", OUTPUTS[2])
    h2 = graph.gru(h1, INPUTS[2], weights, "gru2", OUTPUTS[3])
    logits = graph.linear(h2, weights["phone.weight"], weights["phone.bias"])
    per_head = graph.constant(np.array([-1, heads, phones], np.int64), False)
    posterior = graph.add("Softmax", [graph.add("Reshape", [logits, per_head])], axis=-1)
    flat = graph.constant(np.array([-1, heads * phones], np.int64), False)
    code = graph.add("Tanh", [graph.linear(h2, weights["code.weight"], weights["code.bias"])])
    head_input = graph.add("Concat", [graph.add("Reshape", [posterior, flat]), code], axis=1)
    h3 = graph.gru(head_input, INPUTS[3], weights, "head_gru", OUTPUTS[4])
    motion = graph.linear(h3, weights["head.weight"], weights["head.bias"])
    shape = graph.constant(np.array([-1, heads, coefficients], np.int64), False)
    graph.add("Reshape", [motion, shape], OUTPUTS[0])
    bounds = [graph.constant(np.array([v], np.int64), False) for v in (0, 1, 2)]
    silence = graph.add("Slice", [posterior, *bounds])
    last = graph.constant(np.array([-1, heads], np.int64), False)
    silence = graph.add("Reshape", [silence, last])
    one = graph.constant(np.array(1.0, np.float32), False)
    graph.add("Sub", [one, silence], OUTPUTS[1])

    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    w1, w2, w3 = (weights[f"{name}.weight_hh_l0"].shape[1] for name in _GRUS)
    features = weights["dense.weight"].shape[1]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "lipstream-encoder",
            [value(n, w) for n, w in zip(INPUTS, (features, w1, w2, w3), strict=True)],
            [
                value(OUTPUTS[0], heads, coefficients), value(OUTPUTS[1], heads),
                value(OUTPUTS[2], w1), value(OUTPUTS[3], w2), value(OUTPUTS[4], w3),
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )  # fmt: skip
    checker.check_model(model, full_check=True)
    return model


def merge_heads(heads: Sequence[Mapping[str, F32]]) -> dict[str, F32]:
    """One encoder whose head is exactly the mean of the heads of several, otherwise equal ones.

    The recurrent heads lie side by side in one GRU with blocks of zeros between them, and the last
    layer averages. The mean of independently trained heads follows held-out people better than any
    one of them.
    """
    first = heads[0]
    merged = {name: value for name, value in first.items() if not name.startswith(("code", "head"))}
    for part in ("code.weight", "code.bias"):
        merged[part] = np.concatenate([head[part] for head in heads])
    count, code = len(heads), len(first["code.bias"])
    width = first["head_gru.weight_hh_l0"].shape[1]
    shared = first["head_gru.weight_ih_l0"].shape[1] - code
    into = np.zeros((3, count, width, shared + count * code), np.float32)
    across = np.zeros((3, count, width, count, width), np.float32)
    for index, head in enumerate(heads):
        block = head["head_gru.weight_ih_l0"].reshape(3, width, -1)
        into[:, index, :, :shared] = block[..., :shared]
        into[:, index, :, shared + index * code : shared + (index + 1) * code] = block[..., shared:]
        across[:, index, :, index] = head["head_gru.weight_hh_l0"].reshape(3, width, width)
    merged["head_gru.weight_ih_l0"] = into.reshape(3 * count * width, -1)
    merged["head_gru.weight_hh_l0"] = across.reshape(3 * count * width, -1)
    for part in ("head_gru.bias_ih_l0", "head_gru.bias_hh_l0"):
        stacked = np.stack([head[part].reshape(3, width) for head in heads], 1)
        merged[part] = stacked.reshape(-1)
    out = np.concatenate([head["head.weight"] for head in heads], 1)
    merged["head.weight"] = (out / count).astype(np.float32)
    merged["head.bias"] = np.stack([head["head.bias"] for head in heads]).mean(0)
    return {name: value.astype(np.float32) for name, value in merged.items()}


def scale_outputs(weights: Mapping[str, F32], gain: float) -> dict[str, F32]:
    """The same encoder with every expression multiplied by `gain`."""
    scaled = {n: (gain * weights[n]).astype(np.float32) for n in ("head.weight", "head.bias")}
    return {**weights, **scaled}
