"""Microphone to picture through a real browser on loopback, and sound against picture over time.

Chromium's microphone is a file of bursts; the server's engine is `flash`, whose picture turns
white with the sound and counts its frames; the page times all three (`browser_tap`).
docs/benchmarks.md has the method and its error. Needs Playwright and Chromium.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.bench.machine import Load
from lipstream.bench.measure.browser_tap import CALL, TAP
from lipstream.bench.measure.flash import BITS, FlashEngine
from lipstream.bench.measure.latency import Report
from lipstream.bench.measure.statistics import percentiles
from lipstream.engine.errors import UsageError
from lipstream.streaming.session.live_engine import LiveEngine

CHROMIUM: Final = Path(os.environ.get("LIPSTREAM_CHROMIUM", "/usr/bin/chromium"))
FLAGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required", "--allow-loopback-in-peer-connection",
)  # fmt: skip
SETTLE_S: Final = 10.0  # a browser's buffers need as long after the first picture
PERIOD_S: Final = 1.013  # so that bursts fall everywhere between two frames
_RATE_HZ: Final = 16_000
# A burst shows with its frame: up to half a frame early or late, evenly, so 40 / sqrt(12) ms as a
# standard deviation of one; and an onset of sound is known to 4 ms of polling and 5.3 of window.
ERROR_MS: Final = 12.0


def measure_webrtc(
    delays_ms: Sequence[float], seconds: float, report: Report | None = None
) -> dict[str, Any]:
    """A call of `seconds` after settling, for each engine delay.

    Returns: runs: list of engine_delay_ms, bursts, delay_ms and offset_ms (percentiles; of the
    offset also min; above 0 the sound is late), own_ms (delay without the engine's),
    offset_over_time (s, ms), frames, skipped and repeated (by the counter), error_ms (of one
    burst, standard deviation), others_cores, samples_ms.

    Raises: UsageError without Playwright, Chromium or aiortc, or when no picture came.
    """
    runs = []
    for number, delay_ms in enumerate(delays_ms):
        if report is not None:
            report(f"engine delay {delay_ms:.0f} ms", number / len(delays_ms))
        load = Load()
        with tempfile.TemporaryDirectory() as folder:
            voice = write_bursts(Path(folder) / "voice.wav", round(seconds + SETTLE_S) + 30)
            found = _call(FlashEngine(delay_ms=delay_ms), voice, seconds)
        runs.append({**figures(found, delay_ms), "others_cores": load.others()})
    return {"runs": runs}


def figures(found: dict[str, Any], engine_delay_ms: float) -> dict[str, Any]:
    """Of what the page saw: {settled_ms, onsets: {said, heard, seen}, shown}; all in ms.

    Raises: UsageError when fewer than three bursts came through.
    """
    onsets = found["onsets"]
    said, heard, seen = (np.asarray(onsets[k], np.float64) for k in ("said", "heard", "seen"))
    seen = seen[seen > found["settled_ms"]]
    if min(len(seen), len(heard), len(said)) < 3:
        raise UsageError(
            f"{len(said)} bursts were said, {len(heard)} heard and {len(seen)} seen; "
            "measure for longer, or look why the call does not work"
        )
    delay = np.array([s - said[said < s].max() for s in seen])
    offset = np.array([heard[np.abs(heard - s).argmin()] - s for s in seen])
    counters = np.array([n for at, n in found["shown"] if at > found["settled_ms"]], np.int64)
    steps = np.diff(counters)
    over = [[(s - seen[0]) / 1000, o] for s, o in zip(seen, offset, strict=True)]
    return {
        "engine_delay_ms": engine_delay_ms,
        "bursts": len(seen),
        "delay_ms": percentiles(delay.tolist()),
        "own_ms": round(float(np.median(delay)) - engine_delay_ms, 2),
        "offset_ms": {**percentiles(offset.tolist()), "min": round(float(offset.min()), 2)},
        "offset_over_time": over,
        "offset_drift_ms_per_min": _slope(over),
        "frames": len(counters),
        "skipped": int((steps[steps > 1] - 1).sum()),
        "repeated": int((steps == 0).sum()),
        "error_ms": ERROR_MS,
        "samples_ms": {"delay": delay.tolist(), "offset": offset.tolist()},
    }


def webrtc_text(result: dict[str, Any]) -> str:
    """For people."""
    lines = []
    for run in result["runs"]:
        p, o = run["delay_ms"], run["offset_ms"]
        lines.append(
            f"engine delay {run['engine_delay_ms']:.0f} ms: microphone to picture p50 "
            f"{p['p50']:.0f}, p95 {p['p95']:.0f}, p99 {p['p99']:.0f} ms ({run['own_ms']:.0f} of it "
            f"not the engine's delay); sound against picture p50 {o['p50']:+.0f}, {o['min']:+.0f} "
            f"to {o['max']:+.0f} ms, drift {run['offset_drift_ms_per_min']:+.1f} ms/min; "
            f"{run['bursts']} bursts, ± {run['error_ms']:.0f} ms each; {run['frames']} frames, "
            f"{run['skipped']} skipped; others kept {run['others_cores']} cores busy"
        )
    return "\n".join(lines)


def write_bursts(path: Path, seconds: int) -> Path:
    """400 Hz, loud for 200 ms of every period; a 16-bit mono WAV."""
    t = np.arange(_RATE_HZ * seconds) / _RATE_HZ
    tone: NDArray[np.float64] = 0.9 * np.sin(2 * np.pi * 400 * t)
    tone *= t % PERIOD_S > PERIOD_S - 0.2
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE_HZ)
        file.writeframes(np.round(tone * 32767).astype("<i2").tobytes())
    return path


def _call(engine: LiveEngine, voice: Path, seconds: float) -> dict[str, Any]:
    with _serving(engine) as url, _browser(voice) as page:
        page.add_init_script(TAP)
        page.goto(url + "healthz")  # any page of the same origin will do
        page.evaluate("document.body.replaceChildren()")
        page.evaluate(CALL, BITS)
        for _ in range(200):
            if page.evaluate("window.shown.length"):
                break
            page.wait_for_timeout(50)
        else:
            raise UsageError("no picture came within 10 s; is UDP on 127.0.0.1 open?")
        page.wait_for_timeout(SETTLE_S * 1000)
        settled_ms = page.evaluate("performance.now()")
        page.wait_for_timeout(seconds * 1000)
        found: dict[str, Any] = page.evaluate("({ onsets: window.onsets, shown: window.shown })")
    return {**found, "settled_ms": settled_ms}


@contextmanager
def _serving(engine: LiveEngine) -> Iterator[str]:
    """A server in a thread; yields its URL."""
    try:
        from aiohttp import web

        from lipstream.streaming.server.app import ServerOptions, make_app
    except ImportError as error:
        raise UsageError(f"{error}: pip install 'lipstream[live]'") from error

    async def ready(name: str) -> LiveEngine:
        return engine

    async def begin() -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(make_app(ServerOptions(port=0), lambda: ["flash"], ready))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, int(runner.addresses[0][1])

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = None
    try:
        runner, port = asyncio.run_coroutine_threadsafe(begin(), loop).result(20)
        yield f"http://127.0.0.1:{port}/"
    finally:
        if runner is not None:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextmanager
def _browser(voice: Path) -> Iterator[Any]:
    """A page in Chromium whose microphone is a file."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise UsageError(f"{error}: pip install playwright") from error
    if not CHROMIUM.exists():
        raise UsageError(f"no Chromium at {CHROMIUM}: install it, or set LIPSTREAM_CHROMIUM")
    with sync_playwright() as start:
        chromium = start.chromium.launch(
            executable_path=str(CHROMIUM),
            args=[*FLAGS, f"--use-file-for-fake-audio-capture={voice}"],
        )
        try:
            yield chromium.new_page(viewport={"width": 800, "height": 600})
        finally:
            chromium.close()


def _slope(points: list[list[float]]) -> float:
    """ms per minute of the least-squares line through (s, ms)."""
    t, y = np.array(points).T
    if np.ptp(t) < 1.0:
        return 0.0
    return round(60 * float(np.polyfit(t, y, 1)[0]), 2)
