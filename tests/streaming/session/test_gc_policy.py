"""No full collection while a conversation runs, and one freeze a process."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lipstream.streaming.server.targets import TargetRegistry
from lipstream.streaming.session import gc_policy
from lipstream.streaming.session.live_engine import warm_up
from lipstream.streaming.session.runner import SessionRunner
from tests.clock import ScriptedClock
from tests.streaming.live_engine import LiveFakeEngine


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of gc.collect and gc.freeze, in a process that has done neither."""
    made: list[str] = []
    monkeypatch.setattr(gc_policy, "_PROCESS", gc_policy._Process())
    monkeypatch.setattr(gc, "collect", lambda *_: made.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: made.append("freeze"))
    return made


@dataclass(frozen=True)
class FakeSetting:
    def load(self, folder: Path) -> Any:
        return LiveFakeEngine()


def test_a_target_that_is_loaded_during_a_call_neither_collects_nor_freezes(
    calls: list[str], tmp_path: Path
) -> None:
    """A full collection is 60 to 80 ms of silence; a freeze makes live cycles permanent."""
    clock = ScriptedClock()
    for name in ("first", "second"):
        (tmp_path / f"{name}.target").mkdir()
        (tmp_path / f"{name}.target" / "target.json").write_text("{}")
    setting: Any = FakeSetting()
    registry = TargetRegistry(tmp_path, setting)

    async def test() -> None:
        runner = SessionRunner(await registry.engine("first"), time_source=clock)
        runner.start()
        await clock.sleep_async(0.5)
        calls.clear()
        await registry.engine("second")
        assert gc_policy.freeze() is False
        gc_policy.collect()  # another conversation has ended
        assert calls == []
        await asyncio.to_thread(runner.close)
        gc_policy.collect()
        assert calls == ["collect"], "nobody talks any more"

    clock.run(test())


def test_a_process_freezes_once(calls: list[str]) -> None:
    warm_up(LiveFakeEngine())
    assert calls == []
    assert gc_policy.freeze() is True
    assert gc_policy.freeze() is False
    assert calls == ["collect", "freeze"]


def test_a_freeze_that_came_too_late_is_made_up_for(calls: list[str]) -> None:
    with gc_policy.conversation(), gc_policy.conversation():
        assert gc_policy.freeze() is False
    assert gc_policy.freeze() is True


def test_no_later_collection_visits_what_was_loaded_before_the_freeze(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gc_policy, "_PROCESS", gc_policy._Process())
    loaded = [[number] for number in range(10)]
    assert any(one is loaded for one in gc.get_objects())
    assert gc_policy.freeze()
    assert not any(one is loaded for one in gc.get_objects())
