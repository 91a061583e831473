"""A minute of a call in Chromium with the real engine: frame rate, delay, A/V offset."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.bench.measure.webrtc import write_bursts  # noqa: E402
from lipstream.engine.pipeline import Engine, Session  # noqa: E402
from lipstream.engine.types import AudioChunk, VideoFrame  # noqa: E402
from tests.streaming.server.page import (  # noqa: E402
    TAP,
    always,
    begin_call,
    browser,
    picture,
    screenshots,
    server_figures,
    serving,
    shipped,
    wait_for_picture,
)

TARGET = os.environ.get("LIPSTREAM_CALL_TARGET")  # another bundle, for the long measurement
RENDERER = os.environ.get("LIPSTREAM_CALL_RENDERER", "auto")


class MarkedEngine:
    """The real engine; the upper left of its pictures is white while their sound is loud."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.delay_ms = engine.delay_ms

    def session(self) -> MarkedSession:
        return MarkedSession(self.engine.session())


class MarkedSession:
    def __init__(self, session: Session) -> None:
        self.interrupt, self.close = session.interrupt, session.close
        self._session = session

    def push(self, chunk: AudioChunk, paint: bool = True) -> list[VideoFrame]:
        return [self._marked(frame) for frame in self._session.push(chunk, paint)]

    def _marked(self, frame: VideoFrame) -> VideoFrame:
        # Loud in the middle of the frame: right on average.
        middle = frame.audio.samples.size // 2
        loud = np.abs(frame.audio.samples[middle : middle + 80]).max(initial=0) > 0.25
        i420 = frame.i420.copy()
        i420[: frame.height // 4, : frame.width // 4] = 235 if loud else 16
        return replace(frame, i420=i420)


@pytest.mark.slow
@pytest.mark.parametrize("profile, p50_ms, p95_ms", [("live", 260, 320), ("low", 180, 240)])
def test_a_minute_as_the_browser_sees_it(
    target: Path, tmp_path: Path, profile: str, p50_ms: int, p95_ms: int
) -> None:
    """Time to connect, frame rate, microphone to picture, and A/V offset."""
    engine = MarkedEngine(
        shipped(Path(TARGET) if TARGET else target, profile=profile, renderer=RENDERER)
    )
    voice = write_bursts(tmp_path / "voice.wav", 90)
    with serving(lambda: ["marked"], always(engine)) as url, browser(voice) as page:
        page.add_init_script(TAP)
        begin_call(page, url, "marked")
        connect_ms = wait_for_picture(page)
        page.evaluate("window.watch()")
        page.wait_for_timeout(10_000)
        before, settled_ms = picture(page), page.evaluate("performance.now()")
        page.wait_for_timeout(60_000)
        after, server = picture(page), server_figures(page, url)
        onsets = page.evaluate("window.onsets")
        screenshots(page, tmp_path, profile)
    spoken, audible, seen = (np.array(onsets[k]) for k in ("spoken", "audible", "seen"))
    seen = seen[seen > settled_ms]
    assert len(seen) > 40 and len(audible) > 40 and len(spoken) > 40, (onsets, server)
    delay_ms = np.array([s - spoken[spoken < s].max() for s in seen])
    offset_ms = np.array([audible[np.abs(audible - s).argmin()] - s for s in seen])
    fps = (after["frames"] - before["frames"]) / (after["at_s"] - before["at_s"])
    shown = after["frames"] - before["frames"] - (after["dropped"] - before["dropped"])
    missed = 1 - shown / (25 * (after["at_s"] - before["at_s"]))
    print(
        f"\n{profile}, renderer {RENDERER}: first picture after {connect_ms} ms; {fps:.2f} fps, "
        f"{100 * missed:.2f} % missed; microphone to picture p50 {np.median(delay_ms):.0f} ms, "
        f"p95 {np.percentile(delay_ms, 95):.0f} ms; A/V offset "
        f"p50 {np.median(offset_ms):+.0f} ms, {offset_ms.min():+.0f} to {offset_ms.max():+.0f} ms, "
        f"{np.mean(np.abs(offset_ms) <= 45):.1%} within 45; {len(seen)} bursts; {server}"
    )
    assert connect_ms < 3000
    assert missed < 0.01
    assert np.median(delay_ms) <= p50_ms
    assert np.percentile(delay_ms, 95) <= p95_ms
    assert abs(np.median(offset_ms)) <= 45
