"""Backends: one protocol, the same numbers, and the reason where one is missing."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.networks import encoder_native, registry
from lipstream.engine.networks.base import Model, Network
from lipstream.engine.networks.registry import select_backend, shipped
from lipstream.engine.types import F32

# Largest difference from the reference after 200 recurrent steps, in inter-ocular distances for
# the expression. Measured 3e-7 (openvino, f32) on AVX-512; the bound leaves room for other CPUs.
TOLERANCE = 1e-4


def inputs(batch: int = 1, seed: int = 0) -> dict[str, F32]:
    rng = np.random.default_rng(seed)
    widths = [int(width) for width in shipped("encoder").metadata()["state_widths"].split(",")]
    named = {"features": rng.standard_normal((batch, 128)).astype(np.float32)}
    for index, width in enumerate(widths):
        named[f"h{index + 1}"] = np.zeros((batch, width), np.float32)
    return named


def unroll(network: Network, steps: int) -> dict[str, F32]:
    named = inputs()
    for step in range(steps):
        out = network.run({**named, "features": inputs(seed=step)["features"]})
        named = {"features": named["features"], **{f"h{i}": out[f"h{i}_next"] for i in (1, 2, 3)}}
    return out


@pytest.mark.parametrize("name", ["native", "openvino", "torch", "auto"])
def test_equal_to_the_reference(name: str) -> None:
    if name == "torch":
        pytest.importorskip("torch")
    reference = unroll(select_backend("numpy", shipped("encoder")), 200)
    result = unroll(select_backend(name, shipped("encoder")), 200)
    assert result.keys() == reference.keys()
    for key in reference:
        assert np.abs(result[key] - reference[key]).max() < TOLERANCE, key


@pytest.mark.parametrize("name", ["native", "openvino", "numpy"])
def test_rows_of_a_batch_are_independent(name: str) -> None:
    network = select_backend(name, shipped("encoder"))
    both = network.run(inputs(batch=3))
    for row in range(3):
        alone = network.run({key: value[row : row + 1] for key, value in inputs(batch=3).items()})
        for key, value in alone.items():
            np.testing.assert_allclose(both[key][row : row + 1], value, atol=1e-5)


def test_outputs_belong_to_the_caller() -> None:
    network = select_backend("openvino", shipped("encoder"))
    first = network.run(inputs(seed=1))
    kept = {key: value.copy() for key, value in first.items()}
    network.run(inputs(seed=2))
    for key, value in kept.items():
        np.testing.assert_array_equal(first[key], value)


def test_threads_share_one_network() -> None:
    network = select_backend("openvino", shipped("encoder"))
    alone = network.run(inputs(seed=3))["expression"]
    results: list[F32] = []

    def work() -> None:
        for _ in range(30):
            results.append(network.run(inputs(seed=3))["expression"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 120
    assert all(np.array_equal(result, alone) for result in results)


def test_each_says_what_it_is() -> None:
    network = select_backend("openvino", shipped("encoder"))
    assert (network.name, network.device, network.precision) == ("openvino", "CPU", "f32")


def test_auto_logs_what_it_chose_and_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, registry.__name__):
        network = select_backend("auto", shipped("encoder"))
    (record,) = [r for r in caplog.records if r.message == "backend chosen"]
    assert record.__dict__["backend"] == network.name
    assert record.__dict__["reason"]


def test_auto_falls_back_to_numpy_and_a_name_does_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(encoder_native, "use_native", lambda: False)
    with caplog.at_level(logging.INFO, registry.__name__):
        assert select_backend("auto", shipped("encoder")).name == "numpy"
    assert "compiled kernels" in caplog.records[-1].__dict__["reason"]
    assert "pip install openvino" in caplog.records[-1].__dict__["reason"]
    with pytest.raises(BackendUnavailable, match="pip install openvino"):
        select_backend("openvino", shipped("encoder"))


def test_an_unknown_name_is_a_usage_error_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="auto, openvino, native, numpy, torch"):
        select_backend("cuda", shipped("encoder"))


def test_a_precision_that_is_not_there() -> None:
    with pytest.raises(BackendUnavailable, match="f64"):
        select_backend("openvino", shipped("encoder"), precision="f64")
    with pytest.raises(BackendUnavailable, match="bf16"):
        select_backend("numpy", shipped("encoder"), precision="bf16")


def test_a_model_of_another_architecture_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    save_file({"x": np.zeros(1, np.float32)}, str(path), metadata={"architecture": "renderer"})
    onnx = tmp_path / "other.onnx"
    shutil.copy(shipped("encoder").onnx, onnx)
    with pytest.raises(BackendUnavailable, match="architecture 'renderer'"):
        select_backend("numpy", Model(onnx, path))


def test_the_weights_fit_the_budget() -> None:
    model = shipped("encoder")
    total = model.onnx.stat().st_size + model.safetensors.stat().st_size
    assert total < 10_000_000


def test_tensorrt_names_what_is_missing() -> None:
    try:
        select_backend("tensorrt", shipped("encoder"))
    except BackendUnavailable as error:
        assert "pip install" in str(error) or "use openvino" in str(error)
    else:
        pytest.skip("this machine has TensorRT and a GPU")


def test_tensorrt_builds_the_encoder_without_a_gpu() -> None:
    from lipstream.engine.networks import tensorrt

    try:
        trt = tensorrt.library()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    plan = tensorrt.build_plan(trt, shipped("encoder").onnx.read_bytes(), (1, 1, 16))
    assert len(plan) > 100_000


def test_a_plan_is_kept_under_everything_it_depends_on(tmp_path: Path) -> None:
    from dataclasses import replace

    from lipstream.engine.networks.tensorrt import EngineKey, PlanCache

    key = EngineKey("a", "tensorrt_rtx", "1.7", "GPU", "8.9", "580", (1, 1, 16), "")
    cache = PlanCache(tmp_path / "plans")
    assert cache.read(key) is None
    cache.write(key, b"plan")
    assert cache.read(key) == b"plan"
    assert cache.read(replace(key, driver="581")) is None
    cache.write(key, b"new plan")
    assert cache.read(key) == b"new plan"
    assert [path.name for path in cache.folder.iterdir()] == [key.file_name()]
