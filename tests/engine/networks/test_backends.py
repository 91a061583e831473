"""Backends: one protocol, the same numbers, and the reason where one is missing."""

from __future__ import annotations

import functools
import logging
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.networks import encoder_native, registry
from lipstream.engine.networks.base import Model, Network
from lipstream.engine.networks.registry import select_backend, shipped
from lipstream.engine.networks.signatures import ENCODER_OUTPUTS, ENCODER_STATES
from lipstream.engine.types import F32
from tests.random_encoder import random_inputs, random_model

# Largest difference from the reference after 100 steps, over the largest number of the same tensor.
# Measured: 2e-6 (openvino), 1.3e-4 (native, which rounds activations to 16 bits).
TOLERANCE = {"openvino": 1e-4, "torch": 1e-4, "native": 1e-3, "auto": 1e-3}


def needs_package(name: str) -> None:
    """The graph of the random model, which OpenVINO reads, is written by the onnx package."""
    if name in ("openvino", "torch"):
        pytest.importorskip("onnx" if name == "openvino" else "torch")


def unroll(network: Network, steps: int) -> dict[str, F32]:
    named = random_inputs(seed=0)
    for step in range(steps):
        out = network.run({**named, "features": random_inputs(seed=step)["features"]})
        named = {name: out[f"{name}_next"] for name in ENCODER_STATES}
    return out


@functools.cache
def of_the_reference() -> dict[str, F32]:
    return unroll(select_backend("numpy", random_model()), 100)


@pytest.mark.parametrize("name", TOLERANCE)
def test_equal_to_the_reference(name: str) -> None:
    needs_package(name)
    reference = of_the_reference()
    result = unroll(select_backend(name, random_model()), 100)
    assert tuple(result) == ENCODER_OUTPUTS == tuple(reference)
    for key, expected in reference.items():
        assert result[key].shape == expected.shape
        apart = np.abs(result[key] - expected).max() / np.abs(expected).max()
        assert apart < TOLERANCE[name], key


@pytest.mark.parametrize("name", ["native", "openvino", "numpy", "torch"])
def test_rows_of_a_batch_are_independent(name: str) -> None:
    needs_package(name)
    network, inputs = select_backend(name, random_model()), random_inputs(batch=3)
    both = network.run(inputs)
    for row in range(3):
        alone = network.run({key: value[row : row + 1] for key, value in inputs.items()})
        assert alone.keys() == both.keys()
        for key, value in alone.items():
            np.testing.assert_allclose(both[key][row : row + 1], value, rtol=1e-5, atol=1e-5)


def test_outputs_belong_to_the_caller() -> None:
    pytest.importorskip("onnx")
    network = select_backend("openvino", random_model())
    first = network.run(random_inputs(seed=1))
    kept = {key: value.copy() for key, value in first.items()}
    network.run(random_inputs(seed=2))
    for key, value in kept.items():
        np.testing.assert_array_equal(first[key], value)


def test_threads_share_one_network() -> None:
    pytest.importorskip("onnx")
    network = select_backend("openvino", random_model())
    alone = network.run(random_inputs(seed=3))["expression"]
    results: list[F32] = []

    def work() -> None:
        for _ in range(30):
            results.append(network.run(random_inputs(seed=3))["expression"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 120
    assert all(np.array_equal(result, alone) for result in results)


def test_each_says_what_it_is() -> None:
    pytest.importorskip("onnx")
    network = select_backend("openvino", random_model())
    assert (network.name, network.device, network.precision) == ("openvino", "CPU", "f32")


def test_auto_logs_what_it_chose_and_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, registry.__name__):
        network = select_backend("auto", random_model())
    (record,) = [r for r in caplog.records if r.message == "backend chosen"]
    assert record.__dict__["backend"] == network.name
    assert record.__dict__["reason"]


def test_auto_falls_back_to_numpy_and_a_name_does_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(encoder_native, "use_native", lambda: False)
    with caplog.at_level(logging.INFO, registry.__name__):
        assert select_backend("auto", random_model()).name == "numpy"
    assert "compiled kernels" in caplog.records[-1].__dict__["reason"]
    assert "pip install openvino" in caplog.records[-1].__dict__["reason"]
    with pytest.raises(BackendUnavailable, match="pip install openvino"):
        select_backend("openvino", random_model())


def test_an_unknown_name_is_a_usage_error_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="auto, openvino, native, numpy, torch"):
        select_backend("vulkan", random_model())


def test_a_precision_that_is_not_there() -> None:
    with pytest.raises(BackendUnavailable, match="f64"):
        select_backend("openvino", random_model(), precision="f64")
    with pytest.raises(BackendUnavailable, match="bf16"):
        select_backend("numpy", random_model(), precision="bf16")


def test_a_model_of_another_architecture_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    save_file({"x": np.zeros(1, np.float32)}, str(path), metadata={"architecture": "renderer"})
    with pytest.raises(BackendUnavailable, match="architecture 'renderer'"):
        select_backend("numpy", Model(tmp_path / "other.onnx", path))


def test_the_weights_fit_the_budget() -> None:
    model = shipped("encoder")
    total = model.onnx.stat().st_size + model.safetensors.stat().st_size
    assert total < 10_000_000


def test_tensorrt_names_what_is_missing() -> None:
    try:
        select_backend("tensorrt", random_model())
    except BackendUnavailable as error:
        assert "pip install" in str(error) or "use openvino" in str(error)
    else:
        pytest.skip("this machine has TensorRT and a GPU")


@pytest.mark.parametrize(("precision", "apart"), [("f16", 0.02), ("bf16", 0.1)])
def test_torch_in_half_precision_is_near_the_reference(precision: str, apart: float) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    reference = unroll(select_backend("numpy", random_model()), 20)
    network = select_backend("torch", random_model(), precision)
    assert network.precision == precision
    result = unroll(network, 20)
    for key, expected in reference.items():
        assert result[key].dtype == np.float32
        assert np.abs(result[key] - expected).max() < apart * np.abs(expected).max(), key
    with pytest.raises(BackendUnavailable, match="not 'int8'"):
        select_backend("torch", random_model(), "int8")
