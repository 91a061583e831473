"""An ONNX model of f32 as one that computes in half precision, with f32 at its inputs and outputs.

TensorRT 11 builds strongly typed networks only: their precision is that of the ONNX graph, so the
graph itself is rewritten. Needs the package `onnx`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.extras import pip_install

# Our names of precisions, and the field of TensorProto that names each.
HALF_TYPES: Final = {"f16": "FLOAT16", "bf16": "BFLOAT16"}
_FOLDED: Final[dict[str, Callable[..., Any]]] = {"Reshape": np.reshape, "Mul": np.multiply}


def model_bytes(path: Path, precision: str) -> bytes:
    """The model at `path`, weights included, computing in "f32", "f16" or "bf16".

    Raises: BackendUnavailable without the package `onnx`.
    """
    if importlib.util.find_spec("onnx") is None:
        raise BackendUnavailable(
            f"building a TensorRT engine rewrites the model by onnx; {pip_install('gpu')}"
        )
    import onnx

    model = onnx.load(str(path))
    _fold_weights(model)
    if precision != "f32":
        _compute_in(model, getattr(onnx.TensorProto, HALF_TYPES[precision]))
    return bytes(model.SerializeToString())


def _fold_weights(model: Any) -> None:
    """Weights stored as int8 and a scale become what they stand for, f32.

    TensorRT takes an int8 constant for a quantised one and refuses it anywhere but before a
    DequantizeLinear.
    """
    import onnx

    graph = model.graph
    values = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer}
    made, kept = {}, []
    for node in graph.node:
        known = [values[name] for name in node.input if name in values]
        if len(known) == len(node.input) and node.op_type == "Cast":
            kind = onnx.helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
            result = known[0].astype(kind)
        elif len(known) == len(node.input) and node.op_type in _FOLDED:
            result = _FOLDED[node.op_type](*known)
        else:
            kept.append(node)
            continue
        values[node.output[0]] = made[node.output[0]] = result
    used = {name for node in kept for name in node.input}
    weights = [w for w in graph.initializer if w.name in used]
    weights.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in made.items() if name in used
    )
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)


def _compute_in(model: Any, kind: int) -> None:
    """Make f32 of every weight, constant and cast `kind`, with casts behind inputs and outputs."""
    import onnx

    graph, f32 = model.graph, onnx.TensorProto.FLOAT
    for weight in graph.initializer:
        if weight.data_type == f32:
            weight.CopyFrom(_cast(weight, kind))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == f32:
                attribute.i = kind
            elif attribute.HasField("t") and attribute.t.data_type == f32:
                attribute.t.CopyFrom(_cast(attribute.t, kind))
    inside = {tensor.name: f"{tensor.name}.inside" for tensor in (*graph.input, *graph.output)}
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = inside.get(name, name)
    nodes = [
        onnx.helper.make_node("Cast", [tensor.name], [inside[tensor.name]], to=kind)
        for tensor in graph.input
    ]
    nodes.extend(graph.node)
    nodes.extend(
        onnx.helper.make_node("Cast", [inside[tensor.name]], [tensor.name], to=f32)
        for tensor in graph.output
    )
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)


def _cast(tensor: Any, kind: int) -> Any:
    import onnx

    values = onnx.numpy_helper.to_array(tensor)
    kept = values.astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    return onnx.numpy_helper.from_array(kept, tensor.name)
