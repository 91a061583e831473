"""The page in Chromium, used as a person would, with a recording as its microphone (see `page`)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.bench.measure.webrtc import write_bursts  # noqa: E402
from lipstream.streaming.server.api import openapi_document  # noqa: E402
from lipstream.streaming.server.app import ServerOptions  # noqa: E402
from lipstream.streaming.server.targets import TargetRegistry  # noqa: E402
from lipstream.streaming.webrtc.ice_servers import IceServer  # noqa: E402
from tests.streaming.live_engine import LiveFakeEngine  # noqa: E402
from tests.streaming.server.page import (  # noqa: E402
    SIZES,
    TAP,
    always,
    begin_call,
    browser,
    picture,
    screenshots,
    server_figures,
    serving,
    shipped,
    until,
    wait_for_picture,
)
from tests.streaming.sound_files import write_wav  # noqa: E402


def test_a_person_sees_and_hears_the_target(target: Path, tmp_path: Path) -> None:
    """Without the renderer, so that it fits a busy machine; at 25 fps where there is time."""
    registry = TargetRegistry(target.parent)
    engine = shipped(target, renderer="none")
    voice = write_bursts(tmp_path / "voice.wav", 30)
    with serving(registry.names, always(engine), registry) as url, browser(voice) as page:
        wrong: list[str] = []
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        until(page, "document.getElementById('picture').poster.startsWith('blob:')")
        assert page.inner_text("#about") == "photo, 512 × 512, 25 fps"
        screenshots(page, tmp_path, "idle")
        begin_call(page, url, "demo")
        wait_for_picture(page)
        page.wait_for_timeout(1500)
        page.get_by_role("button", name="show the figures").click()
        before, server_before = picture(page), server_figures(page, url)
        page.wait_for_timeout(8_000)
        after, server_after = picture(page), server_figures(page, url)
        rendered = server_after["frames"] - server_before["frames"]
        skipped = (server_after["skipped_ms"] - server_before["skipped_ms"]) / 40
        seconds = after["at_s"] - before["at_s"]
        assert rendered + skipped == pytest.approx(25 * seconds, abs=15)
        seen = after["frames"] - before["frames"] - (after["dropped"] - before["dropped"])
        assert seen > 0.8 * rendered - 5
        assert not after["muted"]
        meter = {
            e.get_attribute("data-value"): e.inner_text() for e in page.query_selector_all("dd")
        }
        assert meter["engine"] == "120 ms" and meter["rate"].endswith("fps")
        assert "ms" in meter["offset"] and meter["delay"].endswith("ms")
        assert page.get_by_text("Synthetic picture").is_visible()
        screenshots(page, tmp_path, "call")

        mute = page.get_by_role("button", name="Mute your voice")
        mute.press("Enter")  # by keyboard
        assert mute.get_attribute("aria-pressed") == "true"
        page.get_by_role("button", name="End the call").click()
        page.get_by_role("button", name="Start the call").wait_for(state="visible")
        assert page.inner_text("#status") == "The call has ended."
        page.wait_for_timeout(300)
        assert not wrong


def test_axe_finds_nothing(tmp_path: Path) -> None:
    """WCAG 2 A and AA by axe-core: before a call and in it, by size, light and dark."""
    package = pytest.importorskip("axe_playwright_python", reason="no axe-playwright-python")
    axe = (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    rules = "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})"
    voice = write_bursts(tmp_path / "voice.wav", 5)

    def violations(page: Any) -> list[str]:
        found = []
        for device, scheme in itertools.product(SIZES, ("light", "dark")):
            page.set_viewport_size(SIZES[device])
            page.emulate_media(color_scheme=scheme)
            for one in page.evaluate(rules)["violations"]:
                nodes = [node["html"] for node in one["nodes"]]
                found.append(f"{device}, {scheme}: {one['help']}: {nodes}")
        return found

    with serving(lambda: ["flash"], always(LiveFakeEngine())) as url, browser(voice) as page:
        page.goto(url)
        page.get_by_role("radio", name="flash").check()
        page.evaluate(axe)
        assert page.evaluate(rules)["passes"], "it looked at something"
        before = violations(page)
        page.get_by_role("button", name="Start the call").click()
        wait_for_picture(page)
        page.get_by_role("button", name="show the figures").click()
        assert before + violations(page) == []


def test_echo_is_cancelled_where_the_avatar_is_heard(tmp_path: Path) -> None:
    voice = write_bursts(tmp_path / "voice.wav", 5)
    with serving(lambda: ["flash"], always(LiveFakeEngine())) as url, browser(voice) as page:
        page.add_init_script(
            "window.asked = []; const devices = navigator.mediaDevices;"
            "const ask = devices.getUserMedia.bind(devices);"
            "devices.getUserMedia = (wanted) => { window.asked.push(wanted); return ask(wanted); };"
        )
        begin_call(page, url, "flash")
        wait_for_picture(page)
        asked = page.evaluate("window.asked")
        assert asked and all(one["audio"]["echoCancellation"] is True for one in asked)


def test_the_page_shows_why_a_call_ended(target: Path, tmp_path: Path) -> None:
    """By another's DELETE here; a network that breaks and a server that stops end it as well."""
    voice = write_bursts(tmp_path / "voice.wav", 5)
    with serving(lambda: ["flash"], always(LiveFakeEngine())) as url, browser(voice) as page:
        began = "const f = fetch; fetch = async (...a) => { const r = await f(...a); "
        began += "if (r.headers.get('Location')) window.place = r.headers.get('Location');"
        page.add_init_script(began + " return r; };")
        begin_call(page, url, "flash")
        page.get_by_text("Connected: talk.").wait_for(timeout=10_000)
        assert (
            page.evaluate("fetch(window.place, { method: 'DELETE' }).then((r) => r.status)") == 200
        )
        page.get_by_text("the client ended it").wait_for(timeout=10_000)
        assert page.get_by_role("button", name="Start the call").is_enabled()


def test_the_browser_uses_the_servers_that_the_operator_names(tmp_path: Path) -> None:
    voice = write_bursts(tmp_path / "voice.wav", 5)
    turn = IceServer(("turn:127.0.0.1:9?transport=udp",), "ann", "secret")
    options = ServerOptions(port=0, token="a-secret-token", ice_servers=(turn,))
    engine = always(LiveFakeEngine())
    with serving(lambda: ["flash"], engine, None, options) as url, browser(voice) as page:
        page.add_init_script(
            "const Original = RTCPeerConnection; window.given = [];"
            "RTCPeerConnection = class extends Original"
            " { constructor(given) { super(given); window.given.push(given); } };"
        )
        page.goto(url)
        page.get_by_text("This server asks for its access token.").wait_for()
        token = page.get_by_label("Access token of this server")
        token.fill("another-token")
        token.press("Enter")
        page.get_by_text("That token is not this server’s.").wait_for()
        token.fill("a-secret-token")
        token.press("Enter")
        page.get_by_role("radio", name="flash").wait_for(state="attached")
        page.reload()  # the right one survives it
        page.get_by_role("radio", name="flash").wait_for(state="attached")
        page.get_by_role("button", name="Start the call").click()
        until(page, "window.given.length")
        assert page.evaluate("window.given") == [{"iceServers": [turn.as_json()]}]


def test_the_api_is_described_for_people(tmp_path: Path) -> None:
    silence = write_wav(tmp_path / "silence.wav", np.zeros(16_000, np.float32))
    options = ServerOptions(port=0, token="a-secret-token")
    engine = always(LiveFakeEngine())
    with serving(lambda: ["flash"], engine, None, options) as url, browser(silence) as page:
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        page.get_by_role("link", name="API").click()
        page.get_by_text("This server asks for its access token.").wait_for()
        page.get_by_label("Token of this server").fill("a-secret-token")
        page.get_by_role("button", name="Show").click()
        page.get_by_role("heading", name="POST /whip").wait_for()
        titles = set(page.locator("h2").all_inner_texts())
        made = openapi_document()
        for path, item in made["paths"].items():
            assert {f"{method.upper()} {path}" for method in item} <= titles
        assert set(made["components"]["schemas"]) <= titles
        assert "503" in page.inner_text("#api") and "skipped_ms" in page.inner_text("#api")
        screenshots(page, tmp_path, "api")
        assert not wrong


def test_a_file_speaks_in_place_of_a_microphone(tmp_path: Path) -> None:
    silence = write_wav(tmp_path / "silence.wav", np.zeros(16_000, np.float32))
    voice = write_bursts(tmp_path / "voice.wav", 20)
    nonsense = tmp_path / "notes.wav"
    nonsense.write_text("not a sound")
    with serving(lambda: ["flash"], always(LiveFakeEngine())) as url, browser(silence) as page:
        page.add_init_script(TAP)
        page.goto(url)
        start = page.get_by_role("button", name="Start the call")
        page.get_by_role("radio", name="An audio file").check()
        start.click()
        assert page.inner_text("#status") == "Choose an audio file first."
        page.get_by_label("Choose an audio file").set_input_files(nonsense)
        start.click()
        page.get_by_text("notes.wav is not a sound file").wait_for(timeout=5000)
        page.get_by_label("Choose an audio file").set_input_files(voice)
        start.click()
        wait_for_picture(page)
        page.evaluate("window.watch()")
        both = "window.onsets.seen.length > 2 && window.onsets.audible.length > 2"
        until(page, both, 18_000)
        page.get_by_role("button", name="Interrupt").click()
        page.get_by_role("button", name="Say the file again").wait_for()


def test_a_lost_connection_is_said_and_made_again_with_the_resume_token(tmp_path: Path) -> None:
    """The first answer is given a token; the browser's end of that connection then goes away."""
    voice = write_bursts(tmp_path / "voice.wav", 20)
    given: list[str | None] = []

    def answer(route: Any) -> None:
        given.append(route.request.headers.get("lipstream-resume"))
        response = route.fetch()
        headers = {**response.headers, "Lipstream-Resume": f"token-{len(given)}"}
        headers["Lipstream-Resumed"] = "yes" if given[-1] else "no"
        route.fulfill(response=response, headers=headers)

    with serving(lambda: ["flash"], always(LiveFakeEngine())) as url, browser(voice) as page:
        page.add_init_script(
            "const Original = RTCPeerConnection; window.made = [];"
            "RTCPeerConnection = class extends Original"
            " { constructor(given) { super(given); window.made.push(this); } };"
        )
        page.route("**/whip?*", answer)
        begin_call(page, url, "flash")
        page.get_by_text("Connected: talk.").wait_for(timeout=10_000)
        page.evaluate("window.made[0].close()")
        page.get_by_text("Connecting again …").wait_for(timeout=2000)
        page.get_by_text("Connected again.").wait_for(timeout=10_000)
        assert given == [None, "token-1"]
        page.unroute("**/whip?*")
        page.route("**/whip?*", lambda route: route.fulfill(status=401, json={"error": "no"}))
        page.evaluate("window.made.at(-1).close()")
        page.get_by_text("asks for its access token").first.wait_for(timeout=5000)


def test_a_link_chooses_the_target_and_no_https_is_explained(tmp_path: Path) -> None:
    silence = write_wav(tmp_path / "silence.wav", np.zeros(16_000, np.float32))
    names = ["a", "b"]
    with serving(lambda: names, always(LiveFakeEngine())) as url, browser(silence) as page:
        page.goto(url + "?target=b")
        page.get_by_role("radio", name="b", exact=True).wait_for(state="attached")
        assert page.get_by_role("radio", name="b", exact=True).is_checked()
        page.goto(url + "?target=c")
        page.get_by_text("There is no target “c” here.").wait_for()
        page.add_init_script("Object.defineProperty(window, 'isSecureContext', { value: false });")
        page.goto(url)
        page.get_by_text("--tls self-signed").wait_for()
        assert page.get_by_role("radio", name="An audio file").is_checked()


def test_nothing_in_the_page_is_found_from_the_root() -> None:
    """So it works under any path of a proxy."""
    folder = Path(__file__).parents[3] / "streaming" / "server" / "web"
    for file in folder.iterdir():
        text = file.read_text("utf-8")
        for start in ('href="/', 'src="/', 'fetch("/', 'request("/', "request(`/", 'from "/'):
            assert start not in text, (file.name, start)
