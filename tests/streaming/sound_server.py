"""A PulseAudio of our own with two null sinks: `voice`, whose monitor is the microphone, and
`speaker`, whose monitor records what is played. Real streams through the real PortAudio."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from lipstream.engine.types import F32

RATE_HZ = 16_000
PROGRAMS = ("pulseaudio", "pactl", "pacat", "parec")


class SoundServer:
    """The daemon, and what a test does to it."""

    def __init__(self, folder: Path) -> None:
        self.environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_RUNTIME_PATH": str(folder),
            "PULSE_SERVER": f"unix:{folder}/native",
            "PULSE_SOURCE": "voice.monitor",
            "PULSE_SINK": "speaker",
        }
        self._daemon = subprocess.Popen(
            [
                "pulseaudio", "-n", "--exit-idle-time=-1", "--daemonize=no", "--log-level=error",
                "-L", f"module-native-protocol-unix socket={folder}/native auth-anonymous=1",
                "-L", "module-null-sink sink_name=speaker rate=44100",
            ],
            env=self.environment,
        )  # fmt: skip
        end_s = time.monotonic() + 10
        while self._ctl("info", check=False):
            if time.monotonic() > end_s or self._daemon.poll() is not None:
                self.close()
                pytest.skip("pulseaudio does not start here")
            time.sleep(0.1)
        self.plug_in()

    def _ctl(self, *words: str, check: bool = True) -> int:
        done = subprocess.run(
            ["pactl", *words], env=self.environment, stdout=-3, stderr=-3, check=check
        )
        return done.returncode

    def plug_in(self) -> None:
        self._ctl("load-module", "module-null-sink", "sink_name=voice", "rate=48000")

    def unplug(self) -> None:
        """Take the microphone away."""
        self._ctl("unload-module", "module-null-sink")
        self._ctl("load-module", "module-null-sink", "sink_name=speaker", "rate=44100")

    def play_into_microphone(self, sound: F32) -> subprocess.Popen[bytes]:
        """Ends by itself."""
        words = ["pacat", "-p", "--device=voice", *_FORMAT, "--latency-msec=20"]
        process = subprocess.Popen(words, env=self.environment, stdin=subprocess.PIPE)
        pcm = (sound * 32767).astype("<i2").tobytes()

        def feed() -> None:
            assert process.stdin is not None
            with process.stdin as pipe:
                pipe.write(pcm)

        threading.Thread(target=feed, daemon=True).start()
        return process

    def close(self) -> None:
        self._daemon.terminate()
        self._daemon.wait(5)


_FORMAT = (f"--rate={RATE_HZ}", "--channels=1", "--format=s16le")


class Recording:
    """What a sink plays, with the monotonic time of each sample."""

    def __init__(self, server: SoundServer, source: str) -> None:
        words = ["parec", f"--device={source}", *_FORMAT, "--latency-msec=10"]
        self._process = subprocess.Popen(words, env=server.environment, stdout=subprocess.PIPE)
        self._parts: list[tuple[float, np.ndarray]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while data := self._process.stdout.read1(4096):  # type: ignore[attr-defined]
            part = np.frombuffer(data[: len(data) // 2 * 2], "<i2")
            self._parts.append((time.monotonic(), part))

    def stop(self) -> tuple[np.ndarray, F32]:
        """(s monotonic [n], f32 [n])."""
        self._process.terminate()
        self._process.wait(5)
        self._thread.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()
        times = [at - np.arange(part.size, 0, -1) / RATE_HZ for at, part in self._parts]
        sound = [part for _, part in self._parts]
        return np.concatenate(times), np.concatenate(sound).astype(np.float32) / 32768


@contextmanager
def sound_server(folder: Path) -> Iterator[SoundServer]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {missing[0]}: apt-get install pulseaudio pulseaudio-utils")
    server = SoundServer(folder)
    try:
        yield server
    finally:
        server.close()


def onsets(times_s: np.ndarray, loud: np.ndarray, apart_s: float = 0.5) -> np.ndarray:
    """When it became loud after having been quiet."""
    begins = times_s[np.flatnonzero(loud[1:] & ~loud[:-1]) + 1]
    kept: list[float] = []
    for at_s in begins:
        if not kept or at_s - kept[-1] > apart_s:
            kept.append(float(at_s))
    return np.array(kept)
