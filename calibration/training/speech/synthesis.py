"""Synthetic speech with the exact time of every phone, from three synthesisers.

espeak-ng speaks 100 languages in 100 voices, and its C interface reports the sample of each
phoneme; `recorded_voices` adds flite and festival. Each clip is a pure function of its seed and of
the voices that are installed.

Source: time shifts measured against lips of real speakers (espeak stamps voiceless stops at the
burst, 35 to 40 ms after the lips have closed).
"""

from __future__ import annotations

import ctypes
import shutil
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from lipstream.calibration.training.speech import augment, sentences
from lipstream.calibration.training.speech.phones import SILENCE, VOICELESS_STOPS, from_ipa
from lipstream.calibration.training.speech.recorded_voices import (
    FLITE_VOICES,
    Speech,
    festival_voices,
    speak_festival,
    speak_flite,
    text_for,
)
from lipstream.calibration.training.speech.voice_styles import VoiceStyle, draw_style
from lipstream.engine.errors import UsageError
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, U8

PHONE_HOP_SAMPLES: Final = 160  # labels are per 10 ms at 16 kHz
CLIP_SAMPLES: Final = 8 * SAMPLE_RATE_HZ
_ESPEAK_SHIFT_S: Final = -0.028
_ESPEAK_VOICELESS_STOP_SHIFT_S: Final = -0.040
_ENGLISH: Final = (
    "en-us", "en", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp",
    "en-us-nyc", "en-029",
)  # fmt: skip
# Written in Latin letters: these read nonsense words, the others numbers.
_LATIN: Final = (
    "de", "fr", "es", "it", "pt-br", "pt", "nl", "pl", "sv", "nb", "da", "fi", "tr", "ro", "cs",
    "hu", "id", "sw", "eu", "ca", "hr", "sk", "et", "lv", "lt", "sq", "is", "cy", "ga", "af", "eo",
    "la", "ms", "vi", "sl", "az", "ht", "mt",
)  # fmt: skip
_OTHER: Final = (
    "ar", "cmn", "hi", "ru", "ja", "ko", "fa", "he", "el", "bn", "ta", "te", "uk", "bg", "th",
    "ur", "ka", "hy", "yue", "am", "kk", "ne", "pa", "mr", "gu",
)  # fmt: skip
_VARIANTS: Final = (
    "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "klatt",
    "klatt2", "klatt3", "klatt4", "klatt5", "klatt6", "croak", "whisper", "whisperf", "adam",
    "Alex", "Alicia", "Andrea", "Andy", "Annie", "antonio", "aunty", "belinda", "benjamin",
    "boris", "caleb", "david", "Denis", "Diogo", "ed", "edward", "Gene", "grandma", "grandpa",
    "gustave", "Henrique", "Hugo", "iven", "Jacky", "john", "Lee", "linda", "marcelo", "Marco",
    "Mario", "max", "Michael", "michel", "miguel", "Mike", "Mr serious", "Nguyen", "norbert",
    "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph", "Storm",
    "travis", "Tweaky", "victor", "zac",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """A training clip: 8 s of audio and the phone in every 10 ms of it."""

    samples: F32  # f32 [CLIP_SAMPLES], 16 kHz
    phones: U8  # u8 [CLIP_SAMPLES / PHONE_HOP_SAMPLES]
    voice: str


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_EVENT_END_OF_LIST: Final = 0
_EVENT_PHONEME: Final = 7
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER


class Espeak:
    """The espeak-ng library. It holds global state: use one per process, best in a worker.

    Raises: UsageError if libespeak-ng is not installed.
    """

    def __init__(self) -> None:
        try:
            self._library: Any = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise UsageError(
                f"libespeak-ng was not found ({error}); install the package libespeak-ng1"
            ) from error
        self._sound: list[bytes] = []
        self._events: list[tuple[int, str]] = []
        self._callback = _CALLBACK(self._collect)  # referenced as long as the library may call it
        synchronous, phoneme_events, as_ipa = 2, 1, 2
        self.rate_hz = int(
            self._library.espeak_Initialize(synchronous, 0, None, phoneme_events | as_ipa)
        )
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, sound: Any, count: int, events: Any) -> int:
        if sound and count:
            self._sound.append(ctypes.string_at(sound, 2 * count))
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                raw = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0")[0]
                self._events.append((event.sample, raw.decode("utf-8", "ignore")))
            index += 1
        return 0

    def speak(
        self, text: str, voice: str, rate_wpm: int, pitch: int, pitch_range: int
    ) -> Speech | None:
        """Speak `text`; None when the voice does not exist in this build or stays silent."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            return None
        for parameter, value in ((_RATE, rate_wpm), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._sound.clear()
        self._events.clear()
        raw = text.encode()
        self._library.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, 1, None, None)
        samples = np.frombuffer(b"".join(self._sound), np.int16).astype(np.float32) / 32768.0
        if len(samples) < self.rate_hz // 4:
            return None
        starts: list[float] = []
        phones: list[int] = []
        events = [*self._events, (len(samples), "")]
        for (sample, symbol), (next_sample, _) in zip(events, events[1:], strict=False):
            parts = from_ipa(symbol)
            for index, phone in enumerate(parts):
                start = sample + (next_sample - sample) * index / len(parts)
                stop = phone in VOICELESS_STOPS
                shift = _ESPEAK_VOICELESS_STOP_SHIFT_S if stop else _ESPEAK_SHIFT_S
                starts.append(start / self.rate_hz + shift)
                phones.append(phone)
        return Speech(samples, self.rate_hz, tuple(starts), tuple(phones))


@cache
def _espeak() -> Espeak:
    return Espeak()


def _voice_of_clip(rng: np.random.Generator, style: VoiceStyle) -> tuple[str, list[Speech]]:
    """Utterances of one random voice, together at least 8 s or eight tries."""
    kind = rng.random()
    stretch = float(np.exp(rng.uniform(*np.log(style.stretch))))
    spoken: list[Speech] = []
    if kind < 0.12 and festival_voices():
        voices = festival_voices()
        recorded = voices[int(rng.integers(len(voices)))]
        texts = [text_for(recorded, rng) for _ in range(3)]
        return recorded.name, speak_festival(texts, recorded, stretch)
    if kind < 0.36 and shutil.which("flite"):
        voice, pitch_hz = str(rng.choice(FLITE_VOICES)), float(rng.uniform(80, 230))
        for _ in range(4):
            spoken.append(speak_flite(sentences.english(rng), voice, stretch, pitch_hz))
        return voice, spoken
    family = rng.random()
    names = _ENGLISH if family < 0.6 else _LATIN if family < 0.87 else _OTHER
    language = str(rng.choice(names))
    voice = f"{language}+{rng.choice(_VARIANTS)}"
    rate_wpm = int(np.clip(165 / stretch, 80, 260))
    how = (rate_wpm, int(rng.integers(15, 85)), int(rng.integers(*style.pitch_range)))
    for _ in range(8):
        if names is _ENGLISH:
            text = sentences.english(rng)
        elif names is _LATIN and rng.random() < 0.6:
            text = sentences.nonsense(rng)
        else:
            text = sentences.numbers(rng)
        speech = _espeak().speak(text, voice, *how)
        if speech is None:
            voice = f"en-us+{rng.choice(_VARIANTS[:13])}"
            continue
        spoken.append(speech)
        if sum(len(s.samples) / s.rate_hz for s in spoken) > 8.0:
            break
    return voice, spoken


def make_clip(
    seed: int,
    how: augment.Augmentation = augment.Augmentation(),  # noqa: B008 - frozen
) -> LabelledClip:
    """The labelled clip of one seed. Raises: UsageError when no synthesiser is installed."""
    rng = np.random.default_rng(seed)
    style = draw_style(rng)
    voice, spoken = _voice_of_clip(rng, style)
    if rng.random() < 0.03:  # no speech
        voice, spoken = "none", []
    shift = float(np.exp(rng.uniform(*np.log(style.shift))))
    samples = np.zeros(CLIP_SAMPLES, np.float32)
    phones = np.full(CLIP_SAMPLES // PHONE_HOP_SAMPLES, SILENCE, np.uint8)
    centres_s = (np.arange(len(phones)) + 0.5) * PHONE_HOP_SAMPLES / SAMPLE_RATE_HZ
    at = int(rng.uniform(-1.0, 0.6) * SAMPLE_RATE_HZ)  # may begin in the middle of a word
    if rng.random() < 0.15:
        at = int(rng.uniform(0.5, 3.5) * SAMPLE_RATE_HZ)
    if rng.random() < 0.2:
        at = _add_mouth_noise(samples, max(0, at), rng)
    for speech in spoken:
        rate_hz = speech.rate_hz * shift
        voiced = style.apply(speech.samples, speech.rate_hz, rng)
        voiced = augment.resample_and_equalise(voiced, rate_hz, rng, augment.DRY)
        starts_s = np.array(speech.starts_s) / shift + at / SAMPLE_RATE_HZ
        which = np.searchsorted(starts_s, centres_s, side="right") - 1
        end_s = (at + len(voiced)) / SAMPLE_RATE_HZ
        inside = (which >= 0) & (centres_s < end_s) & (centres_s >= at / SAMPLE_RATE_HZ)
        phones[inside] = np.array(speech.phones, np.uint8)[which[inside]]
        first, last = max(0, at), min(CLIP_SAMPLES, at + len(voiced))
        if last > first:
            samples[first:last] += voiced[first - at : last - at]
        at += len(voiced) + int(rng.exponential(0.35) * SAMPLE_RATE_HZ)
        if rng.random() < 0.25:
            at = _add_mouth_noise(samples, at, rng)
        if at >= CLIP_SAMPLES:
            break
    samples = augment.resample_and_equalise(samples, SAMPLE_RATE_HZ, rng, how)
    babble = _babble(rng) if rng.random() < how.babble else None
    samples = augment.add_noise(samples, babble, rng, how)
    samples = augment.through_channel(samples, rng, how)
    return LabelledClip(samples, phones, voice)


def _add_mouth_noise(samples: F32, at: int, rng: np.random.Generator) -> int:
    """Put a breath or clicks into `samples` at `at`; returns where they end."""
    end = at + int(rng.uniform(0.15, 0.8) * SAMPLE_RATE_HZ)
    noise = augment.mouth_noise(end - at, rng) * np.float32(0.1 * 10 ** rng.uniform(-1.8, -0.4))
    first, last = max(0, at), min(len(samples), end)
    if last > first:
        samples[first:last] += noise[first - at : last - at]
    return end


def _babble(rng: np.random.Generator) -> F32:
    """Three or more voices at once, f32 [CLIP_SAMPLES]."""
    out = np.zeros(CLIP_SAMPLES, np.float32)
    for _ in range(int(rng.integers(2, 6))):
        voice = f"{rng.choice(_ENGLISH[:2])}+{rng.choice(_VARIANTS[:13])}"
        speech = _espeak().speak(sentences.english(rng), voice, 170, int(rng.integers(20, 80)), 50)
        if speech is None:
            continue
        # Nearest-sample resampling from 22 050 Hz: cheap, and aliasing does not matter in babble.
        step = speech.rate_hz / SAMPLE_RATE_HZ
        picked = speech.samples[(np.arange(int(len(speech.samples) / step)) * step).astype(int)]
        out += np.resize(picked, CLIP_SAMPLES)
    return out
