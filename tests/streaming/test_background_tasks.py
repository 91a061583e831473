"""Tasks that fail are seen, and their owner is told."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from lipstream.streaming.background_tasks import BackgroundTasks
from tests.streaming.waiting import eventually


async def fail() -> None:
    raise ValueError("scripted failure")


def test_a_failure_is_logged_and_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    reasons: list[str] = []

    async def test() -> None:
        tasks = BackgroundTasks(failed=reasons.append)
        tasks.start(fail(), "pump")
        tasks.start(asyncio.sleep(0), "another")
        await tasks.finish()
        await eventually(lambda: reasons)

    with caplog.at_level(logging.ERROR):
        asyncio.run(test())
    assert reasons == ["pump failed: ValueError: scripted failure"]
    (record,) = caplog.records
    assert "pump" in record.getMessage() and record.exc_info is not None


def test_a_task_is_kept_until_it_ends_and_cancelled_by_its_owner() -> None:
    reasons: list[str] = []

    async def test() -> None:
        tasks = BackgroundTasks(failed=reasons.append)
        tasks.start(asyncio.Event().wait(), "waits for ever")
        await asyncio.sleep(0)
        gc.collect()
        assert len(asyncio.all_tasks()) == 2
        await tasks.cancel()
        assert len(asyncio.all_tasks()) == 1 and not reasons

    asyncio.run(test())
