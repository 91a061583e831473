"""A voice over scripted networks: how much of it is heard, and how late."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.streaming.session.runner import SessionRunner  # noqa: E402
from lipstream.streaming.webrtc import tracks  # noqa: E402
from lipstream.streaming.webrtc.packet_order import VoicePacket  # noqa: E402
from lipstream.streaming.webrtc.tracks import IncomingVoice  # noqa: E402
from tests.clock import ScriptedClock  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine, LiveFakeSession  # noqa: E402
from tests.streaming.webrtc.scripted_network import (  # noqa: E402
    NetworkScript,
    ScriptedNetwork,
)

RATE_HZ = 16_000
LATER_S = 1.0  # for what is under way at the end


class KeepingEngine(LiveFakeEngine):
    """Paints nothing, and keeps what it hears."""

    heard: LiveFakeSession

    def session(self) -> LiveFakeSession:
        session = HearingSession(self)
        object.__setattr__(self, "heard", session)
        return session


class HearingSession(LiveFakeSession):
    def __init__(self, engine: LiveFakeEngine) -> None:
        super().__init__(engine)
        self.chunks: list[np.ndarray] = []

    def push(self, chunk, paint=True):  # type: ignore[no-untyped-def]
        self.chunks.append(chunk.samples)
        return []


class PcmDecoder:
    """In place of a codec: the payload is i16 at 16 kHz, in time stamps of 48 kHz."""

    def decode(self, frame):  # type: ignore[no-untyped-def]
        pcm = np.frombuffer(frame.data, np.int16)[None]
        out = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        out.sample_rate, out.pts, out.time_base = RATE_HZ, frame.timestamp, Fraction(1, 48_000)
        return [out]


@dataclass
class Heard:
    """What became of a call; s of voice."""

    arrived_s: float
    heard_s: float
    margins_ms: list[float] = field(default_factory=list)  # each second
    sound: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def lost_s(self) -> float:
        return self.arrived_s - self.heard_s


def words(seconds: float, pause_every_s: float = 2.0, pause_s: float = 0.4) -> np.ndarray:
    """i16 [n]: loud noise with silent pauses."""
    at_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    loud = np.where(np.random.default_rng(0).random(at_s.size) < 0.5, -9000, 9000)
    return np.where(at_s % pause_every_s < pause_every_s - pause_s, loud, 0).astype(np.int16)


def call(
    script: NetworkScript,
    monkeypatch: pytest.MonkeyPatch,
    *,
    packet_ms: int = 20,
    seconds: float = 20.0,
    voice: np.ndarray | None = None,
) -> Heard:
    """Speak over a network; returns what the engine was fed."""
    monkeypatch.setattr(tracks, "get_decoder", lambda codec: PcmDecoder())
    clock = ScriptedClock()
    engine = KeepingEngine()
    spoken = words(seconds) if voice is None else voice
    codec = SimpleNamespace(name="pcm")
    result = Heard(0.0, 0.0)

    async def test() -> None:
        runner = SessionRunner(engine, time_source=clock)
        runner.start()
        incoming = IncomingVoice(runner)
        loop = asyncio.get_running_loop()
        arrived = 0

        def deliver(packet: VoicePacket) -> None:
            nonlocal arrived
            arrived += np.count_nonzero(np.frombuffer(packet.payload, np.int16))
            incoming.push_packet(
                VoicePacket(
                    packet.number,
                    packet.timestamp,
                    packet.source,
                    packet.payload,
                    packet.codec,
                    loop.time(),
                )
            )

        network = ScriptedNetwork(script, deliver)
        size = packet_ms * RATE_HZ // 1000
        began_s = loop.time()
        for k in range(spoken.size // size):
            await asyncio.sleep(began_s + (k + 1) * packet_ms / 1000 - loop.time())
            payload = spoken[k * size : (k + 1) * size].tobytes()
            stamp = 77 + 3 * size * k
            network.send(VoicePacket((65_500 + k) % 65_536, stamp, 1, payload, codec, 0.0))
            if (k * packet_ms) % 1000 < packet_ms:
                result.margins_ms.append(1000 * runner.counters.source_margin_s)
        await asyncio.sleep(LATER_S)
        assert incoming._failure is None, incoming._failure
        await asyncio.to_thread(runner.close)
        result.arrived_s = arrived / RATE_HZ
        result.sound = np.concatenate(engine.heard.chunks)  # type: ignore[attr-defined]
        result.heard_s = np.count_nonzero(np.abs(result.sound) > 0.02) / RATE_HZ

    clock.run(test())
    return result


MAY_BE_LOST_S = 0.2


JITTER = NetworkScript(jitter_s=0.02)
STALLS = NetworkScript(stall_s=0.06)


@pytest.mark.parametrize(
    ("script", "packet_ms"),
    [
        (NetworkScript(jitter_s=0.01), 20),
        (JITTER, 20),
        (STALLS, 20),
        (NetworkScript(jitter_s=0.01, loss=0.1, keeps_order=True), 20),
        (JITTER, 10),
        (JITTER, 60),
        (JITTER, 120),
        (NetworkScript(stall_s=0.06, loss=0.01), 120),
    ],
    ids=str,
)
def test_the_first_20_s_lose_at_most_a_fifth_of_a_second(
    script: NetworkScript, packet_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = call(script, monkeypatch, packet_ms=packet_ms)
    print(f"lost {1000 * heard.lost_s:.0f} ms, margins {[round(m) for m in heard.margins_ms]}")
    assert heard.lost_s <= MAY_BE_LOST_S
    assert heard.heard_s <= heard.arrived_s + 0.01
    assert max(heard.margins_ms) <= 201


def test_a_network_that_calms_gives_the_delay_back_and_no_word_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six seconds of stalls; then pauses are shortened, and what is spoken is whole."""
    script = NetworkScript(stall_s=0.1, stall_until_s=6.0)
    heard = call(script, monkeypatch, seconds=34)
    assert max(heard.margins_ms) > 60
    assert heard.margins_ms[-1] < 10, heard.margins_ms
    assert heard.lost_s <= 0.08, "before the margin was there"
    # From where the margin is there on, every word is as long as it was spoken.
    lengths_s = word_lengths_s(heard.sound)[4:-1]
    assert len(lengths_s) > 10
    assert np.allclose(lengths_s, 1.6, atol=0.005), lengths_s


@pytest.mark.parametrize("outage_s", [2.0, 4.0, 8.0, 20.0])
def test_after_an_outage_the_call_goes_on_and_says_nothing_of_what_was_missed(
    outage_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets that were sent meanwhile come as one burst when the network is back."""
    script = NetworkScript(outages_s=((3.0, 3.0 + outage_s),), delivers_after_outage_s=1.0)
    heard = call(script, monkeypatch, seconds=7 + outage_s)
    sound = heard.sound
    during = sound[int(3.1 * RATE_HZ) : int((2.9 + outage_s) * RATE_HZ)]
    assert np.count_nonzero(np.abs(during) > 0.02) == 0
    after = sound[int((3 + outage_s) * RATE_HZ) :]
    first = int(np.flatnonzero(np.abs(after) > 0.02)[0])
    assert first < 0.5 * RATE_HZ, "within half a second of the network"
    spoken = words(7 + outage_s)[int((3.05 + outage_s) * RATE_HZ) :]
    said_s = np.count_nonzero(np.abs(after) > 0.02) / RATE_HZ
    assert said_s == pytest.approx(np.count_nonzero(spoken) / RATE_HZ, abs=0.25)
    assert heard.margins_ms[-1] <= 201


def word_lengths_s(sound: np.ndarray) -> list[float]:
    """Of stretches between silences of 50 ms and more."""
    loud = np.flatnonzero(np.abs(sound) > 0.02)
    breaks = np.flatnonzero(np.diff(loud) > 0.05 * RATE_HZ)
    begins, ends = loud[np.r_[0, breaks + 1]], loud[np.r_[breaks, loud.size - 1]]
    return [float(end - begin + 1) / RATE_HZ for begin, end in zip(begins, ends, strict=True)]
