"""The renderer's stage in batches: every executor against the CPU's renderer, on the CPU.

torch runs as it would on a device, but eagerly; our CUDA kernels are compiled for the host.
"""

# ruff: noqa: E402  # torch first, or skip
from __future__ import annotations

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

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.networks.registry import load_stage, select_backend, shipped
from lipstream.engine.networks.signatures import RENDERER_INPUT, RENDERER_OUTPUT
from lipstream.engine.networks.stage import MOST_ROWS, Refined, StageExecutor, StageRow, padded_size
from lipstream.engine.networks.stage_arena import Arena
from lipstream.engine.networks.stage_cpu import CpuStage
from lipstream.engine.networks.stage_device import DeviceStage
from lipstream.engine.networks.stage_kernels import KernelBody
from lipstream.engine.networks.stage_torch import TorchBody
from lipstream.engine.types import F32, U8
from lipstream.kernels.cuda import loader
from tests.kernels.test_gpu import (  # noqa: F401  # fixtures
    Driver,
    Function,
    driver,
    gates_of,
    install,
    library,
)

SHAPE = (40, 48)
BODIES = ("torch", "kernels")


class PixelNetwork:
    """Answers each pixel by itself, and is no number where a plane is above 0.99."""

    name, device, precision = "pixels", "cpu", "f32"

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        return {RENDERER_OUTPUT: gates_of(inputs[RENDERER_INPUT])}

    def on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {RENDERER_OUTPUT: torch.from_numpy(gates_of(inputs[RENDERER_INPUT].numpy()))}


class Conversation:
    """Rows of random pictures; the crop of one goes into the next."""

    def __init__(self, random: np.random.Generator, shape: tuple[int, int] = SHAPE) -> None:
        self.random, self.shape = random, shape
        self.size = tuple(int(side) for side in random.integers(12, 110, 2))
        self.previous: U8 | None = None

    def picture(self, rows: int, columns: int) -> U8:
        coarse = self.random.integers(0, 256, (-(-rows // 8), -(-columns // 8), 3))
        near = np.kron(coarse, np.ones((8, 8, 1)))[:rows, :columns]
        return np.clip(near + self.random.integers(-9, 10, near.shape), 0, 255).astype(np.uint8)

    def row(self) -> StageRow:
        random, (height, width) = self.random, self.size
        maps = self.picture(height, width)
        maps[..., 0][random.random((height, width)) < 0.3] = 0
        maps[..., 2][: height // 2] = 0
        prior = self.picture(*random.integers(8, 60, 2)) if random.random() < 0.6 else None
        left, top = (float(value) for value in random.uniform(-20, 20, 2))
        place = (left, top, float(random.uniform(0.3, 2.0)))
        confidence, sharpen = (float(value) for value in random.uniform(0, 1, 2))
        return StageRow(
            self.picture(height, width), maps, prior, self.previous, place, confidence, sharpen
        )


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Any:
    """Makes an executor with one of `BODIES` round a network."""

    def make(body: str, network: Any = None, shape: tuple[int, int] = SHAPE) -> DeviceStage:
        made: Any = TorchBody
        if body == "kernels":
            request.getfixturevalue("driver")
            made = partial(KernelBody, loader.load(), "a stream")
        return DeviceStage(network or PixelNetwork(), poisoned(made), shape)

    return make


def poisoned(body: Any) -> Any:
    """Arenas full of what must not be read: of an earlier batch, or of nobody."""

    def make(arena: Arena) -> Any:
        for tensor in arena.on_device.values():
            tensor.fill_(0xCD)
        return body(arena)

    return make


def refined(found: Refined | UsageError) -> Refined:
    assert isinstance(found, Refined), found
    return found


def compare(got: Refined | UsageError, wanted: Refined | UsageError) -> None:
    got, wanted = refined(got), refined(wanted)
    for ours, theirs in ((got.pixels, wanted.pixels), (got.crop, wanted.crop)):
        assert ours.dtype == np.uint8 and ours.shape == theirs.shape
        apart = np.abs(ours.astype(int) - theirs)
        assert apart.max() <= 1 and apart.mean() < 0.001


def spoiled(random: np.random.Generator, row: StageRow) -> StageRow:
    """A row with one of the faults that there are."""
    small = np.zeros((3, 5, 3), np.uint8)
    nan, inf = float("nan"), float("inf")
    changes: list[dict[str, Any]] = [
        {"place": (nan, 0.0, 1.0)},
        {"place": (0.0, inf, 1.0)},
        {"place": (0.0, 0.0, 0.0)},
        {"place": (0.0, 0.0, -1.0)},
        {"place": (0.0, 0.0, 1e-44)},  # 1 / step is no number of f32
        {"place": (0.0, 1.0)},
        {"confidence": nan},
        {"sharpen": -inf},
        {"conditioning": small},
        {"previous": small},
        {"painted": None},
        {"painted": np.zeros((0, 5, 3), np.uint8)},
        {"prior": np.zeros((4, 0, 3), np.uint8)},
        {"prior": np.zeros((4, 4), np.uint8)},
        {"painted": np.zeros(row.painted.shape, np.float32)},
    ]
    return replace(row, **changes[random.integers(len(changes))])


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("count", [1, 7, 64])
def test_rows_that_start_stop_and_fail_are_as_on_the_cpu(stage: Any, body: str, count: int) -> None:
    random = np.random.default_rng(count)
    executor, twin = stage(body), CpuStage(PixelNetwork(), SHAPE)
    talking: list[Conversation] = []
    for _ in range(3):
        talking = [one for one in talking if random.random() < 0.8]
        talking += [Conversation(random) for _ in range(count - len(talking))]
        rows = [one.row() for one in talking]
        wrong = {index for index in range(count) if count > 1 and random.random() < 0.2}
        sent = [spoiled(random, row) if k in wrong else row for k, row in enumerate(rows)]
        before = [row.painted.copy() for row in rows]
        found, expected = executor.run(sent), twin.run(sent)
        for k, (got, wanted) in enumerate(zip(found, expected, strict=True)):
            assert isinstance(got, UsageError) == isinstance(wanted, UsageError) == (k in wrong)
            if k not in wrong:
                compare(got, wanted)
                talking[k].previous = refined(got).crop
            assert np.array_equal(rows[k].painted, before[k]), "a row is read, and not written"


@pytest.mark.parametrize("body", BODIES)
def test_numbers_at_the_ends_of_their_range_are_as_on_the_cpu(stage: Any, body: str) -> None:
    random = np.random.default_rng(12)
    changes: list[dict[str, Any]] = [
        {"place": (1e30, -1e30, 1.0)},
        {"place": (-3.0, 2.0, 1e-30)},
        {"place": (3.0, 2.0, 3e38)},
        {"place": (-1e9, -1e9, 1e8)},
        {"sharpen": 100.0},
        {"sharpen": -100.0, "prior": None},
        {"confidence": -4.0},
        {"confidence": 7.0},
        {
            "painted": np.zeros((1, 1, 3), np.uint8),
            "conditioning": np.full((1, 1, 3), 255, np.uint8),
        },
        {"prior": np.full((1, 1, 3), 9, np.uint8)},
    ]
    rows = [replace(Conversation(random).row(), **change) for change in changes]
    expected = CpuStage(PixelNetwork(), SHAPE).run(rows)
    for got, wanted in zip(stage(body).run(rows), expected, strict=True):
        compare(got, wanted)


@pytest.mark.parametrize("body", BODIES)
def test_the_shipped_renderer_in_a_batch_is_as_on_the_cpu(stage: Any, body: str) -> None:
    random, shape = np.random.default_rng(3), (160, 192)
    network = select_backend("torch", shipped("renderer"), "f32")
    rows = [Conversation(random, shape).row() for _ in range(3)]
    expected = CpuStage(network, shape).run(rows)
    for got, wanted in zip(stage(body, network, shape).run(rows), expected, strict=True):
        compare(got, wanted)


@pytest.mark.parametrize("body", BODIES)
def test_who_shares_a_batch_changes_no_bit(stage: Any, body: str) -> None:
    """Among others, in another place, beside faults; with the model, which sees whole batches."""
    network = select_backend("torch", shipped("renderer"), "f32")
    random = np.random.default_rng(8)
    executor = stage(body, network)
    own = Conversation(random).row()
    alone = refined(executor.run([own])[0])
    seen = []
    for place in (0, 3, 7):
        others = [Conversation(random).row() for _ in range(8)]
        others[(place + 2) % 8] = spoiled(random, own)
        others[place] = own
        seen.append(refined(executor.run(others)[place]))
    for one in seen:
        assert np.array_equal(one.pixels, seen[0].pixels)
        assert np.array_equal(one.crop, seen[0].crop)
        compare(one, alone)


def test_batches_are_powers_of_two() -> None:
    sizes = {rows: padded_size(rows) for rows in range(1, MOST_ROWS + 1)}
    assert set(sizes.values()) == {1, 2, 4, 8, 16, 32, 64}
    assert all(rows <= size < 2 * rows for rows, size in sizes.items())
    for rows in (0, 65):
        with pytest.raises(UsageError, match=f"{rows} rows"):
            padded_size(rows)


def test_the_network_sees_the_padded_batch_and_pictures_of_any_size_follow(stage: Any) -> None:
    class Watched(PixelNetwork):
        sizes: list[int] = []

        def on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
            self.sizes.append(len(inputs[RENDERER_INPUT]))
            return super().on_device(inputs)

    network, random = Watched(), np.random.default_rng(2)
    executor, twin = stage("torch", network), CpuStage(network, SHAPE)
    for count, side in ((3, 20), (3, 300), (5, 40), (1, 8)):
        calls = [Conversation(random) for _ in range(count)]
        for call in calls:
            call.size = (side, side + 2)
        rows = [call.row() for call in calls]
        for got, wanted in zip(executor.run(rows), twin.run(rows), strict=True):
            compare(got, wanted)
    assert Watched.sizes == [4, 4, 8, 1]


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


def test_which_backends_refine_in_batches() -> None:
    torch_ = select_backend("torch", shipped("renderer"), "f32")
    assert isinstance(load_stage(torch_, SHAPE), CpuStage)
    assert load_stage(select_backend("openvino", shipped("renderer"), "f32"), SHAPE) is None


def all_rows_refused(executor: StageExecutor, rows: Sequence[StageRow]) -> bool:
    return all(isinstance(found, UsageError) for found in executor.run(rows))


@pytest.mark.parametrize("body", BODIES)
def test_a_batch_of_faults_alone_is_answered(stage: Any, body: str) -> None:
    random = np.random.default_rng(6)
    rows = [spoiled(random, Conversation(random).row()) for _ in range(20)]
    assert all_rows_refused(stage(body), rows)
    assert all_rows_refused(CpuStage(PixelNetwork(), SHAPE), rows)
