"""One encoder for all viewers: key frames, rates, presets, and what a slow viewer costs."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.engine.errors import UsageError  # noqa: E402
from lipstream.engine.target.frames import as_picture  # noqa: E402
from lipstream.engine.types import U8, AudioChunk, VideoFrame  # noqa: E402
from lipstream.streaming.session.runner import SessionRunner  # noqa: E402
from lipstream.streaming.session.subscription import TimedFrame, TimedSound  # noqa: E402
from lipstream.streaming.webrtc.h264 import (  # noqa: E402
    H264,
    PRESETS,
    Encoding,
    PictureFormat,
    SingleNalEncoder,
    level_idc,
)
from lipstream.streaming.webrtc.tracks import OutgoingVideo  # noqa: E402
from lipstream.streaming.webrtc.video_feed import VideoFeed  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine  # noqa: E402
from tests.streaming.waiting import eventually  # noqa: E402


def frame(i420: U8, index: int = 0) -> VideoFrame:
    return VideoFrame(
        i420, index, Fraction(25), AudioChunk(np.zeros(0, np.float32), 0), index, False
    )


def moving(width: int, height: int, count: int) -> list[U8]:
    """Something that moves and has detail, as footage does."""
    random = np.random.default_rng(0)
    small = random.integers(60, 200, (height * 3 // 2 // 8, width // 8)).astype(np.uint8)
    whole = np.kron(small, np.ones((8, 8), np.uint8))
    grain = random.integers(0, 6, whole.shape).astype(np.uint8)
    return [np.ascontiguousarray(np.roll(whole, k, axis=1) + grain) for k in range(count)]


class Watcher:
    def __init__(self, takes_packets: bool = True) -> None:
        self.takes_packets = takes_packets
        self.got: list[tuple[float, TimedFrame, Any]] = []
        self.audio_samples = 0
        self.reason: str | None = None

    def push_audio(self, item: TimedSound) -> None:
        self.audio_samples += item.samples.size

    def show(self, item: TimedFrame, packet: Any) -> None:
        self.got.append((time.monotonic(), item, packet))

    def end(self, reason: str) -> None:
        self.reason = reason

    def keys(self) -> int:
        return sum(packet.is_keyframe for _, _, packet in self.got)


@asynccontextmanager
async def feeding(engine: LiveFakeEngine | None = None) -> AsyncIterator[VideoFeed]:
    runner = SessionRunner(engine or LiveFakeEngine())
    runner.start()
    try:
        yield VideoFeed(runner)
    finally:
        await asyncio.to_thread(runner.close)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_many_viewers_share_every_packet_and_each_begins_with_a_key_frame() -> None:
    async def test() -> None:
        async with feeding() as feed:
            early, late, raw = Watcher(), Watcher(), Watcher(takes_packets=False)
            feed.attach(early)
            await eventually(lambda: len(early.got) >= 25)
            feed.attach(raw)
            feed.attach(late)
            await eventually(lambda: len(late.got) >= 25 and len(raw.got) >= 25)
            assert feed.key_frames == 2, "one for each time that somebody came"
            assert early.got[0][2].is_keyframe and early.keys() == 2
            same = {id(packet) for _, _, packet in early.got}
            assert all(id(packet) in same for _, _, packet in late.got)
            assert late.keys() == 1
            assert raw.got and all(packet is None for _, _, packet in raw.got)
            assert raw.audio_samples >= 640 * (len(raw.got) - 3)
            decoder = av.CodecContext.create("h264", "r")
            pictures = [p for _, _, packet in early.got for p in decoder.decode(packet)]
            assert len(pictures) == len(early.got)
            assert (pictures[0].width, pictures[0].height) == (64, 48)
            feed.detach(early)
            before, others = len(early.got), len(late.got)
            await eventually(lambda: len(late.got) >= others + 5)
            assert len(early.got) == before
            feed.detach(late)
            feed.detach(raw)
            assert not feed.runner._subscriptions, "nobody watches: nothing is made"

    run(test())


@pytest.mark.parametrize("height, width", [(512, 512), (450, 450), (452, 450), (2, 4)])
def test_a_picture_is_handed_to_the_compressor_as_it_is(height: int, width: int) -> None:
    random = np.random.default_rng(0)
    i420 = random.integers(0, 256, (height * 3 // 2, width)).astype(np.uint8)
    i420.setflags(write=False)
    picture = as_picture(i420)
    assert (picture.width, picture.height) == (width, height)
    assert (picture.to_ndarray() == i420).all()


def test_after_an_interruption_every_packet_shown_can_be_decoded() -> None:
    async def test() -> None:
        async with feeding() as feed:
            watcher = Watcher()
            feed.attach(watcher)
            for turn in range(3):
                await eventually(lambda n=turn: sum(i.turn == n for _, i, _ in watcher.got) >= 7)  # type: ignore[misc]
                feed.runner.interrupt()
            await eventually(lambda: sum(item.turn == 3 for _, item, _ in watcher.got) >= 3)
            turns = [item.turn for _, item, _ in watcher.got]
            assert sorted(set(turns)) == [0, 1, 2, 3]
            for turn in (1, 2, 3):
                assert watcher.got[turns.index(turn)][2].is_keyframe
            assert all(packet is not None for _, _, packet in watcher.got)
            feed.detach(watcher)

    run(test())


def test_interruptions_cost_no_packet() -> None:
    async def test() -> None:
        async with feeding() as feed:
            watcher = Watcher()
            feed.attach(watcher)
            for _ in range(8):
                seen = len(watcher.got)
                await eventually(lambda n=seen: len(watcher.got) >= n + 5)  # type: ignore[misc]
                feed.runner.interrupt()
            await eventually(lambda: watcher.got[-1][1].turn == 8)
            places = [item.media_sample for _, item, _ in watcher.got]
            assert set(np.diff(places)) == {640}, "every frame, in its place"
            assert all(packet is not None for _, _, packet in watcher.got)
            feed.detach(watcher)

    run(test())


@pytest.mark.alone
def test_packets_are_ready_when_their_time_comes() -> None:
    async def test() -> None:
        async with feeding() as feed:
            watcher = Watcher()
            feed.attach(watcher)
            await eventually(lambda: len(watcher.got) >= 33)
            late_ms = [1000 * (at_s - item.release_s) for at_s, item, _ in watcher.got[3:]]
            assert np.median(late_ms) < 5, late_ms
            feed.detach(watcher)

    run(test())


@pytest.mark.alone
def test_key_frames_on_demand_are_never_closer_than_400_ms() -> None:
    async def test() -> None:
        async with feeding() as feed:
            watcher = Watcher()
            feed.attach(watcher)
            await eventually(lambda: len(watcher.got) >= 12)
            asked_s = time.monotonic()
            await eventually(lambda: feed.want_key_frame() or watcher.keys() >= 6)
            keys_s = [at_s for at_s, _, packet in watcher.got if packet.is_keyframe]
            assert keys_s[1] - asked_s < 0.12
            assert np.diff(keys_s[1:]).min() > 0.35
            assert keys_s[-1] - keys_s[1] < 2.2, "four intervals of 0.4 s"

    run(test())


def test_a_viewer_gets_the_reason_when_the_conversation_ends() -> None:
    async def test() -> None:
        async with feeding(LiveFakeEngine(fail_after=20)) as feed:
            watcher = Watcher()
            feed.attach(watcher)
            await eventually(lambda: watcher.reason)
            assert watcher.reason == "ValueError: scripted failure"

    run(test())


def test_a_viewer_that_comes_after_the_end_gets_the_reason_too() -> None:
    async def test() -> None:
        async with feeding(LiveFakeEngine(fail_after=20)) as feed:
            first, later = Watcher(), Watcher()
            feed.attach(first)
            await eventually(lambda: first.reason)
            feed.attach(later)
            await eventually(lambda: later.reason)
            assert later.reason == "ValueError: scripted failure"

    run(test())


def test_a_viewer_that_fails_ends_alone() -> None:
    class Failing(Watcher):
        def show(self, item: TimedFrame, packet: Any) -> None:
            raise ValueError("scripted failure")

    async def test() -> None:
        async with feeding() as feed:
            failing, other = Failing(), Watcher()
            feed.attach(failing)
            feed.attach(other)
            await eventually(lambda: len(other.got) > 5)
            assert failing.reason == "no more frames: ValueError: scripted failure"
            feed.detach(failing)  # as its owner does
            seen = len(other.got)
            await eventually(lambda: len(other.got) > seen + 5)
            feed.detach(other)
            assert not feed.runner._subscriptions

    run(test())


def test_a_delivery_that_fails_ends_its_viewers_and_the_next_one_gets_frames(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with feeding() as feed:
            first, later = Watcher(), Watcher()
            feed.attach(first)
            await eventually(lambda: first.got)
            with monkeypatch.context() as patch:
                patch.setattr(feed, "_packet", lambda item: 1 / 0)
                await eventually(lambda: first.reason)
            assert first.reason == "no more frames: ZeroDivisionError: division by zero"
            feed.attach(later)
            await eventually(lambda: len(later.got) > 5)
            assert later.got[0][2].is_keyframe
            feed.detach(later)

    run(test())
    assert "delivery of frames" in caplog.text


def test_a_connection_that_does_not_take_packets_starts_again_with_a_key_frame() -> None:
    async def test() -> None:
        async with feeding() as feed:
            track = OutgoingVideo(feed)
            track.takes_packets = True
            encoder = H264(Encoding(), 64, 48, Fraction(25))
            pictures = [np.full((72, 64), 10 * k, np.uint8) for k in range(16)]
            packets = [
                encoder.encode(frame(p), 3600 * k, key=k in (0, 15)) for k, p in enumerate(pictures)
            ]
            item: Any = None
            for packet in packets[:14]:
                track.offer(item, packet)
            assert not track._queued, "each packet refers to the one before it"
            assert feed._key_wanted
            track.offer(item, packets[14])
            track.offer(item, packets[15])
            assert await track.recv() is packets[15]

    run(test())


def rate_of(encoding: Encoding, pictures: list[U8]) -> float:
    """Bits a second after the first second, of pictures over and over at 25 a second."""
    encoder = H264(encoding, 512, 512, Fraction(25))
    sizes = []
    for k in range(150):
        packet = encoder.encode(frame(pictures[k % len(pictures)]), 3600 * k, key=k == 0)
        assert packet is not None and packet.pts == 3600 * k
        sizes.append(packet.size)
    return 8 * sum(sizes[25:]) / 5


@pytest.mark.parametrize("preset", PRESETS)
def test_a_rate_that_was_asked_for_is_held(preset: str) -> None:
    rate_bps = Encoding(preset).rate_bps(512, 512)
    pictures = moving(512, 512, 25)
    assert rate_of(Encoding(preset, rate_bps), pictures) == pytest.approx(rate_bps, rel=0.2)


@pytest.mark.parametrize("preset", PRESETS)
def test_without_one_quality_is_kept_up_to_a_rate(preset: str) -> None:
    most_bps = Encoding(preset).rate_bps(512, 512)
    pictures = moving(512, 512, 25)
    assert rate_of(Encoding(preset), pictures) < 1.2 * most_bps  # noise: it would take more
    assert rate_of(Encoding(preset), pictures[:1]) < 0.2 * most_bps  # nothing moves


def test_larger_pictures_get_more_bits_but_not_in_proportion() -> None:
    rates = [Encoding().rate_bps(w, h) for w, h in ((512, 512), (1280, 720), (1920, 1080))]
    assert rates == [1_500_000, 3_189_000, 5_188_000]
    assert Encoding("sharp", 700_000).rate_bps(1920, 1080) == 700_000
    with pytest.raises(UsageError, match="video preset 'best': expected light, standard, sharp"):
        Encoding("best")
    with pytest.raises(UsageError, match="bitrate 5 bit/s"):
        Encoding(bitrate_bps=5)


@pytest.mark.parametrize("width, height, most_ms", [(512, 512, 8), (1280, 720, 20)])
def test_a_picture_is_encoded_in_a_few_ms(width: int, height: int, most_ms: float) -> None:
    encoder = H264(Encoding(), width, height, Fraction(25))
    pictures = moving(width, height, 25)
    began_s = time.process_time()
    for k in range(100):
        encoder.encode(frame(pictures[k % 25]), 3600 * k, key=False)
    took_ms = (time.process_time() - began_s) * 10
    print(f"\n{width}x{height}: {took_ms:.1f} ms of CPU a picture")
    assert took_ms < most_ms


def sps_level(packet: bytes) -> int:
    """level_idc of the sequence parameter set."""
    return packet[re.search(rb"\x00\x00\x01\x67", packet).end() + 2]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "width, height, fps, level",
    [
        (64, 48, 25, 31),
        (512, 512, 25, 31),
        (720, 1280, 30, 31),
        (1280, 720, 60, 32),
        (1080, 1920, 25, 40),
        (1920, 1080, 50, 42),
        (2560, 1440, 30, 50),
    ],
)
def test_the_level_that_is_said_is_sent(width: int, height: int, fps: int, level: int) -> None:
    picture = PictureFormat(width, height, Fraction(fps))
    assert level_idc(Encoding(), picture) == level
    encoder = H264(Encoding(), *picture)
    black = np.zeros((height * 3 // 2, width), np.uint8)
    packet = encoder.encode(frame(black), 0, key=True)
    assert packet is not None and sps_level(bytes(packet)) == level


def test_a_high_rate_needs_a_higher_level() -> None:
    assert level_idc(Encoding(bitrate_bps=20_000_000), PictureFormat()) == 32


def test_an_engine_says_its_pictures() -> None:
    engine = LiveFakeEngine(width=1920, height=1080)
    assert PictureFormat.of(engine) == (1920, 1080, 25)
    assert PictureFormat.of(object()) == PictureFormat()


def test_single_nal_units_are_never_fragments_nor_aggregates() -> None:
    """Packetization-mode 0; each unit fits a packet, and the frames are whole."""
    encoder, decoder = SingleNalEncoder(Encoding()), av.CodecContext.create("h264", "r")
    decoded = 0
    for k, picture in enumerate(moving(512, 512, 5)):
        units, pts = encoder.encode(timed(picture, 3600 * k), force_keyframe=k == 3)
        assert pts == 3600 * k
        types = [unit[0] & 31 for unit in units]
        assert set(types) <= {1, 5, 6, 7, 8} and (5 in types) == (k in (0, 3))
        assert len(units) > 1 and max(map(len, units)) <= 1200
        decoded += len(decoder.decode(av.Packet(b"".join(b"\0\0\0\1" + u for u in units))))  # type: ignore[attr-defined]
    decoded += len(decoder.decode(None))  # type: ignore[attr-defined]
    assert decoded == 5


def timed(picture: U8, pts: int) -> av.VideoFrame:
    made = as_picture(picture)
    made.pts, made.time_base = pts, Fraction(1, 90_000)
    return made
