"""Synthesisers that use recorded voices, with the time of every phone: flite and festival.

Formant synthesis and recorded voices differ from people in different ways; a recogniser trained on
both generalises better. Festival speaks seven languages here, and each voice has its own phone
names.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from lipstream.calibration.training.speech import sentences
from lipstream.calibration.training.speech.phones import INDEX, from_arpabet
from lipstream.engine.errors import UsageError
from lipstream.engine.types import F32

_SHIFT_S: Final = 0.015  # best against the lips of real speakers
_FESTIVAL_S: Final = 120  # limit of a process, because a voice can loop


@dataclass(frozen=True, slots=True)
class Speech:
    """Speech and its phones."""

    samples: F32  # f32 [n], at rate_hz
    rate_hz: int
    starts_s: tuple[float, ...]  # of each phone
    phones: tuple[int, ...]  # index into PHONES; each lasts until the next one starts


FLITE_VOICES: Final = ("slt", "rms", "awb", "kal16", "kal")


def _names(text: str) -> dict[str, str]:
    """ "a=aa b c" to {"a": "aa", "b": "b", "c": "c"}."""
    pairs = (item.split("=") for item in text.split())
    return {pair[0]: pair[-1] for pair in pairs}


_SHARED: Final = _names("p b m f v t d n s z k g l h pau=sil #=sil _=sil ##=sil")
_ITALIAN: Final = _SHARED | _names(
    "a=aa a1=aa e=ey e1=ey E=eh E1=eh i=iy i1=iy o=ow o1=ow O=ao O1=ao u=uw u1=uw j=y w r=rr ts=s "
    "dz=z tS=ch dZ=jh S=sh Z=zh J=n ng=ng nf=m L=l"
)
_CZECH: Final = _SHARED | _names(
    "a=aa a:=aa e=eh e:=eh i=iy i:=iy o=ow o:=ow u=uw u:=uw j=y r=rr r~=zh r~*=sh c=s c~=ch dz=z "
    "dz~=jh ch=x s~=sh z~=zh t~=t d~=d n~=n n*=ng"
)
_CATALAN: Final = _SHARED | _names(
    "ax=ah a=aa a1=aa e=ey e1=ey E=eh E1=eh i=iy i1=iy o=ow o1=ow O=ao O1=ao u=uw u1=uw j=y w S=sh "
    "Z=zh J=n L=l r=rr rr"
)
_FINNISH_SHORT: Final = _SHARED | _names(
    "a=aa e=ey i=iy o=ow u=uw y=yy @=ae 7=oe &=ah j=y w r=rr N=ng L=l S=sh Z=zh T=th D=dh"
)
_FINNISH: Final = _FINNISH_SHORT | {f"{name}:": phone for name, phone in _FINNISH_SHORT.items()}
_RUSSIAN: Final = (
    _SHARED
    | {2 * name: name for name in "pbmfvtdnszkgl"}
    | _names(
        "aa a=ah ay=ah ae=ih ur=uh ee=eh e=eh ii=iy i=iy oo=ao uu=uw u=uw yy=ih y=ih j=y r=rr "
        "rr c=s ch sh sch=sh zh h=x hh=x"
    )
)


@dataclass(frozen=True, slots=True)
class FestivalVoice:
    """A voice, and its phone names (None: ARPAbet, and the voice reads English)."""

    name: str
    phones: dict[str, str] | None = None


FESTIVAL_VOICES: Final = (
    FestivalVoice("cmu_us_slt_arctic_hts"),
    FestivalVoice("kal_diphone"),
    FestivalVoice("ked_diphone"),
    FestivalVoice("lp_diphone", _ITALIAN),
    FestivalVoice("pc_diphone", _ITALIAN),
    FestivalVoice("czech_dita", _CZECH),
    FestivalVoice("czech_krb", _CZECH),
    FestivalVoice("czech_machac", _CZECH),
    FestivalVoice("czech_ph", _CZECH),
    FestivalVoice("suo_fi_lj_diphone", _FINNISH),
    FestivalVoice("hy_fi_mv_diphone", _FINNISH),
    FestivalVoice("upc_ca_ona_hts", _CATALAN),
    FestivalVoice("msu_ru_nsh_clunits", _RUSSIAN),
)
FESTIVAL_PACKAGES: Final = (
    "festival festvox-us-slt-hts festvox-kallpc16k festvox-kdlpc16k festvox-italp16k "
    "festvox-itapc16k festvox-czech-dita festvox-czech-krb festvox-czech-machac festvox-czech-ph "
    "festvox-suopuhe-lj festvox-suopuhe-mv festvox-ca-ona-hts festvox-ru"
)


def _read_wav(path: Path) -> tuple[F32, int]:
    with wave.open(str(path)) as source:
        raw = source.readframes(source.getnframes())
        return np.frombuffer(raw, np.int16).astype(np.float32) / 32768.0, source.getframerate()


def _from_ends(
    pairs: list[tuple[str, float]], names: dict[str, str] | None
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Phones given with their end times to starts and phones."""
    starts: list[float] = []
    phones: list[int] = []
    start_s = 0.0
    for symbol, end_s in pairs:
        parts = from_arpabet(symbol) if names is None else (INDEX[names[symbol]],)
        for index, phone in enumerate(parts):
            starts.append(start_s + (end_s - start_s) * index / len(parts) + _SHIFT_S)
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
    starts, phones = _from_ends(pairs, None)
    return Speech(samples, rate_hz, starts, phones)


def speak_festival(texts: list[str], voice: FestivalVoice, stretch: float) -> list[Speech]:
    """Several utterances by one festival process, which takes a second to start.

    Raises: UsageError when festival or this voice of it is not installed.
    """
    program = shutil.which("festival")
    if program is None:
        raise UsageError(f"festival was not found; apt-get install {FESTIVAL_PACKAGES}")
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"(voice_{voice.name})", f"(Parameter.set 'Duration_Stretch {stretch:.3f})"]
        for index, text in enumerate(texts):
            quoted = text.replace("\\", "").replace('"', "")
            base = Path(folder) / str(index)
            lines.append(f'(set! u (Utterance Text "{quoted}"))(utt.synth u)')
            lines.append(f'(utt.save.wave u "{base}.wav" \'riff)(utt.save.segs u "{base}.segs")')
        script = Path(folder) / "speak.scm"
        script.write_text("\n".join(lines))
        subprocess.run(
            [program, "-b", str(script)], capture_output=True, timeout=_FESTIVAL_S, check=False
        )
        spoken = []
        for index in range(len(texts)):
            base = Path(folder) / str(index)
            if not base.with_suffix(".segs").is_file():
                raise UsageError(
                    f"festival does not speak as {voice.name}; apt-get install {FESTIVAL_PACKAGES}"
                )
            samples, rate_hz = _read_wav(base.with_suffix(".wav"))
            segments = base.with_suffix(".segs").read_text().split("#\n", 1)[1].split("\n")
            pairs = [(cells[2], float(cells[0])) for cells in map(str.split, segments) if cells]
            starts, phones = _from_ends(pairs, voice.phones)
            spoken.append(Speech(samples, rate_hz, starts, phones))
    return spoken


@cache
def festival_voices() -> tuple[FestivalVoice, ...]:
    """Those of FESTIVAL_VOICES that are installed."""
    program = shutil.which("festival")
    if program is None:
        return ()
    listed = subprocess.run(
        [program, "-b", "(print (voice.list))"], capture_output=True, text=True, timeout=_FESTIVAL_S
    ).stdout
    have = listed.replace("(", " ").replace(")", " ").split()
    return tuple(voice for voice in FESTIVAL_VOICES if voice.name in have)


def text_for(voice: FestivalVoice, rng: np.random.Generator) -> str:
    """Random text for `voice`: English, or else numbers and plain syllables, whose diphones every
    voice has."""
    if voice.phones is None:
        return sentences.english(rng)
    return sentences.syllables(rng) if rng.random() < 0.6 else sentences.numbers(rng)
