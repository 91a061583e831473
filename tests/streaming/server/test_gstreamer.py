"""GStreamer, which shares no code with aiortc, as the one who watches and the one who speaks.

Needs, from Debian: gstreamer1.0-plugins-bad, gstreamer1.0-plugins-good, gstreamer1.0-nice,
gstreamer1.0-libav, python3-gi and gir1.2-gst-plugins-bad-1.0.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")
pytest.importorskip("aiortc", reason="aiortc is not installed")

from lipstream.engine.speech.encoder import Encoder  # noqa: E402
from lipstream.engine.types import F32  # noqa: E402
from lipstream.streaming.files.audio_file import AudioFile  # noqa: E402
from lipstream.streaming.files.expression_stream import expressions  # noqa: E402
from lipstream.streaming.server.targets import EngineSetting, TargetRegistry  # noqa: E402
from tests.streaming.server.fake_server import server  # noqa: E402
from tests.streaming.sound_files import write_wav  # noqa: E402

PYTHON = Path("/usr/bin/python3")  # the system's: it is the one that has gi
CLIENT = Path(__file__).with_name("gstreamer_client.py")
NEEDED = ("webrtcbin", "nicesrc", "opusenc", "opusdec", "avdec_h264", "vp8dec", "h264parse")
PROBE = f"""
import gi
gi.require_version("Gst", "1.0"); gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import Gst, GstSdp, GstWebRTC
Gst.init(None)
print(*(name for name in {NEEDED} if not Gst.ElementFactory.find(name)))
"""
SLOW = bool(os.environ.get("LIPSTREAM_SLOW"))
MOUTH = (214, 224, 80, 56)  # of the demo target, px: x, y, width, height


@pytest.fixture(scope="module", autouse=True)
def gstreamer() -> None:
    if not PYTHON.exists():
        pytest.skip(f"no {PYTHON}")
    probe = subprocess.run([PYTHON, "-c", PROBE], capture_output=True, text=True, timeout=60)
    if probe.returncode:
        pytest.skip(
            "no GStreamer for Python: apt-get install python3-gi gir1.2-gst-plugins-bad-1.0"
        )
    if probe.stdout.strip():
        pytest.skip(f"GStreamer without {probe.stdout.strip()}: see the packages in this file")


async def client(*arguments: str) -> dict[str, Any]:
    """The JSON object that the client prints."""
    process = await asyncio.create_subprocess_exec(
        PYTHON, CLIENT, *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        stdout, stderr = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, stderr.decode()
    result: dict[str, Any] = json.loads(stdout)
    return result


def opening(speech: F32) -> tuple[np.ndarray, np.ndarray]:
    """(s, the lips' opening) that this voice asks for, by the encoder alone."""
    known = list(expressions(Encoder(80), [speech]))
    return np.array([e.sample / 16_000 for e in known]), np.array([e.lips.opening for e in known])


@pytest.mark.alone
def test_a_voice_by_whip_moves_the_mouth_that_whep_shows(tmp_path: Path) -> None:
    from lipstream.calibration.demo import build_demo_target, demo_speech
    from lipstream.calibration.photo.motion import still_motion

    still = build_demo_target(tmp_path, still_motion())  # what moves is the mouth
    registry = TargetRegistry(still.parent, EngineSetting(renderer="auto" if SLOW else "none"))
    with AudioFile(demo_speech(tmp_path)) as sound:
        speech = np.concatenate([block.speech for block in sound.blocks()])[: 16_000 * 9]
    voice = write_wav(tmp_path / "voice.wav", speech)

    async def test() -> tuple[dict[str, Any], dict[str, Any]]:
        await registry.engine("demo")  # warm, as `lipstream serve` does
        async with server(registry) as http:
            url = f"{http._base_url}".rstrip("/")
            box = ",".join(map(str, MOUTH))
            viewer = client("whep", f"{url}/whep?target=demo", "11.5", "H264", box)
            speaker = client("whip", f"{url}/whip?target=demo", str(voice))
            seen, sent = await asyncio.gather(viewer, speaker)
            assert (await (await http.get("/api/sessions")).json())["sessions"] == []
            return seen, sent

    seen, sent = asyncio.run(test())
    assert seen["size"] == [512, 512]
    arrived_s = np.array([picture[0] for picture in seen["pictures"]])
    pts_s = np.array([picture[1] for picture in seen["pictures"]])[25:]
    fps = (len(pts_s) - 1) / (pts_s[-1] - pts_s[0])
    steps_ms = 1000 * np.diff(pts_s)
    assert arrived_s[-1] - arrived_s[0] > 10
    if SLOW:  # for a machine that is quiet
        assert len(arrived_s) > 10 * 25 * 0.98
        assert np.percentile(np.abs(steps_ms - 40), 95) < 25
    assert len(arrived_s) > 100
    assert np.median(np.abs(steps_ms - 40)) < 2
    assert max(peak for _, peak in seen["sounds"]) > 3000, "the voice arrives as well"

    patches = [base64.b64decode(picture[2]) for picture in seen["pictures"]]
    mouths = np.array([np.frombuffer(p, np.uint8) for p in patches], np.float32)
    at_s = arrived_s - sent["began"]
    kept = (at_s > 0.5) & (at_s < 8.5)
    mouths, at_s = mouths[kept] - mouths[kept].mean(axis=0), at_s[kept]
    # What changes most about the mouth's pixels, known to nobody but the viewer.
    shape = mouths @ np.linalg.svd(mouths, full_matrices=False)[2][0]
    lags_s = np.arange(-1.5, 1.5, 0.02)
    asked = opening(speech)
    follows = np.abs(
        [np.corrcoef(shape, np.interp(at_s - lag_s, *asked))[0, 1] for lag_s in lags_s]
    )
    best = int(follows.argmax())
    at_other_lags = follows[np.abs(lags_s - lags_s[best]) > 0.4].max()
    print(
        f"\nWHEP by GStreamer: {fps:.2f} fps, steps of 40 ms within "
        f"{np.percentile(np.abs(steps_ms - 40), 95):.1f} ms (95 of 100), {len(arrived_s)} "
        f"pictures; the mouth follows the voice of WHIP by {follows[best]:.2f} at "
        f"{1000 * lags_s[best]:.0f} ms, at_other_lags {at_other_lags:.2f} at most"
    )
    assert follows[best] > 0.7 and follows[best] > 2 * at_other_lags
    assert 0.12 <= lags_s[best] <= 0.45, "engine delay, playout delay and two jitter buffers"


def test_vp8_plays_as_well() -> None:
    async def test() -> dict[str, Any]:
        async with server() as http:
            url = f"{http._base_url}".rstrip("/") + "/whep?target=face"
            return await client("whep", url, "2", "VP8", "0,0,8,8")

    seen = asyncio.run(test())
    assert seen["size"] == [64, 48]
    assert len(seen["pictures"]) > 40 and len(seen["sounds"]) > 60
