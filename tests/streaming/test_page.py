"""The page in Chromium, used as a person would, with a recording as its microphone.

Needs `pip install playwright` and a Chromium at /usr/bin/chromium ($LIPSTREAM_CHROMIUM).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHROMIUM = Path(os.environ.get("LIPSTREAM_CHROMIUM", "/usr/bin/chromium"))
if not CHROMIUM.exists():
    pytest.skip(f"no Chromium at {CHROMIUM}", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from aiohttp import web  # noqa: E402

from lipstream.engine.types import AudioChunk, VideoFrame  # noqa: E402
from lipstream.streaming.catalogue import Catalogue  # noqa: E402
from lipstream.streaming.runner import LiveEngine  # noqa: E402
from lipstream.streaming.server import ServerOptions, make_app  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine, LiveFakeSession  # noqa: E402
from tests.streaming.sound_files import write_wav  # noqa: E402

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required", "--allow-loopback-in-peer-connection",
]  # fmt: skip
PERIOD_S = 1.013  # so that bursts fall everywhere between two frames


@dataclass(frozen=True)
class FlashEngine(LiveFakeEngine):
    """White frames where the sound is loud in the middle of the frame: right on average."""

    width: int = 512
    height: int = 512
    compute_s: float = 0.004  # a push, as measured with a target of 512 px

    def session(self) -> FlashSession:
        return FlashSession(self)


class FlashSession(LiveFakeSession):
    def push(self, chunk: AudioChunk) -> list[VideoFrame]:
        frames = super().push(chunk)
        for frame in frames:
            loud = np.abs(frame.audio.samples[320:400]).max(initial=0) > 0.25
            frame.i420[: self.engine.height] = 235 if loud else 16
        return frames


@contextmanager
def serving(
    names: Callable[[], list[str]], engine: Callable[[str], Awaitable[LiveEngine]]
) -> Iterator[str]:
    """A server in a thread; yields its URL."""
    loop = asyncio.new_event_loop()
    runner: web.AppRunner | None = None

    async def begin() -> int:
        nonlocal runner
        runner = web.AppRunner(make_app(ServerOptions(port=0), names, engine))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner.addresses[0][1]

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        port = asyncio.run_coroutine_threadsafe(begin(), loop).result(20)
        yield f"http://127.0.0.1:{port}/"
    finally:
        if runner is not None:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextmanager
def browser(voice: Path) -> Iterator[Any]:
    with playwright.sync_playwright() as start:
        chromium = start.chromium.launch(
            executable_path=str(CHROMIUM),
            args=[*FLAGS, f"--use-file-for-fake-audio-capture={voice}"],
        )
        try:
            yield chromium.new_page(viewport={"width": 1200, "height": 820})
        finally:
            chromium.close()


def bursts(path: Path, seconds: int) -> Path:
    """400 Hz, loud for 200 ms of every period."""
    t = np.arange(16_000 * seconds) / 16_000
    tone = 0.9 * np.sin(2 * np.pi * 400 * t) * (t % PERIOD_S > PERIOD_S - 0.2)
    return write_wav(path, tone.astype(np.float32))


def begin_call(page: Any, url: str, target: str) -> None:
    page.goto(url)
    page.wait_for_selector("#target option", state="attached")
    page.get_by_label("Target").select_option(target)
    page.get_by_role("button", name="Start").click()


def picture(page: Any) -> dict[str, float]:
    return page.evaluate(
        "(() => { const v = document.getElementById('picture'), q = v.getVideoPlaybackQuality();"
        " return {at_s: performance.now() / 1000, time_s: v.currentTime,"
        " frames: q.totalVideoFrames, dropped: q.droppedVideoFrames, muted: v.muted}; })()"
    )


def wait_for_picture(page: Any) -> float:
    """ms until the first picture."""
    for waited_ms in range(0, 10_000, 50):
        if picture(page)["time_s"] > 0:
            return waited_ms
        page.wait_for_timeout(50)
    raise AssertionError(page.inner_text("#status"))


def test_a_person_sees_and_hears_the_target_at_25_fps(target: Path, tmp_path: Path) -> None:
    catalogue = Catalogue(target.parent)
    asyncio.run(catalogue.engine("demo"))  # warm, as `lipstream serve` does before it listens
    engine = catalogue._engines["demo"]

    async def ready(name: str) -> LiveEngine:
        return engine

    voice = bursts(tmp_path / "voice.wav", 30)
    with serving(catalogue.names, ready) as url, browser(voice) as page:
        wrong: list[str] = []
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        begin_call(page, url, "demo")
        assert wait_for_picture(page) < 3000
        page.wait_for_timeout(1500)
        before = picture(page)
        page.wait_for_timeout(10_000)
        after = picture(page)
        seconds = after["at_s"] - before["at_s"]
        assert 24 < (after["frames"] - before["frames"]) / seconds < 26
        assert after["dropped"] - before["dropped"] <= 5
        assert not after["muted"]
        meter = {
            e.get_attribute("data-value"): e.inner_text() for e in page.query_selector_all("dd")
        }
        assert meter["engine"] == "120 ms" and meter["rate"].endswith("fps")
        assert page.get_by_text("Synthetic picture").is_visible()
        page.screenshot(path=os.environ.get("LIPSTREAM_SCREENSHOT", tmp_path / "page.png"))

        mute = page.get_by_role("button", name="Mute voice")
        mute.press("Enter")  # by keyboard
        assert mute.get_attribute("aria-pressed") == "true"
        page.get_by_role("button", name="Interrupt").click()
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("button", name="Start").wait_for(state="visible")
        assert page.inner_text("#status") in ("Stopped.", "Interrupted.")
        page.wait_for_timeout(300)
        assert not wrong


def test_a_file_speaks_in_place_of_a_microphone(tmp_path: Path) -> None:
    engine = FlashEngine()

    async def ready(name: str) -> LiveEngine:
        return engine

    silence = write_wav(tmp_path / "silence.wav", np.zeros(16_000, np.float32))
    voice = bursts(tmp_path / "voice.wav", 5)
    nonsense = tmp_path / "notes.wav"
    nonsense.write_text("not a sound")
    with serving(lambda: ["flash"], ready) as url, browser(silence) as page:
        page.add_init_script(TAP)
        page.goto(url)
        page.wait_for_selector("#target option", state="attached")
        page.get_by_role("radio", name="An audio file").check()
        page.get_by_role("button", name="Start").click()
        assert page.inner_text("#status") == "Choose an audio file first."
        page.get_by_label("Choose an audio file").set_input_files(nonsense)
        page.get_by_role("button", name="Start").click()
        page.get_by_text("notes.wav is not a sound file").wait_for(timeout=5000)
        page.get_by_label("Choose an audio file").set_input_files(voice)
        page.get_by_role("button", name="Start").click()
        wait_for_picture(page)
        page.evaluate("window.watch()")
        page.wait_for_timeout(5000)
        onsets = page.evaluate("window.onsets")
    assert len(onsets["seen"]) >= 3 and len(onsets["heard"]) >= 3


TAP = """
const original = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
window.onsets = { said: [], heard: [], seen: [] };
function listen(stream, name) {
  const context = new AudioContext({ latencyHint: "interactive" });
  const analyser = new AnalyserNode(context, { fftSize: 256 });
  context.createMediaStreamSource(stream).connect(analyser);
  const wave = new Float32Array(256);
  let quietSince = 0, loud = true;
  setInterval(() => {
    analyser.getFloatTimeDomainData(wave);
    const now = performance.now();
    const peak = wave.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    if (peak > 0.3) { if (!loud) window.onsets[name].push(now); loud = true; quietSince = now; }
    else if (now - quietSince > 100) loud = false;
  }, 4);
}
navigator.mediaDevices.getUserMedia = async (wanted) => {
  const stream = await original(wanted);
  listen(stream, "said");
  return stream;
};
window.watch = () => {
  const video = document.getElementById("picture");
  listen(video.srcObject, "heard");
  const canvas = new OffscreenCanvas(8, 8);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let white = true;
  const look = () => {
    pen.drawImage(video, 0, 0, 8, 8);
    const now = pen.getImageData(4, 4, 1, 1).data[0] > 128;
    if (now && !white) window.onsets.seen.push(performance.now());
    white = now;
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
};
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine_ms, p50_ms, p95_ms", [(120, 260, 320), (40, 180, 240)])
def test_delay_and_offset_as_the_browser_sees_them(
    tmp_path: Path, engine_ms: int, p50_ms: int, p95_ms: int
) -> None:
    """Microphone to picture, and sound against picture, after the browser's buffers settled."""
    engine = FlashEngine(delay_ms=engine_ms)

    async def ready(name: str) -> LiveEngine:
        return engine

    voice = bursts(tmp_path / "voice.wav", 60)
    with serving(lambda: ["flash"], ready) as url, browser(voice) as page:
        page.add_init_script(TAP)
        begin_call(page, url, "flash")
        wait_for_picture(page)
        page.evaluate("window.watch()")
        page.wait_for_timeout(10_000)
        settled_ms = page.evaluate("performance.now()")
        page.wait_for_timeout(30_000)
        onsets = page.evaluate("window.onsets")
    said, heard, seen = (np.array(onsets[k]) for k in ("said", "heard", "seen"))
    seen = seen[seen > settled_ms]
    assert len(seen) > 20 and len(heard) > 20 and len(said) > 20, onsets
    delay_ms = np.array([s - said[said < s].max() for s in seen])
    offset_ms = np.array([heard[np.abs(heard - s).argmin()] - s for s in seen])
    print(
        f"\nmicrophone to picture: p50 {np.median(delay_ms):.0f} ms, "
        f"p95 {np.percentile(delay_ms, 95):.0f} ms; sound against picture: "
        f"p50 {np.median(offset_ms):+.0f} ms, {offset_ms.min():+.0f} to {offset_ms.max():+.0f} ms; "
        f"{len(seen)} bursts, engine delay {engine.delay_ms:.0f} ms"
    )
    assert np.median(delay_ms) <= p50_ms
    assert np.percentile(delay_ms, 95) <= p95_ms
    assert abs(np.median(offset_ms)) <= 45
