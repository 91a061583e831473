"""The encoder's ONNX graph, whose weights lie in the safetensors file beside it.

The graph is written node by node from plain operations, so that no exporter is needed and every
runtime computes the same. Integers and halves become f32 once, when a runtime folds constants.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lipstream.engine.networks.encoder_numpy import NORM_EPSILON
from lipstream.engine.networks.signatures import (
    BANDS,
    BLOCKS,
    ENCODER_INPUTS,
    HEADS,
    TOKEN_WIDTH,
    TOKENS_AFTER,
    TOKENS_KEPT,
    encoder_shapes,
)

if TYPE_CHECKING:
    import onnx

_OPSET: Final = 17
_IR_VERSION: Final = 9
_SEEN: Final = TOKENS_KEPT + 1  # tokens that one attends to
_PER_HEAD: Final = TOKEN_WIDTH // HEADS


class _Tensors:
    """The tensors of a safetensors file as external data of an ONNX model."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as source:
            (length,) = struct.unpack("<Q", source.read(8))
            self._header: dict[str, Any] = json.loads(source.read(length))
        self._first_byte, self._location = 8 + length, path.name

    def __contains__(self, name: str) -> bool:
        return name in self._header

    def shape(self, name: str) -> list[int]:
        return self._header[name]["shape"]

    def is_f32(self, name: str) -> bool:
        return self._header[name]["dtype"] == "F32"

    def initializer(self, name: str) -> onnx.TensorProto:
        from onnx import TensorProto

        entry = self._header[name]
        first, end = entry["data_offsets"]
        types = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16, "I8": TensorProto.INT8}
        tensor = TensorProto(
            name=name,
            data_type=types[entry["dtype"]],
            dims=entry["shape"],
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (
            ("location", self._location),
            ("offset", self._first_byte + first),
            ("length", end - first),
        ):
            tensor.external_data.add(key=key, value=str(value))
        return tensor


class _Graph:
    """Collects nodes and constants."""

    def __init__(self, tensors: _Tensors) -> None:
        self.tensors = tensors
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._count = 0

    def add(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        from onnx import helper

        self._count += 1
        output = output or f"t{self._count}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def integers(self, *values: int) -> str:
        """A constant i64 [n]."""
        return self._inline("_".join(map(str, ("i", *values))), np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """A constant f32."""
        return self._inline(f"f_{value!r}", np.array(value, np.float32))

    def weight(self, name: str) -> str:
        """A tensor of the file as f32."""
        from onnx import TensorProto

        if name not in self.constants:
            self.constants[name] = self.tensors.initializer(name)
        if self.tensors.is_f32(name):
            return name
        return self.add("Cast", [name], to=TensorProto.FLOAT)

    def linear(self, x: str, name: str, end: str = "") -> str:
        weight = self.weight(f"{name}.weight{end}")
        if f"{name}.scale" in self.tensors:
            scale = self.reshape(self.weight(f"{name}.scale"), -1, 1)
            weight = self.add("Mul", [weight, scale])
        product = self.add("MatMul", [x, self.add("Transpose", [weight], perm=[1, 0])])
        bias = f"{name}.bias{end}"
        return self.add("Add", [product, self.weight(bias)]) if bias in self.tensors else product

    def reshape(self, x: str, *shape: int) -> str:
        return self.add("Reshape", [x, self.integers(*shape)])

    def slice(self, x: str, axis: int, start: int, end: int) -> str:
        bounds = [self.integers(value) for value in (start, end, axis)]
        return self.add("Slice", [x, *bounds])

    def item(self, x: str, axis: int, index: int) -> str:
        """One index of an axis, which goes."""
        return self.add("Squeeze", [self.slice(x, axis, index, index + 1), self.integers(axis)])

    def stack(self, parts: Sequence[str], output: str = "") -> str:
        """Along a new axis behind the batch."""
        rows = [self.add("Unsqueeze", [part, self.integers(1)]) for part in parts]
        return self.add("Concat", rows, output, axis=1)

    def append(self, rows: str, newest: str) -> str:
        """[B, n, width] and [B, width] to [B, n + 1, width]."""
        last = self.add("Unsqueeze", [newest, self.integers(1)])
        return self.add("Concat", [rows, last], axis=1)

    def gelu(self, x: str) -> str:
        share = self.add("Erf", [self.add("Mul", [x, self.scalar(float(np.sqrt(0.5)))])])
        half = self.add("Mul", [x, self.scalar(0.5)])
        return self.add("Mul", [half, self.add("Add", [share, self.scalar(1.0)])])

    def norm(self, x: str, name: str) -> str:
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", [x, scale, bias], axis=-1, epsilon=NORM_EPSILON)

    def gru(self, x: str, h: str, name: str, output: str) -> str:
        width = self.tensors.shape(f"{name}.weight_hh_l0")[1]
        sides = self.linear(x, name, "_ih_l0"), self.linear(h, name, "_hh_l0")
        (ri, rs), (ui, us), (fi, fs) = (
            [self.slice(side, 1, k * width, (k + 1) * width) for side in sides] for k in range(3)
        )
        reset = self.add("Sigmoid", [self.add("Add", [ri, rs])])
        update = self.add("Sigmoid", [self.add("Add", [ui, us])])
        fresh = self.add("Tanh", [self.add("Add", [fi, self.add("Mul", [reset, fs])])])
        kept = self.add("Mul", [update, self.add("Sub", [h, fresh])])
        return self.add("Add", [fresh, kept], output)

    def block(self, index: int, token: str, waiting: str, memory: str) -> tuple[str, str, str]:
        """The newest token in, the one that has waited for it out, and the next states."""
        name = f"blocks.{index}"
        queue = self.append(waiting, token)
        own, normal = self.item(queue, 1, 0), self.norm(token, f"{name}.before")
        keys = self.append(self.item(memory, 1, 0), self.linear(normal, f"{name}.key"))
        values = self.append(self.item(memory, 1, 1), self.linear(normal, f"{name}.value"))
        query = self.linear(self.norm(own, f"{name}.before"), f"{name}.query")
        of_head = [
            self.add("Transpose", [self.reshape(x, -1, _SEEN, HEADS, _PER_HEAD)], perm=order)
            for x, order in ((keys, [0, 2, 3, 1]), (values, [0, 2, 1, 3]))
        ]
        scores = self.add("MatMul", [self.reshape(query, -1, HEADS, 1, _PER_HEAD), of_head[0]])
        scores = self.add("Mul", [scores, self.scalar(_PER_HEAD**-0.5)])
        offsets = self.slice(self.item(self.weight("offsets"), 0, index), 1, 0, _SEEN)
        scores = self.add("Add", [scores, self.reshape(offsets, HEADS, 1, _SEEN)])
        attended = self.add("MatMul", [self.add("Softmax", [scores], axis=-1), of_head[1]])
        change = self.linear(self.reshape(attended, -1, TOKEN_WIDTH), f"{name}.out")
        middle = self.add("Add", [own, change])
        raised = self.gelu(self.linear(self.norm(middle, f"{name}.middle"), f"{name}.up"))
        out = self.add("Add", [middle, self.linear(raised, f"{name}.down")])
        kept = self.stack([self.slice(rows, 1, 1, _SEEN) for rows in (keys, values)])
        return out, self.slice(queue, 1, 1, TOKENS_AFTER + 1), kept

    def _inline(self, name: str, value: np.ndarray[tuple[int, ...], np.dtype[Any]]) -> str:
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(value, name)
        return name


def encoder_onnx(safetensors: Path) -> onnx.ModelProto:
    """One step of the encoder with a free batch axis.

    The model names the file by its name alone, so it must lie in the same folder.
    """
    from onnx import TensorProto, helper, shape_inference

    tensors = _Tensors(safetensors)
    graph = _Graph(tensors)
    look_aheads = tensors.shape("look_aheads_ms")[0]
    phones, coefficients = (
        tensors.shape(f"{name}.bias")[0] // look_aheads for name in ("phone", "head")
    )
    frames = graph.add("Concat", ["frames", "features"], axis=1)
    lifted = ["lifted"]
    for first, output in ((0, ""), (BANDS, "lifted_next")):
        three = graph.slice(frames, 1, first, first + 3 * BANDS)
        lifted.append(graph.gelu(graph.linear(three, "conv1")))
        if output:
            graph.add("Identity", [lifted[-1]], output)
    token = graph.gelu(graph.linear(graph.add("Concat", lifted, axis=1), "conv2"))
    token = graph.add("Add", [token, graph.weight("base")])
    taps, waiting, memory = [graph.linear(token, "tap0")], [], []
    for block in range(BLOCKS):
        token, late, kept = graph.block(
            block, token, graph.item("waiting", 1, block), graph.item("memory", 1, block)
        )
        taps.append(graph.linear(token, f"tap{block + 1}"))
        waiting.append(late)
        memory.append(kept)
    graph.stack(waiting, "waiting_next")
    graph.stack(memory, "memory_next")
    graph.add("Identity", ["features"], "frames_next")
    code = graph.add("Concat", taps, axis=1)
    hidden = graph.gru(code, "hidden", "head_gru", "hidden_next")
    logits = graph.reshape(graph.linear(hidden, "phone"), -1, look_aheads, phones)
    silence = graph.item(graph.add("Softmax", [logits], axis=-1), 2, 0)
    graph.add("Sub", [graph.scalar(1.0), silence], "speech")
    shape = graph.integers(-1, look_aheads, coefficients)
    graph.add("Reshape", [graph.linear(hidden, "head"), shape], "expression")

    def value(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    states = encoder_shapes(tensors.shape("head_gru.weight_hh_l0")[1])
    outputs = [
        value("expression", (look_aheads, coefficients)),
        value("speech", (look_aheads,)),
        *(value(f"{name}_next", size) for name, size in states.items() if name != "features"),
    ]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "lipstream-encoder",
            [value(name, states[name]) for name in ENCODER_INPUTS],
            outputs,
            list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model
