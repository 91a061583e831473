"""A presenter on real PortAudio streams, a real SDL window, and pyvirtualcam."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipstream.engine.errors import SoundError, UsageError, VideoOutputError
from lipstream.engine.types import SAMPLE_RATE_HZ, U8, AudioChunk, VideoFrame
from lipstream.streaming.devices.playback import Playback
from lipstream.streaming.devices.sound_card import Device, choose
from lipstream.streaming.devices.video_outputs import Camera, Window
from lipstream.streaming.present import PresentOptions, present
from lipstream.streaming.session.runner import SessionRunner
from lipstream.streaming.session.subscription import TimedSound
from tests.clock import ScriptedClock
from tests.streaming.live_engine import LiveFakeEngine
from tests.streaming.sound_server import Recording, SoundServer, onsets, sound_server

BEEP = 0.8 * np.sin(2 * np.pi * 500 * np.arange(16_000) / 16_000) * (np.arange(16_000) < 3200)


class Seen:
    """A screen that remembers when it was white."""

    def __init__(self) -> None:
        self.frames: list[tuple[float, bool]] = []

    def show(self, frame: VideoFrame) -> None:
        self.frames.append((time.monotonic(), bool(frame.i420[0, 0] > 100)))

    def close(self) -> None:
        pass

    def onsets(self) -> np.ndarray:
        times, white = zip(*self.frames, strict=True)
        return onsets(np.array(times), np.array(white))


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SoundServer]:
    try:
        import sounddevice
    except OSError:
        pytest.skip("no PortAudio: apt-get install libportaudio2")
    with sound_server(tmp_path) as server:
        for name in ("PULSE_SERVER", "PULSE_SOURCE", "PULSE_SINK", "XDG_RUNTIME_DIR"):
            monkeypatch.setenv(name, server.environment[name])
        sounddevice._terminate()
        sounddevice._initialize()
        if not any(found["name"] == "pulse" for found in sounddevice.query_devices()):
            pytest.skip("ALSA has no device `pulse`: apt-get install libasound2-plugins")
        yield server


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("lipstream")]


def test_a_voice_in_the_microphone_is_seen_and_heard_together(sound: SoundServer) -> None:
    screen = Seen()
    microphone, speaker = Recording(sound, "voice.monitor"), Recording(sound, "speaker.monitor")
    voice = sound.say(np.concatenate([np.zeros(24_000), *[BEEP] * 8]).astype(np.float32))
    told = present(LiveFakeEngine(), [screen], PresentOptions("pulse", "pulse", 10))
    voice.wait(5)
    said = onsets(*_loud(microphone))
    heard, seen = onsets(*_loud(speaker)), screen.onsets()
    count = min(len(said), len(heard), len(seen))
    assert count >= 6, (said, heard, seen)
    apart_ms = 1000 * (heard[:count] - seen[:count])[2:]
    delay_ms = 1000 * (seen[:count] - said[:count])[2:]
    print(
        f"\npresent: {told['fps']} fps, voice to picture {np.median(delay_ms):.0f} ms (stated "
        f"{told['delay_ms']}), sound behind picture {np.median(apart_ms):.0f} ms"
    )
    assert told["input"] == told["output"] == "pulse"
    assert told["sound_lost"] == 0
    assert told["fps"] == pytest.approx(25, abs=0.3)
    # A frame is white if any of its 40 ms is loud: it is up to so much ahead.
    assert -25 < np.median(apart_ms) < 65
    assert np.median(delay_ms) == pytest.approx(told["delay_ms"] - 20, abs=60)
    assert abs(told["sound_behind_ms"]) < 40, "a frame: a busy machine starves the sound server"
    assert threads() == []


def _loud(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    times_s, samples = recording.stop()
    return times_s, np.abs(samples) > 0.03


def test_a_microphone_that_is_unplugged_comes_back(sound: SoundServer) -> None:
    screen = Seen()
    told: list[str] = []
    replugged_s: list[float] = []

    def meddle() -> None:
        time.sleep(2.0)
        sound.unplug()
        time.sleep(3.0)
        sound.plug_in()
        time.sleep(2.5)
        replugged_s.append(time.monotonic())
        sound.say(np.tile(BEEP, 5).astype(np.float32)).wait(10)

    meddling = threading.Thread(target=meddle)
    meddling.start()
    options = PresentOptions("pulse", "pulse", 13, told.append)
    report = present(LiveFakeEngine(), [screen], options)
    meddling.join()
    assert report["sound_lost"] >= 1
    assert "lost" in told[0] and "back" in told[-1]
    assert report["frames"] == pytest.approx(25 * 13, abs=15), "the picture lives on meanwhile"
    after = [at_s for at_s in screen.onsets() if at_s > replugged_s[0]]
    assert len(after) >= 3, "the voice is back"
    assert threads() == []


def test_no_microphone_is_one_clear_error(sound: SoundServer) -> None:
    with pytest.raises(UsageError, match="input device 'nonesuch': no such; there are: 0 'pulse'"):
        present(LiveFakeEngine(), [Seen()], PresentOptions("nonesuch"))
    sound.unplug()
    with pytest.raises(SoundError):
        present(LiveFakeEngine(), [Seen()], PresentOptions("pulse"))
    assert threads() == []


def test_the_command_presents_the_demo_in_a_window(sound: SoundServer, target: Path) -> None:
    pytest.importorskip("sdl2", reason="no SDL: pip install 'lipstream[present]'")
    words = ["present", target, "--input", "pulse", "--output", "pulse", "--window"]
    words += ["--renderer", "none"]  # it has to fit a busy machine
    done = subprocess.run(
        [sys.executable, "-m", "lipstream", *words, "--seconds", "4", "--json"],
        env={**sound.environment, "SDL_VIDEODRIVER": "dummy"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["profile"] == "live" and told["frames"] > 50
    in_time = told["late_frames"] + told["dropped_frames"] < 0.05 * told["frames"]
    assert told["fps"] == pytest.approx(25, abs=1) or not in_time, told
    listed = subprocess.run(
        [sys.executable, "-m", "lipstream", "present", "--list-devices"],
        env=sound.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "pulse (ALSA)" in listed.stdout


def test_a_loudspeaker_of_another_pace_is_followed() -> None:
    """Five minutes of a card that is 150 ppm slow, whose callbacks come late by up to 8 ms."""
    now = ScriptedClock(0.0)
    runner = SessionRunner(LiveFakeEngine(), time_source=now)
    playback = Playback(runner, 48_000, hold_s=0.06)
    random = np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 400 * np.arange(640) / SAMPLE_RATE_HZ).astype(np.float32)
    offered, tail, wrong_ms = 0, [], []
    for k in range(30_000):
        played_s = 0.1 + 480 * k / (48_000 * (1 - 150e-6))
        while offered / SAMPLE_RATE_HZ < played_s + 0.2:
            playback.push_audio(TimedSound(tone, offered, 0))
            offered += 640
        late_s = random.uniform(0, 0.008) if k % 3 else 0.0
        out = playback.fill(480, played_s + late_s)
        if k > 15_000:
            wrong_ms.append(1000 * playback.behind_s)
        if k > 27_000:
            tail.append(out)
    runner.close()
    assert playback.ppm == pytest.approx(150, abs=20)
    assert np.abs(np.array(wrong_ms) - 2.5).max() < 5  # 2.5 ms are the callbacks' lateness
    heard = np.concatenate(tail).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(heard * np.blackman(heard.size)))
    hz = np.fft.rfftfreq(heard.size, 1 / 48_000)
    assert hz[spectrum.argmax()] == pytest.approx(400 * (1 + 150e-6), abs=0.05)
    assert 20 * np.log10(spectrum[np.abs(hz - 400) > 20].max() / spectrum.max()) < -60


def test_an_interrupted_turn_is_not_played() -> None:
    now = ScriptedClock(0.0)
    runner = SessionRunner(LiveFakeEngine(), time_source=now)
    playback = Playback(runner, 16_000, hold_s=0.0)
    due_s = runner.delay_samples / SAMPLE_RATE_HZ
    loud = np.ones(640, np.float32)
    for k in range(10):
        playback.push_audio(TimedSound(loud, 640 * k, 0))
    assert playback.fill(800, due_s + 0.04).mean() > 0.9
    runner.interrupt()
    after = np.concatenate([playback.fill(160, due_s + 0.09 + 0.01 * k) for k in range(10)])
    assert np.abs(after[64:]).max() < 1e-3, "4 ms that the interpolation had taken, and no more"
    runner.close()


DEVICES = [
    Device(0, "Built-in Audio", "ALSA", 2, 2, 48_000, True, True),
    Device(1, "USB Microphone", "ALSA", 1, 0, 44_100, False, False),
    Device(2, "USB Speaker", "ALSA", 0, 2, 48_000, False, False),
]


@pytest.mark.parametrize(
    "wanted, speaks, index",
    [("default", False, 0), ("default", True, 0), ("1", False, 1), ("usb", True, 2)],
)
def test_devices_are_found_by_number_and_name(wanted: str, speaks: bool, index: int) -> None:
    assert choose(DEVICES, wanted, speaks).index == index


def test_a_device_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="no such; there are: 0 'Built-in Audio', 1 'USB Micro"):
        choose(DEVICES, "2", False)
    with pytest.raises(UsageError, match="several fit"):
        choose([*DEVICES, DEVICES[1]], "USB", False)
    with pytest.raises(UsageError, match="none at all"):
        choose([], "default", True)


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    sdl2 = pytest.importorskip("sdl2", reason="no SDL: pip install 'lipstream[present]'")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    made = Window("test", 64, 48)
    yield sdl2, made
    made.close()


def test_a_window_shows_the_picture_in_its_colours(window: Any) -> None:
    sdl2, made = window
    red: U8 = np.concatenate(
        [np.full((48, 64), 63), np.full((12, 64), 102), np.full((12, 64), 240)]
    ).astype(np.uint8)
    made.show(VideoFrame(red, 0, LiveFakeEngine().fps, AudioChunk(np.zeros(0, np.float32), 0), 0,
                         False))  # fmt: skip
    surface = sdl2.SDL_GetWindowSurface(made._window).contents
    pixel = (np.ctypeslib.ctypes.c_uint8 * 4).from_address(
        surface.pixels + 24 * surface.pitch + 4 * 32
    )
    blue, green, bright_red, _ = pixel
    assert (bright_red > 245, green < 10, blue < 10) == (True, True, True), list(pixel)


@pytest.mark.parametrize("key, wish", [("ESCAPE", "quit"), ("m", "mute"), ("SPACE", "interrupt")])
def test_keys_at_the_window_are_wishes(window: Any, key: str, wish: str) -> None:
    sdl2, made = window
    made.wishes()
    event = sdl2.SDL_Event()
    event.type = sdl2.SDL_KEYDOWN
    event.key.keysym.sym = getattr(sdl2, f"SDLK_{key}")
    sdl2.SDL_PushEvent(event)
    assert made.wishes() == [wish]
    assert made.wishes() == []


def test_a_virtual_camera_gets_every_byte() -> None:
    pyvirtualcam = pytest.importorskip("pyvirtualcam", reason="pip install 'lipstream[present]'")
    from pyvirtualcam.camera import BACKENDS, Backend, register_backend

    sent = []

    class Remembers(Backend):  # type: ignore[misc]
        def __init__(self, **given: Any) -> None:
            self.given = given

        def close(self) -> None:
            sent.append(b"closed")

        def send(self, frame: Any) -> None:
            sent.append(bytes(frame))

        def device(self) -> str:
            return "Remembers"

        def native_fourcc(self) -> int:
            return int(pyvirtualcam.PixelFormat.I420.value)

    others = dict(BACKENDS)
    BACKENDS.clear()
    register_backend("remembers", Remembers)
    try:
        camera = Camera(64, 48, 25.0)
        picture = np.random.default_rng(0).integers(0, 256, (72, 64), dtype=np.uint8)
        camera.show(
            VideoFrame(picture, 0, LiveFakeEngine().fps, AudioChunk(np.zeros(0, np.float32), 0), 0,
                       False)
        )  # fmt: skip
        assert camera.name == "Remembers"
        camera.close()
    finally:
        BACKENDS.clear()
        BACKENDS.update(others)
    assert sent == [picture.tobytes(), b"closed"]


@pytest.mark.skipif(
    sys.platform != "linux" or any(Path("/dev").glob("video*")), reason="a machine with cameras"
)
def test_no_virtual_camera_is_told_with_what_makes_one() -> None:
    pytest.importorskip("pyvirtualcam", reason="pip install 'lipstream[present]'")
    with pytest.raises(VideoOutputError, match="v4l2loopback"):
        Camera(64, 48, 25.0)


def test_no_display_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sdl2", reason="no SDL: pip install 'lipstream[present]'")
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonesuch")
    with pytest.raises(VideoOutputError, match="no display"):
        Window("test", 64, 48)
    assert os.environ["SDL_VIDEODRIVER"] == "nonesuch"
