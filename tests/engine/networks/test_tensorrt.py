"""TensorRT without a GPU: plans are built by TensorRT for RTX, and the calls by a stand-in."""

from __future__ import annotations

import ctypes
import logging
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.networks.onnx_precision import model_bytes
from lipstream.engine.networks.registry import shipped
from lipstream.engine.networks.signatures import CROP_SHAPE, crop_shape
from lipstream.engine.networks.tensorrt import TensorRtNetwork, _warm
from lipstream.engine.networks.tensorrt_plan import (
    PROFILES,
    EngineKey,
    PlanCache,
    build_plan,
    library,
)

CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0")
CURRENT = 7  # the handle of torch's current stream
KEY = EngineKey("a", "tensorrt_rtx", "1.7", "GPU", "8.9", "580", "f16", PROFILES)


def rtx() -> Any:
    pytest.importorskip("onnx", reason="onnx is not installed")
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", ["renderer", "encoder"])
def test_a_plan_is_built_for_each_kind_of_gpu(name: str, capability: str) -> None:
    plan = build_plan(rtx(), shipped(name).onnx, "f16", capability=capability)
    weights = {"renderer": 470_000, "encoder": 5_100_000}[name]
    assert len(plan) > weights


def test_f32_is_twice_as_large_and_refused_where_a_gpu_has_no_such_products() -> None:
    trt, onnx = rtx(), shipped("renderer").onnx
    halves = len(build_plan(trt, onnx, "bf16", capability="8.9"))
    assert len(build_plan(trt, onnx, "f32", capability="8.9")) > 1.3 * halves
    with pytest.raises(BackendUnavailable, match="FP32 GEMM is not supported"):
        build_plan(trt, shipped("encoder").onnx, "f32", capability="7.5")
    with pytest.raises(BackendUnavailable, match="builds nothing for capability 9.0"):
        build_plan(trt, onnx, "f32", capability="9.0")


def test_what_the_library_says_is_in_the_error(tmp_path: Path) -> None:
    trt = rtx()
    import onnx

    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("NotAnOperator", ["crop"], ["gates"])],
        "wrong",
        [onnx.helper.make_tensor_value_info("crop", onnx.TensorProto.FLOAT, ["batch", 4])],
        [onnx.helper.make_tensor_value_info("gates", onnx.TensorProto.FLOAT, ["batch", 4])],
    )
    path = tmp_path / "wrong.onnx"
    onnx.save(onnx.helper.make_model(graph), str(path))
    with pytest.raises(BackendUnavailable, match="NotAnOperator"):
        build_plan(trt, path, "f32")


@pytest.mark.parametrize("precision", ["f32", "f16", "bf16"])
def test_a_model_in_half_precision_answers_as_the_model_does(precision: str) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    from lipstream.engine.networks import openvino

    core = openvino.library().Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    crop = np.random.default_rng(0).random((1, 12, *CROP_SHAPE), np.float32)
    path = shipped("renderer").onnx
    (expected,) = core.compile_model(core.read_model(path), "CPU", exact)(crop).values()
    model = core.read_model(model_bytes(path, precision))
    (got,) = core.compile_model(model, "CPU", exact)(crop).values()
    assert got.dtype == np.float32 and got.shape == expected.shape
    # Gates are fractions: a level of 255 is 0.004.
    assert np.abs(got - expected).mean() < {"f32": 1e-5, "f16": 5e-4, "bf16": 5e-3}[precision]


def test_weights_in_int8_become_what_they_stand_for() -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    made = onnx.load_from_string(model_bytes(shipped("encoder").onnx, "f16"))
    kinds = {weight.data_type for weight in made.graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}


def test_a_plan_is_kept_under_everything_it_depends_on(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "plans")
    assert cache.read(KEY) is None
    cache.write(KEY, b"plan")
    assert cache.read(KEY) == b"plan"
    for other in (replace(KEY, driver="581"), replace(KEY, precision="f32")):
        assert cache.read(other) is None
    cache.write(KEY, b"new plan")
    cache.write(KEY, b"kernels", ".kernels")
    assert cache.read(KEY) == b"new plan" and cache.companion(KEY, ".kernels") == b"kernels"
    assert len(list(cache.folder.iterdir())) == 2


def test_plans_used_longest_ago_are_dropped(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    keys = [replace(KEY, driver=str(index)) for index in range(18)]
    for index, key in enumerate(keys):
        cache.write(key, b"plan")
        cache.write(key, b"kernels", ".kernels")
        os.utime(tmp_path / key.file_name(), (index, index))
    cache.read(keys[2])
    cache.write(KEY, b"plan")
    assert cache.read(keys[2]) and cache.read(keys[17]) and cache.read(KEY)
    assert cache.read(keys[0]) is None and cache.companion(keys[0], ".kernels") is None
    assert len(list(tmp_path.glob("*.plan"))) == 16


def test_a_folder_that_cannot_be_written_costs_no_engine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        PlanCache(tmp_path / "file" / "plans").write(KEY, b"plan")
    assert "could not be kept" in caplog.text
    full = PlanCache(tmp_path / "plans")
    (full.folder / KEY.file_name()).mkdir(parents=True)  # the rename fails
    full.write(KEY, b"plan")
    assert [path.name for path in full.folder.iterdir()] == [KEY.file_name()]


def test_without_tensorrt_the_message_names_what_to_install() -> None:
    try:
        library()
    except BackendUnavailable as error:
        assert "pip install" in str(error)
    else:
        from lipstream.engine.networks.tensorrt import load

        with pytest.raises(BackendUnavailable, match="GPU|torch"):
            load(shipped("renderer"))
        with pytest.raises(BackendUnavailable, match="not 'int8'"):
            load(shipped("renderer"), "int8")


class Context:
    """Doubles its input, as f16, in the memory whose addresses it is given."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.profile = engine, -1
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.shaped: list[tuple[int, ...]] = []
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = PROFILES[self.profile]
        if not least <= shape[0] <= most or shape[-1] > 400:
            return False
        self.shapes[name] = shape
        self.shaped.append(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes["crop"]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.engine.runs.append((self.profile, self.shapes["crop"]))
        self.engine.streams.append(stream)
        if self.engine.fails:
            return False
        size = int(np.prod(self.shapes["crop"]))
        given = np.ctypeslib.as_array((ctypes.c_float * size).from_address(self.addresses["crop"]))
        made = (given * 2).astype(np.float16)
        ctypes.memmove(self.addresses["gates"], made.ctypes.data, made.nbytes)
        return True


class Engine:
    num_io_tensors = 2

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.streams: list[int] = []
        self.contexts: list[Context] = []
        self.fails = False

    def get_tensor_name(self, index: int) -> str:
        return ("crop", "gates")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "crop" else "out"

    def get_tensor_dtype(self, name: str) -> str:
        return "f32" if name == "crop" else "f16"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(rows, 12, *CROP_SHAPE) for rows in PROFILES[profile]]

    def create_execution_context(self) -> Context:
        self.contexts.append(Context(self))
        return self.contexts[-1]


TRT = SimpleNamespace(
    TensorIOMode=SimpleNamespace(INPUT="in"),
    DataType=SimpleNamespace(FLOAT="f32", HALF="f16", BF16="bf16"),
    DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
)


def on_this_machine(engine: Engine) -> TensorRtNetwork:
    """The network with torch's memory and a stream that does nothing, on the CPU."""
    torch = pytest.importorskip("torch", reason="torch is not installed")

    class Stream:
        cuda_stream = 0

        def __enter__(self) -> None: ...
        def __exit__(self, *error: object) -> None: ...
        def synchronize(self) -> None: ...

    current = SimpleNamespace(cuda_stream=CURRENT)
    cuda = SimpleNamespace(
        Stream=Stream, stream=lambda stream: stream, current_stream=lambda: current
    )
    names = ("empty", "float16", "float32", "bfloat16", "from_numpy")
    stub = SimpleNamespace(cuda=cuda, **{name: getattr(torch, name) for name in names})
    return TensorRtNetwork(TRT, engine, "f16", stub, "cpu")


def test_rows_take_the_profile_that_has_room_and_outputs_their_own_type() -> None:
    engine = Engine()
    network = on_this_machine(engine)
    rng = np.random.default_rng(1)
    for rows, px, profile in ((1, 256, 0), (2, 256, 1), (1, 256, 0), (64, 256, 1), (3, 512, 1)):
        crop = rng.random((rows, 12, *crop_shape(px)), np.float32)
        gates = network.run({"crop": crop})["gates"]
        assert engine.runs[-1] == (profile, crop.shape)
        assert gates.dtype == np.float32 and np.array_equal(gates, (crop * 2).astype(np.float16))
    again = network.run(network.zeros(1))["gates"]
    assert not again.any() and gates.any(), "outputs are the caller's to keep"


def test_tensors_on_the_device_stay_there_and_run_in_the_stream_of_the_caller() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    engine = Engine()
    network = on_this_machine(engine)
    gates = network.on_device({"crop": torch.ones((2, 12, 160, 192))})["gates"]
    assert gates.dtype == torch.float32 and bool((gates == 2).all())
    assert engine.streams == [CURRENT]


def test_each_number_of_rows_on_the_device_has_a_context_that_nobody_reshapes() -> None:
    """A CUDA graph is valid while the context that it was captured from stays as it was."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    engine = Engine()
    network = on_this_machine(engine)
    for rows in (1, 2, 4, 2, 1, 4):
        network.on_device({"crop": torch.ones((rows, 12, 160, 192))})
    network.run(network.zeros(3))  # with a context of its own
    shapes = [context.shaped for context in engine.contexts]
    assert [set(each) for each in shapes[:3]] == [{(n, 12, 160, 192)} for n in (1, 2, 4)]
    assert len(shapes) == 4
    with pytest.raises(UsageError, match="65 rows"):
        network.on_device({"crop": torch.ones((65, 12, 160, 192))})


class Rtx(Engine):
    """An engine that compiles a kernel for each shape that it meets, unless it was given it."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: set[int] = set()
        self.compiled: list[int] = []

    def create_runtime_config(self) -> Any:
        cache = SimpleNamespace(
            serialize=lambda: bytes(sorted(self.kernels)),
            deserialize=lambda kept: self.kernels.update(kept) or True,
        )
        self.config = SimpleNamespace(
            create_runtime_cache=lambda: cache,
            get_runtime_cache=lambda: cache,
            set_runtime_cache=lambda given: given is cache,
        )
        return self.config

    def create_execution_context(self, config: Any = None) -> Context:
        assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
        engine = self

        class Compiling(Context):
            def execute_async_v3(self, stream: int) -> bool:
                rows = self.shapes["crop"][0]
                if rows not in engine.kernels:
                    engine.kernels.add(rows)
                    engine.compiled.append(rows)
                return super().execute_async_v3(stream)

        self.contexts.append(Compiling(self))
        return self.contexts[-1]


def test_kernels_that_rtx_compiles_are_made_before_a_call_and_kept(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    first, second = Rtx(), Rtx()
    _warm(on_this_machine(first), cache, KEY)
    assert first.compiled == [1, 2, 4, 8, 16, 32, 64]
    assert cache.companion(KEY, ".kernels") == bytes(first.compiled)
    network = on_this_machine(second)
    _warm(network, cache, KEY)
    assert not second.compiled and len(second.runs) == 1
    network.run(network.zeros(16))
    assert not second.compiled


def test_what_the_engine_cannot_do_is_an_error_of_ours() -> None:
    engine = Engine()
    network = on_this_machine(engine)
    with pytest.raises(UsageError, match="65 rows"):
        network.run(network.zeros(65))
    with pytest.raises(UsageError, match="does not take"):
        network.run({"crop": np.zeros((1, 12, 512, 512), np.float32)})
    engine.fails = True
    with pytest.raises(BackendUnavailable, match="failed to run"):
        network.run(network.zeros(1))
