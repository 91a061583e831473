"""The page in Chromium, for tests: who serves it, what a person does, and what is seen.

Needs `pip install playwright axe-playwright-python` and a Chromium at /usr/bin/chromium
($LIPSTREAM_CHROMIUM); tests that import this are skipped without.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from lipstream.bench.measure import browser as browsers
from lipstream.bench.measure.browser_tap import LISTEN

if not browsers.CHROMIUM.exists():
    pytest.skip(f"no Chromium at {browsers.CHROMIUM}", allow_module_level=True)
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.streaming.server.app import ServerOptions, make_app  # noqa: E402
from lipstream.streaming.server.targets import EngineSetting, TargetDescriptions  # noqa: E402
from lipstream.streaming.session.live_engine import LiveEngine, warm_up  # noqa: E402

SIZES = {
    "phone": {"width": 390, "height": 664},
    "wide_phone": {"width": 844, "height": 390},
    "desk": {"width": 1366, "height": 680},
}

# window.onsets: of the bursts at the microphone, in the sound and in the picture.
TAP = (
    LISTEN
    + """
const original = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
window.onsets = { spoken: [], audible: [], seen: [] };
navigator.mediaDevices.getUserMedia = async (wanted) => {
  const stream = await original(wanted);
  window.listen(stream, "spoken");
  return stream;
};
window.watch = () => {
  const video = document.getElementById("picture");
  window.listen(video.srcObject, "audible");
  const canvas = new OffscreenCanvas(8, 8); // its upper left 2 × 2 is the mark
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let white = true;
  const look = () => {
    pen.drawImage(video, 0, 0, 8, 8);
    const now = pen.getImageData(0, 0, 1, 1).data[0] > 128;
    if (now && !white) window.onsets.seen.push(performance.now());
    white = now;
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
};
"""
)


def serving(
    names: Callable[[], list[str]],
    engine: Callable[[str], Awaitable[LiveEngine]],
    descriptions: TargetDescriptions | None = None,
    options: ServerOptions | None = None,
) -> AbstractContextManager[str]:
    """A server in a thread; yields its URL."""
    made = options or ServerOptions(port=0)
    return browsers.serving(lambda: make_app(made, names, engine, descriptions))


def browser(voice: Path) -> AbstractContextManager[Any]:
    return browsers.browser(voice, (SIZES["desk"]["width"], SIZES["desk"]["height"]))


def begin_call(page: Any, url: str, target: str) -> None:
    page.goto(url)
    page.get_by_role("radio", name=target).check()
    page.get_by_role("button", name="Start the call").click()


def picture(page: Any) -> dict[str, float]:
    return page.evaluate(
        "(() => { const v = document.getElementById('picture'), q = v.getVideoPlaybackQuality();"
        " return {at_s: performance.now() / 1000, time_s: v.currentTime,"
        " frames: q.totalVideoFrames, dropped: q.droppedVideoFrames, muted: v.muted}; })()"
    )


def until(page: Any, holds: str, timeout_ms: int = 5000) -> None:
    """Playwright's own waiting evaluates text inside the page, which the page's policy forbids."""
    for _ in range(0, timeout_ms, 50):
        if page.evaluate(holds):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within {timeout_ms} ms: {holds}")


def server_figures(page: Any, url: str) -> dict[str, Any]:
    (session,) = page.request.get(url + "api/sessions").json()["sessions"]
    return session


def screenshots(page: Any, folder: Path, name: str) -> None:
    """Screenshots as on a desk and on a phone, light and dark.

    Nothing may stick out to the side, and every button is large enough for a finger.
    """
    folder = Path(os.environ.get("LIPSTREAM_SCREENSHOTS", folder))
    for device, size in SIZES.items():
        page.set_viewport_size(size)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size["width"], (device, wide)
        for button in page.get_by_role("button").all():
            box = button.bounding_box()
            assert box is None or box["height"] >= 44, button.inner_text()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=folder / f"{name}_{device}_{scheme}.png", full_page=True)
    page.set_viewport_size(SIZES["desk"])


def wait_for_picture(page: Any) -> float:
    """ms until the first picture."""
    for waited_ms in range(0, 10_000, 50):
        if picture(page)["time_s"] > 0:
            return waited_ms
        page.wait_for_timeout(50)
    raise AssertionError(page.inner_text("#status"))


def shipped(target: Path, **setting: str) -> LiveEngine:
    """The engine of a bundle, warm, as `lipstream serve` has it before it listens."""
    engine = EngineSetting(**setting).load(target)
    warm_up(engine)
    return engine


def always(engine: LiveEngine) -> Callable[[str], Awaitable[LiveEngine]]:
    async def ready(name: str) -> LiveEngine:
        return engine

    return ready
