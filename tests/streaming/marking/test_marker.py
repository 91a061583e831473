"""Marks of frames on their way out: the engine's own frames stay as they are."""

from __future__ import annotations

import asyncio
import time
from fractions import Fraction

import numpy as np
import pytest

from lipstream.engine.types import AudioChunk, VideoFrame
from lipstream.streaming.marking.label import label_patch
from lipstream.streaming.marking.marker import FrameMarker, Marking
from lipstream.streaming.marking.seen import find_label
from lipstream.streaming.session.runner import RunnerOptions, SessionRunner
from tests.clock import ScriptedClock
from tests.streaming.live_engine import LiveFakeEngine


def frame(width: int, height: int) -> VideoFrame:
    picture = np.random.default_rng(3).integers(40, 200, (height * 3 // 2, width), np.uint8)
    picture.setflags(write=False)  # the engine may show it again
    silence = AudioChunk(np.zeros(640, np.float32), 0)
    return VideoFrame(picture, 0, Fraction(25), silence, 0, False)


def test_each_part_is_there_unless_it_is_off() -> None:
    plain = frame(128, 96)
    before = plain.i420.copy()
    bare = FrameMarker(Marking.parse("off:a test", "a test")).mark(plain)
    np.testing.assert_array_equal(bare.i420, before)
    labelled = FrameMarker(Marking("corner", None, "a test")).mark(plain)
    expected = before.copy()
    label_patch("corner", 128, 96).draw(expected)
    np.testing.assert_array_equal(labelled.i420, expected)
    marked = FrameMarker(Marking.parse("off:a test")).mark(plain)
    difference = marked.i420[:96].astype(int) - before[:96]
    assert difference.any() and np.abs(difference).max() <= 16
    np.testing.assert_array_equal(marked.i420[96:], before[96:])  # no colour changes
    both = FrameMarker().mark(plain)
    assert not np.array_equal(both.i420, marked.i420)
    np.testing.assert_array_equal(plain.i420, before)


def test_what_is_said_of_it() -> None:
    first, second = FrameMarker(), FrameMarker()
    assert first.session_hex != second.session_hex
    assert first.session_hex is not None and len(first.session_hex) == 8
    assert first.as_json() == {
        "label": "corner",
        "no_label": None,
        "watermark": first.session_hex,
        "no_watermark": None,
    }
    assert FrameMarker(Marking.parse("off: a: b", "c")).as_json() == {
        "label": "off",
        "no_label": "a: b",
        "watermark": None,
        "no_watermark": "c",
    }


@pytest.mark.parametrize("label", ["corner", "bar"])
def test_a_frame_of_a_call_takes_a_millisecond(label: str) -> None:
    """720p, on one core; the label alone is a tenth of that (`test_label`)."""
    plain, marker = frame(1280, 720), FrameMarker(Marking(label))
    marker.prepare(1280, 720)
    took_s = []
    for _ in range(40):
        began_s = time.thread_time()
        marker.mark(plain)
        took_s.append(time.thread_time() - began_s)
    assert min(took_s) < 1e-3


def frames_of_a_call(marking: Marking | None) -> tuple[SessionRunner, list[np.ndarray]]:
    clock = ScriptedClock()
    options = RunnerOptions() if marking is None else RunnerOptions(marking=marking)
    runner = SessionRunner(LiveFakeEngine(320, 240), options, clock)
    got: list[np.ndarray] = []

    async def call() -> None:
        runner.start()
        async for item in runner.subscribe():
            got.append(item.frame.i420)
            if len(got) == 4:
                break
        await asyncio.to_thread(runner.close)

    clock.run(call())
    return runner, got


def test_calls_are_marked_and_no_frame_twice() -> None:
    """What a viewer gets of a black picture, which the engine shows again and again."""
    runner, marked = frames_of_a_call(None)
    assert runner.marker.session_hex is not None
    bare_runner, bare = frames_of_a_call(Marking.parse("off:a test", "a test"))
    assert bare_runner.marker.session_hex is None
    assert not any(find_label(frame[:240].astype(np.float32)) for frame in bare)
    for frame, engine_frame in zip(marked, bare, strict=True):
        assert find_label(frame[:240].astype(np.float32)) == "corner"
        below = frame[60:240].astype(int) - engine_frame[60:240]
        assert below.any() and np.abs(below).max() <= 8
        np.testing.assert_array_equal(frame[60:240], marked[0][60:240])
