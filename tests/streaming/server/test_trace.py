"""One id for a conversation: in each answer about it, and in the logs of its tasks and threads."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from multiprocessing import Pipe

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.streaming import trace  # noqa: E402
from lipstream.streaming.session.live_engine import LiveEngine  # noqa: E402
from lipstream.streaming.workers.process import Server, WorkerState  # noqa: E402
from lipstream.streaming.workers.protocol import Begin  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine, LiveFakeSession  # noqa: E402
from tests.streaming.server.fake_server import SDP, server  # noqa: E402
from tests.streaming.webrtc.client import Client  # noqa: E402

logger = logging.getLogger("lipstream.tests")


class TalkativeEngine(LiveFakeEngine):
    def session(self) -> LiveFakeSession:
        return TalkativeSession(self)


class TalkativeSession(LiveFakeSession):
    def close(self) -> None:
        logger.warning("the session's thread")
        super().close()


async def talkative(name: str) -> LiveEngine:
    return TalkativeEngine()


def test_a_conversation_has_one_id_in_answers_and_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lipstream")
    caplog.handler.addFilter(trace.TraceFilter())

    async def test() -> None:
        async with server(engine=talkative) as http:
            calls = []
            for _ in range(2):
                client = Client()
                offer = await client.offer()
                async with http.post("/whip?target=face", data=offer, headers=SDP) as made:
                    ids = {made.headers["Lipstream-Trace"]}
                    assert "Lipstream-Trace" in made.headers["Access-Control-Expose-Headers"]
                    location = made.headers["Location"]
                async with http.get(location) as shown:
                    ids.add(shown.headers["Lipstream-Trace"])
                async with http.post(location + "/interrupt") as interrupted:
                    ids.add(interrupted.headers["Lipstream-Trace"])
                async with http.delete(location) as ended:
                    ids.add(ended.headers["Lipstream-Trace"])
                await client.close()
                calls.append(ids)
            assert [len(ids) for ids in calls] == [1, 1] and calls[0] != calls[1]
            async with http.get("/sessions/nobody") as refused:
                assert len(refused.headers["Lipstream-Trace"]) == 16
            for (one,) in calls:
                said = [r.getMessage() for r in caplog.records if vars(r).get("trace") == one]
                assert "a conversation of face begins" in said  # the request's task
                assert "the session's thread" in said
                assert "connection is closed" in said  # aiortc's events

    asyncio.run(test())


def test_a_worker_process_goes_on_under_the_id() -> None:
    """What `Begin` carries is the id of the connection's thread."""
    ours, theirs = Pipe()
    found: list[str] = []
    worker = Server(theirs, WorkerState())

    def run() -> None:
        worker._answer(Begin(1, "no such memory", "abcdef0123456789"))
        found.append(trace.current())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for end in (ours, theirs):
        end.close()
    assert found == ["abcdef0123456789"]
    assert trace.current() == ""


def test_lines_of_a_process_without_a_console_carry_it() -> None:
    formatter = trace.TraceFormatter("%(levelname)s %(bracketed)s%(message)s")
    record = logging.makeLogRecord({"levelname": "INFO", "msg": "hello"})
    assert formatter.format(record) == "INFO hello"

    def traced() -> str:
        trace.continue_with("abc")
        trace.TraceFilter().filter(record)
        return formatter.format(record)

    assert contextvars.copy_context().run(traced) == "INFO [abc] hello"
