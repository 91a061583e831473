"""Microphone and loudspeaker through PortAudio, kept open while devices come and go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lipstream.engine.channels import ChannelMixer
from lipstream.engine.errors import LipstreamError, SoundError, UsageError
from lipstream.engine.types import F32, SAMPLE_RATE_HZ
from lipstream.streaming.devices.captured_sound import CapturedPacket, CapturedSound
from lipstream.streaming.devices.playback import Playback
from lipstream.streaming.session.audio_in import SpeechResampler
from lipstream.streaming.session.runner import SessionRunner

logger = logging.getLogger(__name__)

_BLOCK_S: Final = 0.01
_SILENT_S: Final = 2.0  # a microphone that brings nothing for so long is gone
_CAPTURED_S: Final = 2.0  # sound that waits for a thread that is held up; the oldest goes first
_RETRY_S: Final = 1.0
_RATES_HZ: Final = (48_000, 44_100, 16_000, 96_000, 32_000)  # what is tried after the device's own
_SPARE_S: Final = 0.01  # a frame's sound may come so long after its release and still be played


@dataclass(frozen=True, slots=True)
class Device:
    """A microphone or a loudspeaker, as PortAudio knows it."""

    index: int
    name: str
    api: str
    inputs: int
    outputs: int
    rate_hz: float
    default_input: bool
    default_output: bool


def devices() -> list[Device]:
    """What is plugged in now.

    Raises: SoundError without PortAudio.
    """
    sounddevice = _portaudio()
    apis = sounddevice.query_hostapis()
    listed, made = sounddevice.query_devices(), []
    chosen_in, chosen_out = sounddevice.default.device
    for index, found in enumerate(listed):
        made.append(
            Device(
                index, found["name"], apis[found["hostapi"]]["name"],
                found["max_input_channels"], found["max_output_channels"],
                found["default_samplerate"], index == chosen_in, index == chosen_out,
            )
        )  # fmt: skip
    return made


def choose(listed: list[Device], wanted: str, output: bool) -> Device:
    """The device of this number, of this name, or with this in its name; `default` for its own.

    Args:
        listed: from `devices`.
        wanted: by the user.
        output: a loudspeaker, not a microphone.

    Raises: UsageError when none or several fit; the message lists them.
    """
    kind = "output" if output else "input"
    able = [d for d in listed if (d.outputs if output else d.inputs)]
    if wanted == "default":
        fits = [d for d in able if (d.default_output if output else d.default_input)] or able[:1]
    elif wanted.isdecimal():
        fits = [d for d in able if d.index == int(wanted)]
    else:
        fits = [d for d in able if d.name.lower() == wanted.lower()]
        fits = fits or [d for d in able if wanted.lower() in d.name.lower()]
    if len(fits) == 1:
        return fits[0]
    if not able:
        kind_of_device = "loudspeaker" if output else "microphone"
        raise UsageError(
            f"no {kind_of_device} found; connect one (`lipstream present --list-devices` lists "
            "what is there)"
        )
    names = ", ".join(f"{d.index} {d.name!r}" for d in (fits or able))
    word = "several fit" if fits else "no such"
    raise UsageError(f"{kind} device {wanted!r}: {word}; there are: {names}")


class SoundCard:
    """A microphone that feeds a runner, and a loudspeaker with its `Playback`.

    One thread feeds the runner and watches both streams. When one of them stops, both are closed,
    PortAudio is started anew (it knows only devices that were there when it started), and the
    devices are opened again as soon as they are back; meanwhile the target idles.
    """

    def __init__(
        self,
        runner: SessionRunner,
        microphone: str = "default",
        loudspeaker: str | None = None,
        notify: Callable[[str], None] = logger.warning,
    ) -> None:
        """Open.

        Args:
            runner: gets the microphone's sound.
            microphone: see `choose`.
            loudspeaker: see `choose`; None for no sound.
            notify: called with one line when devices go and come back.

        Raises: UsageError, SoundError: they are not there or cannot be opened.
        """
        self.muted = False
        self.lost = 0  # times that a device went away
        self.playback: Playback | None = None
        self._runner = runner
        self._now = runner.clock.now
        self._wanted = (microphone, loudspeaker)
        self._notify = notify
        self._dropped_samples = 0  # at 16 kHz, of streams that are closed
        self._source_sample = 0
        self._last_packet_s = 0.0
        self._streams: list[Any] = []
        self._closing = threading.Event()
        self.names: dict[str, str] = {}
        self._open()
        self._thread = threading.Thread(target=self._run, name="lipstream-sound", daemon=True)
        self._thread.start()

    @property
    def hold_s(self) -> float:
        """How much later than a frame's release its sound is played; show the frame then."""
        return self.playback.hold_s if self.playback is not None else 0.0

    @property
    def dropped_ms(self) -> float:
        """Sound of the microphone that was dropped because our thread was held up."""
        return (
            1000
            * (self._dropped_samples + self._at_16_khz(self._captured.dropped_samples))
            / (SAMPLE_RATE_HZ)
        )

    def close(self) -> None:
        """Give the devices back."""
        self._closing.set()
        self._captured.close()
        self._thread.join(5)
        self._close_streams()

    def _open(self) -> None:
        sounddevice = _portaudio()
        listed = devices()
        microphone, loudspeaker = self._wanted
        try:
            if loudspeaker is not None:
                self._open_output(sounddevice, choose(listed, loudspeaker, True))
            self._open_input(sounddevice, choose(listed, microphone, False))
        except sounddevice.PortAudioError as error:
            self._close_streams()
            raise SoundError(f"{self.names}: {error}") from error
        except BaseException:
            self._close_streams()
            raise

    def _open_input(self, sounddevice: Any, device: Device) -> None:
        self.names["input"] = device.name
        self._rate_hz = _rate(sounddevice.check_input_settings, device)
        self._resampler = SpeechResampler()
        self._captured = CapturedSound(round(_CAPTURED_S * self._rate_hz))
        self._next_captured = 0  # sample of the stream
        captured, channels = self._captured, min(2, device.inputs)
        mixer = ChannelMixer(channels, round(self._rate_hz))

        def take(data: F32, frames: int, times: Any, status: Any) -> None:
            captured.put(mixer.push(np.ascontiguousarray(data.T)), bool(status.input_overflow))

        self._start(
            sounddevice.InputStream(
                self._rate_hz, round(self._rate_hz * _BLOCK_S), device.index, channels, "float32",
                "low", callback=take,
            )
        )  # fmt: skip
        self._last_packet_s = self._now()

    def _open_output(self, sounddevice: Any, device: Device) -> None:
        self.names["output"] = device.name
        rate_hz = _rate(sounddevice.check_output_settings, device)
        channels = min(2, device.outputs)
        times_agree_s = _Earliest()

        def give(data: F32, frames: int, times: Any, status: Any) -> None:
            now_s = self._now()
            ahead_s = times.outputBufferDacTime - times.currentTime
            if times.currentTime > 0 and 0 < ahead_s < 2:
                # The stream's clock against ours: this thread may have waited since it was read.
                played_s = times.outputBufferDacTime + times_agree_s(now_s - times.currentTime)
            else:
                played_s = now_s + stream.latency
            assert self.playback is not None
            data[:] = self.playback.fill(frames, played_s)[:, None]

        stream = sounddevice.OutputStream(
            rate_hz, round(rate_hz * _BLOCK_S), device.index, channels, "float32", 0.04,
            callback=give,
        )  # fmt: skip
        hold_s = stream.latency + _BLOCK_S + _SPARE_S
        self.playback = Playback(self._runner, rate_hz, hold_s)
        self._start(stream)

    def _start(self, stream: Any) -> None:
        self._streams.append(stream)
        stream.start()

    def _close_streams(self) -> None:
        streams, self._streams = self._streams, []
        for stream in streams:
            try:
                stream.abort()
                stream.close()
            except Exception as error:  # a device that is gone cannot be closed in good order
                logger.info("closing a stream: %s", error)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                if not self._streams:
                    self._reopen()
                elif not self._works():
                    self._lose()
            except Exception:  # a thread that ends here would end the sound, and nobody be told
                logger.exception("sound failed; the devices are opened anew")
                if self._streams:
                    self._lose()

    def _works(self) -> bool:
        """A packet, if one comes in time; whether the devices still bring and take sound."""
        packet = self._captured.get(0.25)
        if packet is not None:
            self._push(packet)
        silent = self._now() - self._last_packet_s > _SILENT_S
        return not silent and all(stream.active for stream in self._streams)

    def _lose(self) -> None:
        self.lost += 1
        self._notify(f"sound lost ({', '.join(self.names.values())}); waiting for it")
        self._close_streams()

    def _push(self, packet: CapturedPacket) -> None:
        """A packet to the runner, at its place on the microphone's clock."""
        now_s, samples = self._now(), packet.samples
        self._source_sample += self._at_16_khz(packet.first_sample - self._next_captured)
        self._next_captured = packet.first_sample + samples.size
        if packet.overflowed or now_s - self._last_packet_s > _SILENT_S:
            # PortAudio does not count what is missing: as much as has passed without sound.
            missing_s = now_s - self._last_packet_s - samples.size / self._rate_hz
            self._source_sample += max(0, round(missing_s * SAMPLE_RATE_HZ))
        self._last_packet_s = now_s
        if self.muted:
            samples = np.zeros_like(samples)
        speech = self._resampler.push_samples(samples, round(self._rate_hz))
        if speech.size:
            self._runner.push_audio(speech, self._source_sample)
            self._source_sample += speech.size

    def _at_16_khz(self, samples: int) -> int:
        return round(samples * SAMPLE_RATE_HZ / self._rate_hz)

    def _reopen(self) -> None:
        if self._closing.wait(_RETRY_S):
            return
        sounddevice = _portaudio()
        last_packet_s = self._last_packet_s
        self._dropped_samples += self._at_16_khz(self._captured.dropped_samples)
        self._captured.dropped_samples = 0
        try:
            # Both have no public name; there is no other way to see a device that came later.
            sounddevice._terminate()
            sounddevice._initialize()
            self._open()
        except (LipstreamError, sounddevice.PortAudioError) as error:
            logger.info("still no sound: %s", error)
            self._last_packet_s = last_packet_s
            return
        self._source_sample += round((self._last_packet_s - last_packet_s) * SAMPLE_RATE_HZ)
        self._notify(f"sound is back ({', '.join(self.names.values())})")


class _Earliest:
    """The least of the last two hundred values or so, and of no older ones."""

    def __init__(self) -> None:
        self._least = [float("inf"), float("inf")]
        self._count = 0

    def __call__(self, value: float) -> float:
        self._count += 1
        if self._count % 100 == 0:
            self._least = [self._least[1], float("inf")]
        self._least[1] = min(self._least[1], value)
        return min(self._least)


def _rate(check: Callable[..., None], device: Device) -> float:
    """The rate to open a device at: its own, or the first that it takes."""
    wrong: Exception | None = None
    for rate_hz in (device.rate_hz, *_RATES_HZ):
        try:
            check(device=device.index, channels=1, dtype="float32", samplerate=rate_hz)
        except Exception as error:
            wrong = error
        else:
            return float(rate_hz)
    raise SoundError(f"device {device.name!r} takes no rate that we have: {wrong}")


def _portaudio() -> Any:
    try:
        import sounddevice
    except OSError as error:
        raise SoundError(f"{error}: on Debian, apt-get install libportaudio2") from error
    return sounddevice
