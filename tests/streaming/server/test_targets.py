"""Engines are loaded on demand, loaded again when a target changed, and let go when unused."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.engine.errors import TargetError, UnknownTarget, UsageError  # noqa: E402
from lipstream.streaming.server.rooms import Rooms  # noqa: E402
from lipstream.streaming.server.targets import EngineSetting, TargetRegistry  # noqa: E402
from lipstream.streaming.session.live_engine import LiveEngine  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine  # noqa: E402
from tests.streaming.waiting import eventually  # noqa: E402


def test_calls_refuse_the_profile_of_files() -> None:
    with pytest.raises(UsageError, match="expected low, live or studio"):
        EngineSetting(profile="file")


class Loader(EngineSetting):
    """Makes fake engines, and counts them."""

    __slots__ = ("loads", "may_load")

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "loads", [])
        object.__setattr__(self, "may_load", {})

    def load(self, folder: Path) -> LiveFakeEngine:  # type: ignore[override]
        self.loads.append(folder.name)
        if folder.name in self.may_load:
            assert self.may_load[folder.name].wait(10)
        if "damaged" in (folder / "target.json").read_text():
            raise TargetError(f"{folder.name}: damaged")
        return LiveFakeEngine()


def calibrate(folder: Path, name: str, text: str = "{}") -> None:
    """As the calibration does: a new bundle takes the old one's place."""
    bundle = folder / f"{name}.target"
    bundle.mkdir(exist_ok=True)
    made = bundle / "made.json"
    made.write_text(text)
    made.replace(bundle / "target.json")


async def freed(engine: weakref.ref[LiveEngine]) -> None:
    """Return when nothing holds on to an engine."""

    def is_gone() -> bool:
        gc.collect()
        return engine() is None

    # A thread of the pool may hold its last work item for a moment.
    await eventually(is_gone, what="an engine that nobody uses is freed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        calibrate(tmp_path, name)
    return tmp_path


def test_an_engine_is_loaded_once(folder: Path) -> None:
    loader = Loader()
    registry = TargetRegistry(folder, loader)

    async def test() -> None:
        engines = await asyncio.gather(*(registry.engine("a") for _ in range(5)))
        engines.append(await registry.engine("a"))
        assert len({id(engine) for engine in engines}) == 1

    asyncio.run(test())
    assert loader.loads == ["a.target"]


def test_a_target_that_was_calibrated_again_is_loaded_for_the_next_call(folder: Path) -> None:
    loader = Loader()
    registry = TargetRegistry(folder, loader)

    async def test() -> None:
        rooms = Rooms(registry.engine, capacity=4)
        before = await rooms.enter("a", "before")
        calibrate(folder, "a", json.dumps({"again": True}))
        after = await rooms.enter("a", "after")
        assert after.engine is not before.engine
        assert (await registry.engine("a")) is after.engine
        assert before.runner.error is None, "the call that goes on keeps its engine"
        old = weakref.ref(before.engine)
        await rooms.leave_unjoined(before)
        del before
        await freed(old)
        await rooms.leave_unjoined(after)
        await rooms.close()

    asyncio.run(test())
    assert loader.loads == ["a.target", "a.target"]


def test_engines_that_nobody_uses_are_let_go_beyond_those_asked_for_last(folder: Path) -> None:
    loader = Loader()
    registry = TargetRegistry(folder, loader, keep=2)

    async def test() -> None:
        engines = {name: weakref.ref(await registry.engine(name)) for name in ("a", "b")}
        await registry.engine("a")
        engines["c"] = weakref.ref(await registry.engine("c"))
        await freed(engines["b"])
        assert {name: ref() is not None for name, ref in engines.items()} == {
            "a": True, "b": False, "c": True,
        }  # fmt: skip
        await registry.engine("b")

    asyncio.run(test())
    assert loader.loads == ["a.target", "b.target", "c.target", "b.target"]


def test_an_engine_in_use_is_not_loaded_twice(folder: Path) -> None:
    loader = Loader()
    registry = TargetRegistry(folder, loader, keep=1)

    async def test() -> None:
        rooms = Rooms(registry.engine, capacity=4)
        first = await rooms.enter("a", "first")
        await registry.engine("b")  # takes the only place of those that are kept
        second = await rooms.enter("a", "second")
        assert first.engine is second.engine
        for room in (first, second):
            await rooms.leave_unjoined(room)
        await rooms.close()

    asyncio.run(test())
    assert loader.loads == ["a.target", "b.target"]


def test_a_load_delays_neither_the_event_loop_nor_other_targets(folder: Path) -> None:
    loader = Loader()
    slow = loader.may_load["a.target"] = threading.Event()
    registry = TargetRegistry(folder, loader)

    async def test() -> None:
        await registry.engine("b")
        waiting = asyncio.create_task(registry.engine("a"))
        await eventually(lambda: "a.target" in loader.loads)
        await asyncio.wait_for(registry.engine("b"), 5)
        await asyncio.wait_for(registry.engine("c"), 5)
        assert not waiting.done()
        slow.set()
        assert await waiting is await registry.engine("a")

    asyncio.run(test())
    assert loader.loads == ["b.target", "a.target", "c.target"]


def test_a_caller_that_leaves_does_not_stop_a_load(folder: Path) -> None:
    loader = Loader()
    slow = loader.may_load["a.target"] = threading.Event()
    registry = TargetRegistry(folder, loader)

    async def test() -> None:
        gone, stays = (asyncio.create_task(registry.engine("a")) for _ in range(2))
        await eventually(lambda: loader.loads)
        gone.cancel()
        slow.set()
        assert await asyncio.wait_for(stays, 5) is await registry.engine("a")
        assert gone.cancelled()

    asyncio.run(test())
    assert loader.loads == ["a.target"]


def test_a_failed_load_is_tried_again_and_leaves_the_running_engine(folder: Path) -> None:
    loader = Loader()
    registry = TargetRegistry(folder, loader)

    async def test() -> None:
        calibrate(folder, "a", '{"damaged": 1}')
        for _ in range(2):
            with pytest.raises(TargetError, match="damaged"):
                await registry.engine("a")
        calibrate(folder, "a")
        await registry.engine("a")

    asyncio.run(test())
    assert loader.loads == ["a.target"] * 3


def test_a_target_that_was_removed_is_unknown_and_let_go(folder: Path) -> None:
    registry = TargetRegistry(folder, Loader())

    async def test() -> None:
        engine = weakref.ref(await registry.engine("a"))
        (folder / "a.target").rename(folder / "a.old")
        with pytest.raises(UnknownTarget, match="no target 'a'"):
            await registry.engine("a")
        await freed(engine)

    asyncio.run(test())


def test_the_engine_of_a_bundle_can_be_let_go(target: Path) -> None:
    """The real engine, warmed up: nothing but a conversation holds on to it."""
    registry = TargetRegistry(target.parent, EngineSetting(renderer="none"), keep=0)

    async def talk(rooms: Rooms) -> weakref.ref[LiveEngine]:
        room = await rooms.enter("demo")
        await eventually(lambda: room.runner.counters.frames > 3)
        await rooms.leave_unjoined(room)
        return weakref.ref(room.engine)

    async def test() -> None:
        rooms = Rooms(registry.engine, capacity=1)
        await freed(await talk(rooms))
        await rooms.close()

    asyncio.run(test())


def test_the_registry_lists_bundles_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "b.target").mkdir()
    (folder / "a.target").mkdir()
    (folder / ".c.target").mkdir()
    (folder / "d.target").write_text("")
    (folder / "notes").mkdir()
    assert TargetRegistry(folder).names() == ["a", "b"]
    with pytest.raises(UsageError, match="no such folder"):
        TargetRegistry(folder / "nowhere")
