"""The renderer's stage in batches: every executor against the CPU's renderer, on the CPU.

torch runs as it would on a device, but eagerly; our CUDA kernels are compiled for the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lipstream.engine.errors import UsageError
from lipstream.engine.networks.registry import load_stage, select_backend, shipped
from lipstream.engine.networks.signatures import RENDERER_INPUT
from lipstream.engine.networks.stage import MOST_ROWS, StageExecutor, StageRow, padded_size
from lipstream.engine.networks.stage_cpu import CpuStage
from tests.engine.networks.stage_rows import (
    BODIES,
    SHAPE,
    Conversation,
    PixelNetwork,
    compare,
    refined,
    spoiled,
)


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
