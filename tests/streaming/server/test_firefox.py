"""Firefox as a caller and as a viewer. Needs Debian's firefox-esr ($LIPSTREAM_FIREFOX)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from tests.streaming.server.fake_server import server  # noqa: E402
from tests.streaming.server.marionette import FIREFOX, Firefox, firefox  # noqa: E402

if not FIREFOX.exists():
    pytest.skip(f"no Firefox at {FIREFOX}: apt-get install firefox-esr", allow_module_level=True)

CALL = """
    const [url, speaks] = args;
    const pc = new RTCPeerConnection();
    const stream = new MediaStream();
    const hum = speaks && await navigator.mediaDevices.getUserMedia({audio: true});
    const voice = hum && hum.getTracks()[0];
    const direction = speaks ? "sendrecv" : "recvonly";
    for (const one of [pc.addTransceiver(voice || "audio", {direction}),
                       pc.addTransceiver("video", {direction: "recvonly"})])
        stream.addTrack(one.receiver.track);
    const picture = document.createElement("video");
    Object.assign(picture, {muted: true, autoplay: true, srcObject: stream});
    document.documentElement.append(picture);
    await pc.setLocalDescription();
    while (pc.iceGatheringState !== "complete")
        await new Promise((wake) => { pc.onicegatheringstatechange = wake; });
    const offer = pc.localDescription.sdp;
    const headers = {"Content-Type": "application/sdp"};
    const answer = await fetch(url, {method: "POST", headers, body: offer});
    const sdp = await answer.text();
    if (answer.status !== 201) throw new Error(sdp);
    await pc.setRemoteDescription({type: "answer", sdp});
    const place = answer.headers.get("Location");
    const found = {};
    for (let tries = 0; tries < 300; tries++) {
        await new Promise((wake) => setTimeout(wake, 100));
        for (const one of (await pc.getStats()).values())
            if (one.type === "inbound-rtp") found[one.kind] = one;
        const {width, height} = {width: picture.videoWidth, height: picture.videoHeight};
        Object.assign(found, {width, height, state: pc.connectionState});
        if (found.video?.framesDecoded >= 20 && found.audio?.packetsReceived >= 30) break;
    }
    found.figures = await (await fetch(place)).json();
    await fetch(place, {method: "DELETE"});
    pc.close();
    return {...found, offer,
            frames: found.video?.framesDecoded ?? 0, packets: found.audio?.packetsReceived ?? 0};
"""


def test_firefox_calls_and_watches() -> None:
    async def call(browser: Firefox, path: str, speaks: bool) -> dict[str, Any]:
        found = await browser.run(CALL, path, speaks)
        print(f"\n{path}: {found['frames']} frames, {found['packets']} packets of sound")
        assert found["state"] == "connected"
        assert found["frames"] >= 20 and found["packets"] >= 30
        assert (found["width"], found["height"]) == (64, 48)
        return found

    async def test() -> None:
        async with server() as http, firefox() as browser:
            page = f"{str(http._base_url).rstrip('/')}/style.css"
            await browser.command("WebDriver:Navigate", url=page)
            spoken = await call(browser, "/whip?target=face", True)
            assert spoken["figures"]["since_audio_ms"] < 1000, "the microphone's hum came in"
            watched = await call(browser, "/whep?target=face", False)
            assert watched["figures"]["since_audio_ms"] is None
            listed = await (await http.get("/api/sessions")).json()
            assert listed["sessions"] == []

    asyncio.run(test())
