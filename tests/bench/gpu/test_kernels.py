"""Every kernel against its twin on the host, and every way in which that comparison can fail."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipstream.bench.gpu import kernels
from lipstream.bench.gpu.card import Card
from lipstream.bench.gpu.cases import KERNELS, ROW, Case, Pictures, make_case
from lipstream.bench.gpu.floors import CARDS, kernel_work, stage_works, tables
from lipstream.bench.gpu.sizes import ON_HOST

SIZES = replace(ON_HOST, crop=(16, 24))
ROOT = Path(__file__).parents[3]


def case(kernel: str, batch: int = 3) -> Case:
    return make_case(kernel, Pictures(np.random.default_rng(4), batch, SIZES.crop))


def test_every_kernel_is_as_its_twin(card: Card) -> None:
    found = kernels.check(card, SIZES, seed=7)
    assert found["wrong"] == []
    assert {row["kernel"] for row in found["checks"]} == {f"ls_gpu_{name}" for name in KERNELS}
    for row in found["checks"]:
        for array in row["arrays"].values():
            assert array["equal"] == 1.0, row  # to the bit, on the host


@pytest.mark.parametrize("crop", [(18, 21), (13, 35), (10, 8)])
def test_crops_of_any_sides(card: Card, crop: tuple[int, int]) -> None:
    """A thread has four pixels, one below another: the last strip may end outside."""
    assert kernels.check(card, replace(SIZES, crop=crop, batches=(2,)), seed=3)["wrong"] == []


class Tampered:
    """Launches, and then does something to the arrays."""

    def __init__(self, own: Any, change: Callable[[list[np.ndarray[Any, Any]]], None]) -> None:
        self.own, self.change = own, change

    def launch(self, name: str, arguments: tuple[Any, ...], *rest: Any) -> None:
        self.own.launch(name, arguments, *rest)
        arrays = [
            np.ctypeslib.as_array((ctypes.c_uint8 * a.nbytes).from_address(a.address))
            for a in arguments
            if hasattr(a, "address")
        ]
        self.change(arrays)


def fault_of(card: Card, kernel: str, change: Callable[[list[Any]], None]) -> str:
    own = card.kernels
    card.kernels = Tampered(own, change)  # type: ignore[assignment]
    try:
        return str(kernels.check_case(card, case(kernel))["fault"])
    finally:
        card.kernels = own


def last_written(kernel: str) -> int:
    """Bytes of the last array of a launch, without its guard."""
    name = case(kernel).arguments[-1]
    return case(kernel).writes[str(name)].values.nbytes


def test_a_number_that_is_none_is_seen(card: Card) -> None:
    def spoil(arrays: list[Any]) -> None:
        arrays[-1].view(np.float32)[5] = np.nan

    assert "inf from its twin" in fault_of(card, "grid_along", spoil)
    assert "inf from its twin" in fault_of(card, "mean_once", spoil)


def test_two_levels_are_seen_and_one_here_and_there_is_not(card: Card) -> None:
    def off(arrays: list[Any], by: int) -> None:
        stored = arrays[-1]
        stored[7] = stored[7] + by if stored[7] < 128 else stored[7] - by

    assert "2 from its twin" in fault_of(card, "sharpen", lambda arrays: off(arrays, 2))
    assert fault_of(card, "sharpen", lambda arrays: off(arrays, 1)) == ""


def test_one_level_everywhere_is_seen(card: Card) -> None:
    def drift(arrays: list[Any]) -> None:
        own = arrays[-1][: SIZES.crop[0] * SIZES.crop[1] * 3]
        own[:] = np.where(own < 128, own + 1, own - 1)

    assert "in the mean" in fault_of(card, "sharpen", drift)


def test_what_is_not_written_is_seen(card: Card) -> None:
    calls = []

    def leave(arrays: list[Any]) -> None:
        calls.append(1)
        arrays[-1][40:44] = (0xFF, 0x5A)[len(calls) - 1]  # as it was before

    assert "4 bytes that depend on what was there" in fault_of(card, "gates", leave)


def test_what_is_written_beyond_the_end_is_seen(card: Card) -> None:
    for kernel in ("crop", "near_gap", "gates", "grid_across", "sharpen"):
        size = last_written(kernel)

        def beyond(arrays: list[Any], size: int = size) -> None:
            arrays[-1][size] = 0

        assert "beyond its end" in fault_of(card, kernel, beyond), kernel


def test_a_row_that_does_not_hold_is_left_alone(card: Card) -> None:
    def touch(arrays: list[Any]) -> None:
        each = SIZES.crop[0] * SIZES.crop[1] * 3
        arrays[-1][2 * each + 3] = 17  # the last row of three holds never

    assert "a row that does not hold" in fault_of(card, "sharpen", touch)


def test_a_picture_of_a_row_that_does_not_hold_is_left_alone(card: Card) -> None:
    """The paste writes in place: what it must not touch is compared too."""
    own = card.kernels

    def spoil(name: str, arguments: tuple[Any, ...], *rest: Any) -> None:
        own.launch(name, arguments, *rest)
        table = card.read(arguments[0]).view(ROW)
        ctypes.memset(int(table["picture"][-1]), 3, 40)

    card.kernels = type("Spoilt", (), {"launch": staticmethod(spoil)})()  # type: ignore[assignment]
    fault = kernels.check_case(card, case("paste"))["fault"]
    card.kernels = own
    assert "pictures is" in fault


def test_a_kernel_that_does_nothing_is_seen_in_each(card: Card) -> None:
    own = card.kernels
    nothing = staticmethod(lambda *_: None)
    card.kernels = type("Idle", (), {"launch": nothing})()  # type: ignore[assignment]
    try:
        faults = {k: kernels.check_case(card, case(k))["fault"] for k in KERNELS}
    finally:
        card.kernels = own
    assert all(faults.values()), faults


def test_times_are_against_the_bytes_of_the_launch(card: Card) -> None:
    found = kernels.times(card, SIZES, seed=1, copy_gb_s=100.0)
    assert set(found["kernels"]) == set(KERNELS)
    for row in found["kernels"].values():
        assert row["floor_ms"] == pytest.approx(row["bytes"] / 100e6)
        assert row["times_floor"] == row["ms"] / row["floor_ms"]


def test_a_card_that_waited_for_the_host_gives_no_time(card: Card) -> None:
    class Early(card.driver.Event):  # type: ignore[misc, name-defined]
        def query(self) -> bool:
            return True

    card.driver.Event = Early
    with pytest.raises(RuntimeError, match="ran out of work"):
        card.times_ms([lambda: None], 1)


def test_bytes_are_those_of_the_arrays() -> None:
    """Where a kernel touches all of its arrays, their sizes are the count."""
    area = SIZES.crop[0] * SIZES.crop[1]
    for kernel, numbers in (("grid_along", 3 * 4 * 2), ("grid_across", 3 * 4 * 3 + 6)):
        made = case(kernel)
        assert kernel_work(made).moved_bytes == 3 * area * numbers + made.reads["held"].nbytes


def test_the_largest_step_of_a_stage_is_the_network() -> None:
    works = stage_works(64)
    assert list(works)[2] == "network"
    macs = works["network"].multiply_adds
    assert macs == max(work.multiply_adds for work in works.values())
    assert 300e6 < macs / 64 < 310e6
    floor = works["gates"].floor_us(CARDS[0].memory_gb_s, CARDS[0].f32_tera_ops)
    assert floor == works["gates"].moved_bytes / 3350e3


def test_multiply_adds_of_the_network_are_those_of_its_layers() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from lipstream.bench.gpu.floors import renderer_work
    from lipstream.engine.networks.registry import shipped
    from lipstream.engine.networks.renderer_torch import load_net, multiply_adds

    size = load_net(shipped("renderer").safetensors).size
    assert renderer_work(1, 2).multiply_adds == multiply_adds(size)


def test_the_page_has_the_table_that_the_code_counts() -> None:
    assert tables() in (ROOT / "docs" / "gpu.md").read_text()
