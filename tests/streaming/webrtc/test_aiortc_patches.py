"""The private parts of aiortc that the patches rely on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiortc import RTCPeerConnection  # noqa: E402

from lipstream.streaming.webrtc import aiortc_patches  # noqa: E402


@pytest.fixture(autouse=True)
def patched() -> None:
    assert aiortc_patches.apply(aiortc_patches.PatchOptions(loopback=True))


def test_the_private_parts_are_where_the_patches_expect_them() -> None:
    assert aiortc_patches.versions_tested(), "tested with other versions: look, then raise TESTED"

    async def test() -> None:
        pc = RTCPeerConnection()
        receiver: Any = pc.addTransceiver("audio").receiver
        assert receiver._RTCRtpReceiver__jitter_buffer._prefetch == 4
        assert aiortc_patches.remove_jitter_buffer(receiver)
        await pc.close()

    asyncio.run(test())


def test_a_lost_packet_holds_nothing_up_and_a_late_one_is_dropped() -> None:
    buffer = aiortc_patches._NoBuffer()
    got = []
    for number in (65533, 65534, 0, 65535, 1, 1, 2):
        packet = SimpleNamespace(sequence_number=number, timestamp=960 * number, _data=b"x")
        got.append(buffer.add(packet)[1] is not None)
    assert got == [True, True, True, False, True, False, True]


def test_other_versions_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiortc_patches, "TESTED", {"aiortc": "9.9"})
    assert not aiortc_patches.apply(aiortc_patches.PatchOptions())
    assert not aiortc_patches.remove_jitter_buffer(object())
