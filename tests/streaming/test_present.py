"""A presenter on real PortAudio streams, a real SDL window, and pyvirtualcam.

On the wall clock where a sound server plays and records in real time.
"""

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


class RecordingOutput:
    """A video output that records when its frame was white."""

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


@pytest.mark.alone
def test_picture_and_sound_of_a_voice_leave_together(sound: SoundServer) -> None:
    output = RecordingOutput()
    microphone, speaker = Recording(sound, "voice.monitor"), Recording(sound, "speaker.monitor")
    voice = sound.play_into_microphone(
        np.concatenate([np.zeros(24_000), *[BEEP] * 8]).astype(np.float32)
    )
    report = present(LiveFakeEngine(), [output], PresentOptions("pulse", "pulse", 10))
    voice.wait(5)
    spoken = onsets(*_loud(microphone))
    played, shown = onsets(*_loud(speaker)), output.onsets()
    count = min(len(spoken), len(played), len(shown))
    assert count >= 6, (spoken, played, shown)
    offset_ms = 1000 * (played[:count] - shown[:count])[2:]
    delay_ms = 1000 * (shown[:count] - spoken[:count])[2:]
    print(
        f"\npresent: {report['fps']} fps, voice to picture {np.median(delay_ms):.0f} ms (stated "
        f"{report['delay_ms']}), sound behind picture {np.median(offset_ms):.0f} ms"
    )
    assert report["input"] == report["output"] == "pulse"
    assert report["sound_lost"] == report["sound_dropped_ms"] == 0
    assert report["fps"] == pytest.approx(25, abs=0.3)
    # A frame is white if any of its 40 ms is loud: it is up to so much ahead.
    assert -25 < np.median(offset_ms) < 65
    assert np.median(delay_ms) == pytest.approx(report["delay_ms"] - 20, abs=60)
    assert abs(report["sound_behind_ms"]) < 40, "a frame: a busy machine starves the sound server"
    assert threads() == []


def _loud(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    times_s, samples = recording.stop()
    return times_s, np.abs(samples) > 0.03


def test_a_microphone_that_is_unplugged_comes_back(sound: SoundServer) -> None:
    output = RecordingOutput()
    notices: list[str] = []
    replugged_s: list[float] = []

    def replug() -> None:
        time.sleep(2.0)
        sound.unplug()
        time.sleep(3.0)
        sound.plug_in()
        time.sleep(2.5)
        replugged_s.append(time.monotonic())
        sound.play_into_microphone(np.tile(BEEP, 5).astype(np.float32)).wait(10)

    replugging = threading.Thread(target=replug)
    replugging.start()
    options = PresentOptions("pulse", "pulse", 13, notices.append)
    report = present(LiveFakeEngine(), [output], options)
    replugging.join()
    assert report["sound_lost"] >= 1
    assert "lost" in notices[0] and "back" in notices[-1]
    assert report["frames"] == pytest.approx(25 * 13, abs=15), "frames go on meanwhile"
    after = [at_s for at_s in output.onsets() if at_s > replugged_s[0]]
    assert len(after) >= 3, "the voice is back"
    assert threads() == []


def test_no_microphone_is_one_clear_error(sound: SoundServer) -> None:
    with pytest.raises(UsageError, match="input device 'nonesuch': no such; there are: 0 'pulse'"):
        present(LiveFakeEngine(), [RecordingOutput()], PresentOptions("nonesuch"))
    sound.unplug()
    with pytest.raises(SoundError):
        present(LiveFakeEngine(), [RecordingOutput()], PresentOptions("pulse"))
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
    report = json.loads(done.stdout)
    assert report["profile"] == "live" and report["frames"] > 50
    in_time = report["late_frames"] + report["dropped_frames"] < 0.05 * report["frames"]
    assert report["fps"] == pytest.approx(25, abs=1) or not in_time, report
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
    played = np.concatenate(tail).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(played * np.blackman(played.size)))
    hz = np.fft.rfftfreq(played.size, 1 / 48_000)
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
    "wanted, output, index",
    [("default", False, 0), ("default", True, 0), ("1", False, 1), ("usb", True, 2)],
)
def test_devices_are_found_by_number_and_name(wanted: str, output: bool, index: int) -> None:
    assert choose(DEVICES, wanted, output).index == index


def test_an_unknown_device_is_an_error_that_lists_the_others() -> None:
    with pytest.raises(UsageError, match="no such; there are: 0 'Built-in Audio', 1 'USB Micro"):
        choose(DEVICES, "2", False)
    with pytest.raises(UsageError, match="several fit"):
        choose([*DEVICES, DEVICES[1]], "USB", False)
    with pytest.raises(UsageError, match="no loudspeaker found.*--list-devices"):
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


@pytest.mark.parametrize(
    "key, command", [("ESCAPE", "quit"), ("m", "mute"), ("SPACE", "interrupt")]
)
def test_keys_at_the_window_are_commands(window: Any, key: str, command: str) -> None:
    sdl2, made = window
    made.commands()
    event = sdl2.SDL_Event()
    event.type = sdl2.SDL_KEYDOWN
    event.key.keysym.sym = getattr(sdl2, f"SDLK_{key}")
    sdl2.SDL_PushEvent(event)
    assert made.commands() == [command]
    assert made.commands() == []


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
def test_without_a_virtual_camera_the_error_names_what_provides_one() -> None:
    pytest.importorskip("pyvirtualcam", reason="pip install 'lipstream[present]'")
    with pytest.raises(VideoOutputError, match="v4l2loopback"):
        Camera(64, 48, 25.0)


def test_without_a_display_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sdl2", reason="no SDL: pip install 'lipstream[present]'")
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonesuch")
    with pytest.raises(VideoOutputError, match="no display"):
        Window("test", 64, 48)
    assert os.environ["SDL_VIDEODRIVER"] == "nonesuch"
