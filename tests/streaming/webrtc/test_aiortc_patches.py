"""The private parts of aiortc that the patches rely on."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiortc import RTCPeerConnection  # noqa: E402
from aiortc.codecs.opus import OpusDecoder, OpusEncoder  # noqa: E402
from aiortc.jitterbuffer import JitterFrame  # noqa: E402

from lipstream.engine.types import F32  # noqa: E402
from lipstream.streaming.session.audio_in import SpeechResampler  # noqa: E402
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


def tone(rate_hz: int, layout: str) -> list[av.AudioFrame]:
    """A second of 440 Hz at half of full scale, the same on all channels."""
    size = rate_hz // 50
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)
    frames = []
    for k, part in enumerate((wave * 32767).astype(np.int16).reshape(50, size)):
        samples = part if layout == "mono" else part.repeat(2)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout=layout)
        frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
        frame.pts = k * size
        frames.append(frame)
    return frames


def heard(packets: list[bytes]) -> F32:
    """What the engine gets of Opus packets that come in: f32 [samples] at 16 kHz."""
    decoder, resampler = OpusDecoder(), SpeechResampler()
    frames = (
        frame
        for k, packet in enumerate(packets)
        for frame in decoder.decode(JitterFrame(packet, 960 * k))
    )
    return np.concatenate(
        [resampler.push(frame) for frame in frames if isinstance(frame, av.AudioFrame)]
    )


def level_db(samples: F32) -> float:
    """Against the tone's own level, once the codec has settled."""
    return float(20 * np.log10(np.sqrt(np.mean(samples[4_000:15_000] ** 2)) / (0.5 / np.sqrt(2))))


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_an_opus_voice_arrives_at_its_level(layout: str) -> None:
    codec: Any = av.CodecContext.create("libopus", "w")
    codec.format, codec.layout, codec.sample_rate = "s16", layout, 48_000
    codec.time_base, codec.bit_rate = Fraction(1, 48_000), 64_000
    packets = [bytes(packet) for frame in tone(48_000, layout) for packet in codec.encode(frame)]
    assert abs(level_db(heard(packets))) < 0.3


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_sound_that_is_sent_as_opus_keeps_its_level(rate_hz: int, layout: str) -> None:
    """aiortc's own resampler makes mono 3 dB lower."""
    encoder = OpusEncoder()
    packets = [packet for frame in tone(rate_hz, layout) for packet in encoder.encode(frame)[0]]
    assert abs(level_db(heard(packets))) < 0.3
