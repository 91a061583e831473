"""The stage on a device, as far as the CPU can tell: graphs, engines, and what a card would run."""

# ruff: noqa: E402  # torch first, or skip
from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")

from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.networks.registry import load_stage
from lipstream.engine.networks.signatures import RENDERER_OUTPUT
from lipstream.engine.networks.stage_arena import Arena
from lipstream.engine.networks.stage_cpu import CpuStage
from lipstream.engine.networks.stage_device import DeviceStage
from lipstream.engine.networks.stage_kernels import KernelBody
from lipstream.engine.networks.stage_torch import TorchBody
from lipstream.engine.types import F32
from lipstream.kernels.cuda import loader
from tests.engine.networks.stage_rows import (
    BODIES,
    SHAPE,
    Conversation,
    PixelNetwork,
    compare,
    refined,
)
from tests.engine.networks.test_tensorrt import CURRENT, Context, Engine, on_this_machine
from tests.kernels.test_gpu import Driver, Function, gates_of


class Cuda:
    """As much of torch.cuda as the stage uses. While it captures, nothing is computed."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.log, self.capturing = fails, list[str](), list[Any]()

    def graph_pool_handle(self) -> tuple[int, int]:
        return (0, 1)

    def stream(self, stream: Any) -> Any:
        return stream

    def CUDAGraph(self) -> Any:  # noqa: N802
        graph = SimpleNamespace(work=None)
        graph.replay = lambda: (self.log.append("replay"), graph.work())
        return graph

    @contextmanager
    def graph(self, graph: Any, **settings: Any) -> Iterator[None]:
        self.log.append("capture")
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.capturing.append(graph)
        yield
        self.capturing.pop()

    def body(self, arena: Arena) -> Any:
        """A body whose steps are kept while the stream captures."""

        def enqueue(network: Any) -> None:
            if self.capturing:
                self.capturing[-1].work = partial(own.enqueue, network)
            else:
                self.log.append("eager")
                own.enqueue(network)

        own = TorchBody(arena)
        return SimpleNamespace(prepare=own.prepare, enqueue=enqueue)


class Stream:
    """Counts how often somebody waits for it."""

    waited = 0

    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...
    def synchronize(self) -> None:
        self.waited += 1


def run_on(cuda: Cuda, counts: Sequence[int], side: int = 30) -> int:
    """Batches of so many rows, which must be as on the CPU; returns how often was waited."""
    network, stream, random = PixelNetwork(), Stream(), np.random.default_rng(4)
    executor = DeviceStage(network, cuda.body, SHAPE, "cpu", cuda, stream)
    twin = CpuStage(network, SHAPE)
    for index, count in enumerate(counts):
        calls = [Conversation(random) for _ in range(count)]
        for call in calls:
            call.size = (side + index, side)
        rows = [call.row() for call in calls]
        for got, wanted in zip(executor.run(rows), twin.run(rows), strict=True):
            compare(got, wanted)
    return stream.waited


def test_a_graph_is_captured_for_each_size_of_batch_at_its_second_use() -> None:
    cuda = Cuda()
    assert run_on(cuda, (1, 1, 1, 3, 4, 3, 1)) == 7
    first = ["eager", "capture", "replay"]
    assert cuda.log == [*first, "replay", *first, "replay", "replay"]


def test_pictures_that_outgrow_their_memory_get_a_graph_of_their_own() -> None:
    cuda = Cuda()
    run_on(cuda, (2,) * 30, side=80)  # 2 * 80 * 103 px at last
    assert cuda.log.count("capture") == 2 and cuda.log.count("eager") == 2
    assert cuda.log.count("replay") == 28


def test_memory_grows_and_never_shrinks() -> None:
    """Large pictures with small priors and small ones with large priors take turns."""
    cuda, random = Cuda(), np.random.default_rng(3)
    executor = DeviceStage(PixelNetwork(), cuda.body, SHAPE, "cpu", cuda, Stream())
    for index in range(8):
        call = Conversation(random)
        call.size = (200, 200) if index % 2 else (20, 20)
        prior = np.zeros((20, 20, 3) if index % 2 else (200, 200, 3), np.uint8)
        refined(executor.run([replace(call.row(), prior=prior)])[0])
    assert cuda.log.count("eager") == 2


def test_without_graphs_everything_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    cuda = Cuda(fails=True)
    with caplog.at_level(logging.WARNING):
        run_on(cuda, (2, 2, 2, 1, 1))
    assert cuda.log == ["eager", "capture", *["eager"] * 4]
    assert caplog.text.count("no CUDA graphs") == 1


def test_a_device_that_fails_is_an_error_of_ours(stage: Any) -> None:
    class Broken(PixelNetwork):
        def on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    executor = stage("torch", Broken())
    with pytest.raises(BackendUnavailable, match="pixels on cpu fails: CUDA error"):
        executor.run([Conversation(np.random.default_rng(0)).row()])


class HalfNetwork(PixelNetwork):
    """Gates in half precision, as an engine may give them."""

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        (gates,) = super().run(inputs).values()
        return {RENDERER_OUTPUT: gates.astype(np.float16).astype(np.float32)}


class GatingContext(Context):
    """Gates of the planes at its addresses."""

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch, channels, *sides = self.shapes["crop"]
        return (batch, channels if name == "crop" else 3, *sides)

    def execute_async_v3(self, stream: int) -> bool:
        shape = self.get_tensor_shape("crop")
        numbers = (ctypes.c_float * int(np.prod(shape))).from_address(self.addresses["crop"])
        gates = gates_of(np.ctypeslib.as_array(numbers).reshape(shape)).astype(np.float16)
        ctypes.memmove(self.addresses["gates"], gates.ctypes.data, gates.nbytes)
        self.engine.streams.append(stream)
        return True


class GatingEngine(Engine):
    def create_execution_context(self) -> Context:
        return GatingContext(self)


@pytest.mark.parametrize("body", BODIES)
def test_an_engine_of_tensorrt_is_the_network_of_a_stage(stage: Any, body: str) -> None:
    engine, random = GatingEngine(), np.random.default_rng(21)
    executor = stage(body, on_this_machine(engine))
    assert (executor.name, executor.precision) == ("tensorrt", "f16")
    for count in (1, 5, 1):
        rows = [Conversation(random).row() for _ in range(count)]
        expected = CpuStage(HalfNetwork(), SHAPE).run(rows)
        for got, wanted in zip(executor.run(rows), expected, strict=True):
            compare(got, wanted)
    assert engine.streams == [CURRENT] * 3


@pytest.mark.parametrize(
    ("backend", "kernels", "body"),
    [
        ("torch", True, TorchBody),
        ("cuda", True, KernelBody),
        ("tensorrt", True, KernelBody),
        ("tensorrt", False, TorchBody),
    ],
)
def test_what_runs_the_steps_round_a_network_on_a_card(
    monkeypatch: pytest.MonkeyPatch, backend: str, kernels: bool, body: Any
) -> None:
    cuda_with(monkeypatch, kernels)
    made = load_stage(on_a_card(backend), SHAPE)
    assert isinstance(made, DeviceStage)
    assert getattr(made._make_body, "func", made._make_body) is body
    assert made._stream == (("external", 5) if body is KernelBody else "stream of torch")


def test_our_kernels_are_what_the_backend_cuda_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda_with(monkeypatch, kernels=False)
    with pytest.raises(BackendUnavailable, match="pycuda does not import"):
        load_stage(on_a_card("cuda"), SHAPE)


def on_a_card(backend: str) -> PixelNetwork:
    network = PixelNetwork()
    network.name, network.device = backend, "a card"
    return network


def cuda_with(monkeypatch: pytest.MonkeyPatch, kernels: bool) -> None:
    """What the stage asks torch and pycuda for when it is made."""

    def load() -> Any:
        if not kernels:
            raise BackendUnavailable("pycuda does not import")
        return SimpleNamespace(stream=lambda: SimpleNamespace(handle=5))

    monkeypatch.setattr(loader, "load", load)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: "stream of torch")
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle: ("external", handle))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))


def test_a_launch_that_the_driver_refuses_is_an_error_of_ours(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, rows = stage("kernels"), [Conversation(np.random.default_rng(0)).row()]
    refined(executor.run(rows)[0])

    def refuses(function: Any, *arguments: Any, **settings: Any) -> None:
        raise Driver.Error("an illegal memory access was encountered")

    monkeypatch.setattr(Function, "__call__", refuses)
    with pytest.raises(BackendUnavailable, match="ls_gpu_crop does not start .an illegal memory"):
        executor.run(rows)
