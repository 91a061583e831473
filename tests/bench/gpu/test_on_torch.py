"""The phases that need torch, on the CPU: they run, and what is wrong is seen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from lipstream.bench.gpu import ceilings, networks, stage, stages  # noqa: E402
from lipstream.bench.gpu.card import Card  # noqa: E402
from lipstream.bench.gpu.sizes import ON_HOST  # noqa: E402

SIZES = replace(ON_HOST, crop=(16, 24), rows=(1, 2), calls=1, sessions=6, at_once=2)


def test_ceilings_are_rates(card: Card) -> None:
    found = ceilings.measure(card, SIZES)
    for name in ("copy_gb_s", "to_card_gb_s", "from_card_gb_s", "bf16_tera_ops", "f32_tera_ops"):
        assert found[name] > 0
    assert found["device"]["card"] == "host"


def test_a_copy_that_changes_a_byte_is_no_rate(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    own = card.driver.memcpy_dtoh_async

    def spoil(onto: Any, source: int, stream: Any = None) -> None:
        own(onto, source, stream)
        onto[3] ^= 1

    monkeypatch.setattr(card.driver, "memcpy_dtoh_async", spoil)
    with pytest.raises(RuntimeError, match="is not what it was"):
        ceilings.copies(card, SIZES)


def test_networks_are_compared_in_each_precision(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = networks.measure(card, SIZES, 3, 3350.0)
    assert found["wrong"] == []
    for name in ("renderer", "encoder"):
        assert set(found[name]) == {"f32", "f16", "bf16"}
        assert all({"ms_1", "ms_2", "floor_ms_2"} <= set(row) for row in found[name].values())
    assert found["renderer"]["f32"]["levels_most"] < 0.01
    assert found["renderer"]["bf16"]["levels_mean"] > found["renderer"]["f16"]["levels_mean"] > 0

    monkeypatch.setattr(networks, "_time", lambda *_: {})
    cast = torch.nn.Module.to

    def spoil(self: Any, *args: Any, **kwargs: Any) -> Any:
        moved = cast(self, *args, **kwargs)
        with torch.no_grad():
            next(moved.parameters()).mul_(1.5)
        return moved

    monkeypatch.setattr(torch.nn.Module, "to", spoil)
    wrong = networks.measure(card, SIZES, 3, 3350.0)["wrong"]
    assert len(wrong) == 6, wrong


def test_the_stage_is_as_the_cpus(card: Card) -> None:
    found = stage.measure(card, SIZES, 3)
    assert found["wrong"] == []
    assert set(found["compared"]) == {
        "on the card", "from the host by kernels", "from the host by torch"
    }  # fmt: skip
    assert set(found["rows"]) == {"1", "2"}
    assert set(found["from_the_host"]["torch"]) == {"1", "2"}


def test_a_stage_that_is_wrong_is_seen(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our kernels leave out a step: only what runs by them is wrong."""
    own = card.kernels.launch

    def leave_out(name: str, *rest: Any) -> None:
        if name != "ls_gpu_paste":
            own(name, *rest)

    monkeypatch.setattr(card.kernels, "launch", leave_out)
    on = stages.TorchCard(card)
    wrong = stage._check(on, SIZES, np.random.default_rng(3))["wrong"]
    assert [line.split(":")[0] for line in wrong] == [
        "the stage on the card", "the stage from the host by kernels"
    ]  # fmt: skip


def test_rows_that_depend_on_their_neighbours_are_counted() -> None:
    drawn = [stage.draw(np.random.default_rng(k), SIZES.crop) for k in range(4)]

    def alone(rows: Any) -> Any:
        return [stage.Refined(row.painted + 1, row.painted[:2, :2]) for row in rows]

    def by_place(rows: Any) -> Any:
        made = alone(rows)
        made[1].pixels[0, 0, 0] ^= 1
        return made

    assert stage.rows_that_depend(alone, drawn) == 0
    assert stage.rows_that_depend(by_place, drawn) == 2


def test_a_card_runs_by_graphs(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cuda by a stand-in: warm, captured once on the card's stream, and then replayed."""
    said: list[Any] = []

    class Graph:
        def replay(self) -> None:
            said.append("replay")

    @contextmanager
    def graph(made: Graph, stream: Any) -> Iterator[None]:
        said.append(("capture", stream))
        yield
        said.append("captured")

    stand_in = SimpleNamespace(
        init=lambda: None,
        ExternalStream=lambda handle: ("stream", handle),
        stream=lambda stream: nullcontext(),
        CUDAGraph=Graph,
        graph=graph,
        memory_reserved=lambda: 5,
    )
    monkeypatch.setattr(torch, "cuda", stand_in)
    monkeypatch.setattr(card, "on_host", False)
    on = stages.TorchCard(card)
    assert on.device == "cuda" and on.reserved_bytes() == 5
    run = on.captured(lambda: said.append("run"))
    assert said == ["run"] * 3 + [("capture", ("stream", 0)), "run", "captured"]
    run()
    run()
    assert said[-2:] == ["replay", "replay"]


def test_sessions_leave_nothing(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    found = stage.sessions(card, SIZES, 3)
    assert found["opened"] == 6 and found["card_bytes_grown"] == 0

    kept: list[Any] = []
    own = stages.Session.row

    def leak(self: Any) -> Any:
        kept.append(card.empty((1 << 20,), np.uint8))
        return own(self)

    monkeypatch.setattr(stages.Session, "row", leak)
    assert stage.sessions(card, SIZES, 3)["card_bytes_grown"] >= 4 << 20


def test_the_proof_needs_torch_numpy_and_safetensors_alone() -> None:
    """What torch itself would like to have may be missing too."""
    program = (
        "import sys\n"
        "import torch, numpy, safetensors, safetensors.torch\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.split('.')[0]\n"
        "        known = {'lipstream', 'torch', 'numpy', 'safetensors'}\n"
        "        if top in known or top in sys.stdlib_module_names: return None\n"
        "        raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import lipstream.bench.gpu.__main__, lipstream.bench.gpu.ceilings\n"
        "import lipstream.bench.gpu.networks, lipstream.bench.gpu.stage\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
