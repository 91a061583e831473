"""Synthetic speech with the exact time of every phone, from three synthesisers.

espeak-ng speaks 100 languages in 100 voices through its C interface, which reports each phoneme
with its sample; flite and festival are recorded human voices. Formant voices and recorded ones
fail in different ways, and it is the variety that carries over to real people. Each clip is a
pure function of its seed.

Source: time shifts measured against lips of real speakers (espeak stamps voiceless stops at the
burst, 35 to 40 ms after the lips have closed; flite and festival are best at +15 ms).
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from lipstream.calibration.pretrain import augment, sentences
from lipstream.calibration.pretrain.phones import SILENCE, VOICELESS_STOPS, from_arpabet, from_ipa
from lipstream.engine.errors import UsageError
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, U8

PHONE_HOP_SAMPLES: Final = 160  # labels are per 10 ms at 16 kHz
CLIP_SAMPLES: Final = 8 * SAMPLE_RATE_HZ
_ESPEAK_SHIFT_S: Final = -0.028
_ESPEAK_VOICELESS_STOP_SHIFT_S: Final = -0.040
_RECORDED_SHIFT_S: Final = 0.015
_FLITE_VOICES: Final = ("slt", "rms", "awb", "kal16", "kal")
_FESTIVAL_VOICES: Final = ("voice_cmu_us_slt_arctic_hts", "voice_kal_diphone")
_ENGLISH: Final = (
    "en-us", "en", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp",
    "en-us-nyc", "en-029",
)  # fmt: skip
# Latin letters: nonsense words can be read. The others read numbers.
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
class Speech:
    """Speech and what was said when."""

    samples: F32  # f32 [n], at rate_hz
    rate_hz: int
    starts_s: tuple[float, ...]  # of each phone
    phones: tuple[int, ...]  # index into PHONES; each lasts until the next one starts


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
    """The espeak-ng library. It holds global state: one a process, and best in a worker.

    Raises: UsageError when libespeak-ng is not installed.
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
        self._callback = _CALLBACK(self._collect)  # kept alive as long as the library may call it
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


def _read_wav(path: Path) -> tuple[F32, int]:
    with wave.open(str(path)) as source:
        raw = source.readframes(source.getnframes())
        return np.frombuffer(raw, np.int16).astype(np.float32) / 32768.0, source.getframerate()


def _from_ends(pairs: list[tuple[str, float]]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Phones given with their end times to starts and phones."""
    starts: list[float] = []
    phones: list[int] = []
    start_s = 0.0
    for symbol, end_s in pairs:
        parts = from_arpabet(symbol)
        for index, phone in enumerate(parts):
            starts.append(start_s + (end_s - start_s) * index / len(parts) + _RECORDED_SHIFT_S)
            phones.append(phone)
        start_s = end_s
    return tuple(starts), tuple(phones)


def speak_flite(text: str, voice: str, stretch: float, pitch_hz: float) -> Speech:
    """One utterance by flite. Raises: UsageError when flite is not installed."""
    program = shutil.which("flite")
    if program is None:
        raise UsageError("flite was not found; install the package flite")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = [program, "-voice", voice, "-psdur", "--setf", f"duration_stretch={stretch:.3f}"]
        command += ["--setf", f"int_f0_target_mean={pitch_hz:.1f}", "-t", text, "-o", str(path)]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        samples, rate_hz = _read_wav(path)
    pairs = [
        (name, float(end)) for name, end in (item.split(":") for item in result.stdout.split())
    ]
    starts, phones = _from_ends(pairs)
    return Speech(samples, rate_hz, starts, phones)


def speak_festival(texts: list[str], voice: str, stretch: float) -> list[Speech]:
    """Several utterances by one festival process, which takes a second to start."""
    program = shutil.which("festival")
    if program is None:
        raise UsageError(
            "festival was not found; install festival, festvox-us-slt-hts and festvox-kallpc16k"
        )
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"({voice})", f"(Parameter.set 'Duration_Stretch {stretch:.3f})"]
        for index, text in enumerate(texts):
            quoted = text.replace("\\", "").replace('"', "")
            base = Path(folder) / str(index)
            lines.append(f'(set! u (Utterance Text "{quoted}"))(utt.synth u)')
            lines.append(f'(utt.save.wave u "{base}.wav" \'riff)(utt.save.segs u "{base}.segs")')
        script = Path(folder) / "speak.scm"
        script.write_text("\n".join(lines))
        subprocess.run([program, "-b", str(script)], check=True, capture_output=True)
        spoken = []
        for index in range(len(texts)):
            samples, rate_hz = _read_wav(Path(folder) / f"{index}.wav")
            segments = (Path(folder) / f"{index}.segs").read_text().split("#\n", 1)[1].split("\n")
            pairs = [(cells[2], float(cells[0])) for cells in map(str.split, segments) if cells]
            starts, phones = _from_ends(pairs)
            spoken.append(Speech(samples, rate_hz, starts, phones))
    return spoken


def _voice_of_clip(rng: np.random.Generator) -> tuple[str, list[Speech]]:
    """Utterances of one random voice, together at least 8 s or eight tries."""
    kind = rng.random()
    spoken: list[Speech] = []
    if kind < 0.06 and shutil.which("festival"):
        voice = str(rng.choice(_FESTIVAL_VOICES))
        texts = [sentences.english(rng) for _ in range(3)]
        return voice, speak_festival(texts, voice, float(rng.uniform(0.8, 1.3)))
    if kind < 0.34 and shutil.which("flite"):
        voice = str(rng.choice(_FLITE_VOICES))
        stretch, pitch_hz = float(rng.uniform(0.75, 1.4)), float(rng.uniform(80, 230))
        for _ in range(4):
            spoken.append(speak_flite(sentences.english(rng), voice, stretch, pitch_hz))
        return voice, spoken
    family = rng.random()
    names = _ENGLISH if family < 0.6 else _LATIN if family < 0.87 else _OTHER
    language = str(rng.choice(names))
    voice = f"{language}+{rng.choice(_VARIANTS)}"
    manner = (int(rng.integers(110, 230)), int(rng.integers(15, 85)), int(rng.integers(20, 80)))
    for _ in range(8):
        if names is _ENGLISH:
            text = sentences.english(rng)
        elif names is _LATIN and rng.random() < 0.6:
            text = sentences.nonsense(rng)
        else:
            text = sentences.numbers(rng)
        speech = _espeak().speak(text, voice, *manner)
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
    voice, spoken = _voice_of_clip(rng)
    if rng.random() < 0.03:  # a room where nobody speaks
        voice, spoken = "none", []
    shift = float(np.exp(rng.uniform(np.log(0.82), np.log(1.22))))
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
        voiced = augment.resample_and_colour(speech.samples, rate_hz, rng, _dry(how))
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
    samples = augment.resample_and_colour(samples, SAMPLE_RATE_HZ, rng, how)
    babble = _babble(rng) if rng.random() < how.babble else None
    samples = augment.add_noise(samples, babble, rng, how)
    if rng.random() < how.codec:
        samples = augment.through_codec(samples, rng)
    return LabelledClip(samples, phones, voice)


def _add_mouth_noise(samples: F32, at: int, rng: np.random.Generator) -> int:
    """Put a breath or clicks into `samples` at `at`; returns where they end."""
    end = at + int(rng.uniform(0.15, 0.8) * SAMPLE_RATE_HZ)
    noise = augment.mouth_noise(end - at, rng) * np.float32(0.1 * 10 ** rng.uniform(-1.8, -0.4))
    first, last = max(0, at), min(len(samples), end)
    if last > first:
        samples[first:last] += noise[first - at : last - at]
    return end


def _dry(how: augment.Augmentation) -> augment.Augmentation:
    """Per utterance only the resampling: room and line are the same for a whole clip."""
    return augment.Augmentation(0, 0, 0, 0, 0, 0, 0)


def _babble(rng: np.random.Generator) -> F32:
    """Three or more voices at once, f32 [CLIP_SAMPLES]."""
    out = np.zeros(CLIP_SAMPLES, np.float32)
    for _ in range(int(rng.integers(2, 6))):
        voice = f"{rng.choice(_ENGLISH[:2])}+{rng.choice(_VARIANTS[:13])}"
        speech = _espeak().speak(sentences.english(rng), voice, 170, int(rng.integers(20, 80)), 50)
        if speech is None:
            continue
        # Read at its own 22 050 Hz as if at 16 kHz would be a slow voice: keep every sample but
        # skip along, which is cheap and aliasing does not matter in a crowd.
        step = speech.rate_hz / SAMPLE_RATE_HZ
        picked = speech.samples[(np.arange(int(len(speech.samples) / step)) * step).astype(int)]
        out += np.resize(picked, CLIP_SAMPLES)
    return out
