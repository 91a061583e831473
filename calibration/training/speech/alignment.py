"""Forced alignment of real speech with known words, by the recogniser being trained.

Flite's English lexicon gives the phones of the words; a Viterbi search aligns them with the
recogniser's posteriors, with an optional pause between any two.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from lipstream.calibration.training.speech.phones import SILENCE, from_arpabet
from lipstream.engine.errors import MediaError, UsageError
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, U8

_FLOOR: Final = -7.0  # log posterior, so that one wrong frame does not exclude a path
_PAUSE: Final = -3.0
GOOD_SCORE: Final = -2.2  # mean log posterior per step; below it, words and audio do not match
_DIGITS: Final = {
    "z": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six",
    "7": "seven", "8": "eight", "9": "nine",
}  # fmt: skip
_NO_WORDS: Final[dict[str, str]] = {}
_GRID: Final = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    _NO_WORDS,  # the letter itself
    _DIGITS,
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)


def grid_sentence(code: str) -> str:
    """The words of a GRID file name: "bbaf4p" is "bin blue at F four please"."""
    words = [table.get(letter, letter.upper()) for table, letter in zip(_GRID, code, strict=True)]
    return " ".join(words)


def phones_of(text: str) -> list[int]:
    """Phones of English text, pauses left out. Raises: UsageError without flite."""
    program = shutil.which("flite")
    if program is None:
        raise UsageError("flite was not found; install the package flite")
    with tempfile.NamedTemporaryFile(suffix=".wav") as sound:
        command = [program, "-voice", "slt", "-psdur", "-t", text, "-o", sound.name]
        spoken = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = [item.split(":")[0] for item in spoken.split()]
    return [phone for name in names for phone in from_arpabet(name) if phone != SILENCE]


def align(log_posterior: F32, phones: list[int]) -> tuple[U8, float]:
    """Align `phones` with log posteriors f32 [steps, phones].

    Returns the phone per 10 ms, u8 [2 * steps], and the mean log posterior of the path. Source:
    Viterbi search, ours.
    """
    states = np.array([SILENCE] + [s for phone in phones for s in (phone, SILENCE)])
    emission = np.maximum(log_posterior, _FLOOR)[:, states].astype(np.float64)
    steps, width = emission.shape
    never = -1e9
    into_pause = np.where(np.arange(width) % 2 == 0, _PAUSE, 0.0)
    score = np.full(width, never)
    score[:2] = emission[0, :2]
    back = np.zeros((steps, width), np.int64)
    for step in range(1, steps):
        advance = np.concatenate([[never], score[:-1]]) + into_pause
        skip = np.full(width, never)
        skip[3::2] = score[1:-2:2]
        choices = np.stack([score, advance, skip])
        back[step] = choices.argmax(0)
        score = choices[back[step], np.arange(width)] + emission[step]
    state = width - 1 if score[-1] >= score[-2] else width - 2
    mean = float(score[state]) / steps
    path = [state]
    for step in range(steps - 1, 0, -1):
        state -= int(back[step, state])
        path.append(state)
    return np.repeat(states[path[::-1]], 2).astype(np.uint8), mean


def read_sentence(path: Path) -> F32:
    """Audio of a short file, f32 [samples], mono 16 kHz. Raises: MediaError."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as source:
            resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE_HZ)
            decoded = [*source.decode(audio=0), None]
            pieces = [out.to_ndarray()[0] for frame in decoded for out in resampler.resample(frame)]
    except (FFmpegError, OSError) as error:
        raise MediaError(f"{path}: its sound cannot be read ({error})") from error
    return np.concatenate(pieces).astype(np.float32)


def labelled_sentences(data: Path) -> list[tuple[Path, str]]:
    """Files below `data` with known words: GRID by file name, VCTK by its prompts."""
    import json

    found = [(path, grid_sentence(path.stem)) for path in sorted(data.glob("video/grid_s1/*.mpg"))]
    found += [
        (path, grid_sentence(path.stem.split("_")[-1]))
        for path in sorted(data.glob("video/talkers/grid_*.mpg"))
    ]
    prompts = data / "labels" / "vctk_prompts.json"
    if prompts.is_file():
        texts = json.loads(prompts.read_text())
        for path in sorted(data.glob("audio/vctk/*.flac")):
            number = path.stem.split("_")[1]
            if number in texts:
                found.append((path, texts[number]))
    return found
