"""Phone times of real speech whose words are known, found with the recogniser itself.

The words become phones through flite's English lexicon; a Viterbi search lays them along the
recogniser's posteriors, with a pause allowed between any two. Of some sentences only phrases are
known: there the search also finds where each was said, and what may have been said between.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.pretrain.phones import SILENCE, UNKNOWN, from_arpabet
from lipstream.engine.errors import MediaError, UsageError
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, U8

_FLOOR: Final = -7.0  # log posterior: one wrong frame must not forbid a path
_PAUSE: Final = -3.0
GOOD_SCORE: Final = -2.2  # mean log posterior per step below which words and sound disagree
# Between known phrases a word must be heard well, for it is only a guess.
_GUESS_SCORE: Final = -1.1
_NEW_WORD: Final = -6.0  # log prior of a word nobody told us of
_KNOWN_PHRASE: Final = 4.0
_NEVER: Final = -1e9
# What people say around the phrases of an order.
_AROUND: Final = """a an the I I'd I'll I'm could can may would you we me my get got have like want
need please with and also of in on for to be that it is make order let give some just add put one
cup shot roast ounce coffee no extra little bit lot hi hello hey thank thanks okay um uh today go do
so this will try bring small medium large single double triple"""
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
    """Lay `phones` along log posteriors f32 [steps, phones].

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


def align_phrases(log_posterior: F32, phrases: Sequence[str]) -> U8:
    """Lay phrases, each said once in an order unknown, along log posteriors f32 [steps, phones].

    Returns the phone per 10 ms, u8 [2 * steps]; UNKNOWN where phrase or word hardly fits. Source:
    Viterbi search over a loop of words, ours; a copy of the loop for every set of phrases that have
    been said.
    """
    tokens = [[[SILENCE]], *map(_pronounced, phrases), *map(_pronounced, _AROUND.split())]
    known = len(phrases)
    prior = np.full(len(tokens), _NEW_WORD)
    prior[0], prior[1 : known + 1] = _PAUSE, _KNOWN_PHRASE
    states, token, first, last, after_pause = _word_loop(tokens)
    emission = np.maximum(log_posterior, _FLOOR)[:, states].astype(np.float64)
    steps, width, layers = len(emission), len(states), 1 << known
    here = np.arange(layers * width).reshape(layers, width)
    # A phrase is entered from the layer in which it has not been said yet.
    layer = np.arange(layers)
    bit = np.zeros(len(tokens), np.int64)
    bit[1 : known + 1] = 1 << np.arange(known)
    enters = (bit == 0) | ((layer[:, None] & bit) != 0)
    origin = layer[:, None] & ~bit
    score = np.full((layers, width), _NEVER)
    score[bit, first] = prior + emission[0, first]
    back = np.zeros((steps, layers, width), np.int32)
    inside = np.ones(width, bool)
    inside[first] = False
    for step in range(1, steps):
        ended = here[layer, last[score[:, last].argmax(1)]]
        ways = np.full((4, layers, width), _NEVER)
        ways[0] = score
        ways[1, :, 1:] = np.where(inside[1:], score[:, :-1], _NEVER)
        ways[2, :, 2:] = np.where(after_pause[2:], score[:, :-2], _NEVER)
        ways[3][:, first] = np.where(enters, score.flat[ended][origin] + prior, _NEVER)
        chosen = ways.argmax(0)
        source = here - np.minimum(chosen, 2)
        source[:, first] = np.where(chosen[:, first] == 3, ended[origin], source[:, first])
        back[step] = source
        score = np.take_along_axis(ways, chosen[None], 0)[0] + emission[step]
    path = [here[-1, last[score[-1, last].argmax()]]]
    for step in range(steps - 1, 0, -1):
        path.append(back[step].flat[path[-1]])
    where = np.array(path[::-1]) % width
    return _vouched(where, states, token, known, emission)


def _word_loop(tokens: Sequence[Sequence[Sequence[int]]]) -> tuple[NDArray[np.int64], ...]:
    """Tokens (words of phones) as one row of states: phone and token of each, first and last
    state of each token, and where a pause before the state may be left out."""
    states: list[int] = []
    token: list[int] = []
    first: list[int] = []
    last: list[int] = []
    after_pause: list[bool] = []
    for index, words in enumerate(tokens):
        first.append(len(states))
        for number, word in enumerate(words):
            phones = [*([SILENCE] if number else []), *word]
            after_pause += [number > 0 and place == 1 for place in range(len(phones))]
            token += [index] * len(phones)
            states += phones
        last.append(len(states) - 1)
    rows = (states, token, first, last)
    return *(np.array(row, np.int64) for row in rows), np.array(after_pause)


def _vouched(
    where: NDArray[np.int64],
    states: NDArray[np.int64],
    token: NDArray[np.int64],
    known: int,
    emission: NDArray[np.float64],
) -> U8:
    """Phones of a path through the word loop, per 10 ms, words that hardly fit as UNKNOWN."""
    phones = states[where].astype(np.uint8)
    fit = emission[np.arange(len(where)), where]
    moved = np.diff(where)
    cuts = np.flatnonzero((np.diff(token[where]) != 0) | (moved < 0)) + 1
    for run in np.split(np.arange(len(where)), cuts):
        which = int(token[where[run[0]]])
        if which and fit[run].mean() < (GOOD_SCORE if which <= known else _GUESS_SCORE):
            phones[run] = UNKNOWN
    return np.repeat(phones, 2)


@cache
def _pronounced(phrase: str) -> list[list[int]]:
    # Alone, "a" would be read as the letter.
    return [phones_of("uh" if word == "a" else word) for word in phrase.split()]


def read_sentence(path: Path) -> F32:
    """The sound of a short file, f32 mono 16 kHz. Raises: MediaError."""
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
    """Sound files below `data` whose words are known: GRID by name, VCTK by its prompts."""
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


def spoken_phrases(data: Path) -> list[tuple[Path, list[str]]]:
    """Sound files below `data` of which phrases are known, and those: what was ordered."""
    import json

    labels = data / "labels" / "barista.json"
    if not labels.is_file():
        return []
    orders = json.loads(labels.read_text())
    found = []
    for name in sorted(orders):
        path = data / "audio" / "barista" / f"{Path(name).stem}.flac"
        if path.is_file():
            found.append((path, [phrase.strip() for phrase in orders[name]["slots"].values()]))
    return found
