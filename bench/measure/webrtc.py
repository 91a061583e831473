"""Delay from microphone to picture, and A/V offset over time, in a browser on loopback.

A file of bursts stands in for Chromium's microphone. The engine of the server is `flash`, whose
picture turns white with the sound and carries a frame counter. The page times the microphone, the
sound that comes back and the picture (`browser_tap`). docs/benchmarks.md has the method and its
error. Needs Playwright and Chromium.
"""

from __future__ import annotations

import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.bench.machine import Load
from lipstream.bench.measure.browser import browser, serving
from lipstream.bench.measure.browser_tap import CALL, TAP
from lipstream.bench.measure.flash import BITS, FlashEngine
from lipstream.bench.measure.latency import Report
from lipstream.bench.measure.statistics import percentiles
from lipstream.engine.errors import UsageError
from lipstream.streaming.session.live_engine import LiveEngine

SIZE: Final = (800, 600)  # of the page, px
SETTLE_S: Final = 10.0  # until the jitter buffers of a browser are stable after the first picture
PERIOD_S: Final = 1.013  # no multiple of a frame interval: bursts fall at every phase of it
_RATE_HZ: Final = 16_000
# A burst becomes visible with its frame, up to half a frame early or late: uniform over 40 ms,
# whose standard deviation is 40 / sqrt(12). Polling (4 ms) and window (5.3 ms) add little to it.
ERROR_MS: Final = 12.0


def measure_webrtc(
    delays_ms: Sequence[float], seconds: float, report: Report | None = None
) -> dict[str, Any]:
    """One call for each engine delay, measured over `seconds` after SETTLE_S.

    Returns: runs: list of engine_delay_ms, bursts, delay_ms and offset_ms (percentiles; of the
    offset also min; above 0 the sound is late), own_ms (delay without the engine's),
    offset_over_time (s, ms), frames, skipped and repeated (by the frame counter), error_ms
    (standard deviation of one burst), others_cores, samples_ms.

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
    """The figures of one call from the times that the page recorded, all in ms.

    found: {settled_ms, onsets: {microphone, sound, picture}, shown}, as in `browser_tap`.

    Raises: UsageError when fewer than three bursts came through.
    """
    onsets = found["onsets"]
    microphone, sound, picture = (
        np.asarray(onsets[k], np.float64) for k in ("microphone", "sound", "picture")
    )
    picture = picture[picture > found["settled_ms"]]
    if min(len(picture), len(sound), len(microphone)) < 3:
        raise UsageError(
            f"got {len(microphone)} bursts at the microphone, {len(sound)} in the sound and "
            f"{len(picture)} in the picture, expected at least 3 of each; measure for longer "
            "(--seconds), or check that a call works in this browser"
        )
    delay = np.array([at - microphone[microphone < at].max() for at in picture])
    offset = np.array([sound[np.abs(sound - at).argmin()] - at for at in picture])
    counters = np.array([n for at, n in found["shown"] if at > found["settled_ms"]], np.int64)
    steps = np.diff(counters)
    over_time = [[(at - picture[0]) / 1000, ms] for at, ms in zip(picture, offset, strict=True)]
    return {
        "engine_delay_ms": engine_delay_ms,
        "bursts": len(picture),
        "delay_ms": percentiles(delay.tolist()),
        "own_ms": round(float(np.median(delay)) - engine_delay_ms, 2),
        "offset_ms": {**percentiles(offset.tolist()), "min": round(float(offset.min()), 2)},
        "offset_over_time": over_time,
        "offset_drift_ms_per_min": _slope(over_time),
        "frames": len(counters),
        "skipped": int((steps[steps > 1] - 1).sum()),
        "repeated": int((steps == 0).sum()),
        "error_ms": ERROR_MS,
        "samples_ms": {"delay": delay.tolist(), "offset": offset.tolist()},
    }


def webrtc_text(result: dict[str, Any]) -> str:
    """The figures as lines for people."""
    lines = []
    for run in result["runs"]:
        p, o = run["delay_ms"], run["offset_ms"]
        lines.append(
            f"engine delay {run['engine_delay_ms']:.0f} ms: microphone to picture p50 "
            f"{p['p50']:.0f}, p95 {p['p95']:.0f}, p99 {p['p99']:.0f} ms ({run['own_ms']:.0f} of it "
            f"not the engine's delay); A/V offset p50 {o['p50']:+.0f}, {o['min']:+.0f} "
            f"to {o['max']:+.0f} ms, drift {run['offset_drift_ms_per_min']:+.1f} ms/min; "
            f"{run['bursts']} bursts, ± {run['error_ms']:.0f} ms each; {run['frames']} frames, "
            f"{run['skipped']} skipped; other processes used {run['others_cores']} cores"
        )
    return "\n".join(lines)


def write_bursts(path: Path, seconds: int) -> Path:
    """Bursts of 400 Hz, 200 ms in every PERIOD_S, as a 16-bit mono WAV."""
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
    try:
        from aiohttp import web

        from lipstream.streaming.server.app import ServerOptions, make_app
    except ImportError as error:
        raise UsageError(f"{error}; reinstall lipstream, or: pip install aiohttp aiortc") from error

    async def ready(name: str) -> LiveEngine:
        return engine

    def app() -> web.Application:
        return make_app(ServerOptions(port=0), lambda: ["flash"], ready)

    with serving(app) as url, browser(voice, SIZE) as page:
        page.add_init_script(TAP)
        page.goto(url + "healthz")  # any page of the same origin will do
        page.evaluate("document.body.replaceChildren()")
        page.evaluate(CALL, BITS)
        for _ in range(200):
            if page.evaluate("window.shown.length"):
                break
            page.wait_for_timeout(50)
        else:
            raise UsageError("no picture came within 10 s; check that UDP on 127.0.0.1 is open")
        page.wait_for_timeout(SETTLE_S * 1000)
        settled_ms = page.evaluate("performance.now()")
        page.wait_for_timeout(seconds * 1000)
        found: dict[str, Any] = page.evaluate("({ onsets: window.onsets, shown: window.shown })")
    return {**found, "settled_ms": settled_ms}


def _slope(points: list[list[float]]) -> float:
    """ms per minute of the least-squares line through (s, ms)."""
    t, y = np.array(points).T
    if np.ptp(t) < 1.0:
        return 0.0
    return round(60 * float(np.polyfit(t, y, 1)[0]), 2)
