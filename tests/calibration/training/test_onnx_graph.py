"""The encoder's ONNX graph: whole, small, and bound to the weights beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from lipstream.engine.networks.base import Model
from lipstream.engine.networks.registry import select_backend
from lipstream.engine.networks.signatures import ENCODER_INPUTS, ENCODER_OUTPUTS
from tests.random_encoder import random_inputs, random_model, random_weights, save_random_encoder

onnx = pytest.importorskip("onnx")


def test_the_graph_is_valid_and_holds_no_weights() -> None:
    model = random_model()
    onnx.checker.check_model(str(model.onnx), full_check=True)
    assert model.onnx.stat().st_size < 50_000
    graph = onnx.load(str(model.onnx), load_external_data=False).graph
    assert tuple(port.name for port in graph.input) == ENCODER_INPUTS
    assert {port.name for port in graph.output} == set(ENCODER_OUTPUTS)
    outside = [t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    largest = max(np.prod(t.dims) for t in graph.initializer if t not in outside)
    assert largest <= 5
    used = {name for name in random_weights() if not name.startswith("file.")}
    assert {tensor.name for tensor in outside} == used - {"look_aheads_ms"}


def test_every_tensor_is_found_where_the_graph_says() -> None:
    from onnx import numpy_helper

    model, weights = random_model(), random_weights()
    graph = onnx.load(str(model.onnx)).graph  # with what lies outside
    for tensor in graph.initializer:
        if tensor.name in weights:
            found = numpy_helper.to_array(tensor)
            assert found.dtype == weights[tensor.name].dtype
            np.testing.assert_array_equal(found, weights[tensor.name])


def test_the_files_may_be_moved_together_and_other_weights_count(tmp_path: Path) -> None:
    moved, other = tmp_path / "moved", tmp_path / "other"
    for folder in (moved, other):
        folder.mkdir()
    model = Model(moved / "encoder.onnx", moved / "encoder.safetensors")
    shutil.copy(random_model().onnx, model.onnx)
    shutil.copy(random_model().safetensors, model.safetensors)
    inputs = random_inputs()
    here, there, changed = (
        select_backend("openvino", one).run(inputs)["expression"]
        for one in (random_model(), model, save_random_encoder(other, seed=1))
    )
    np.testing.assert_array_equal(here, there)
    assert np.abs(here - changed).max() > 0.1
