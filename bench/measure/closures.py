"""Whether lips meet where they must, part where they must, and rest where nothing is said.

A closure is a least opening below 0.15 of the clip's 95th percentile: real speakers pass for 95 %
of their /b p/ within 100 ms; within 60 ms is stricter. A vowel is counted twice: in its middle
half, and whole, where the closing for a neighbouring p b m counts against it. Two labelled sets:
LJ Speech with phone times (a speaker never trained on), and the words of GRID that begin with b or
p (sentences never trained on), where the camera shows what the speaker's own lips did.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.bench.measure.encode_clip import encode_clip
from lipstream.calibration.training.clips import TalkingClip
from lipstream.engine.speech.encoder import Encoder
from lipstream.engine.types import F32, SAMPLE_RATE_HZ
from lipstream.streaming.files.audio_file import read_speech

CLOSED: Final = 0.15  # of the clip's 95th percentile
REAL_NEAR_S: Final = 0.1  # within which 95 % of real bilabials close
NEAR_S: Final = 0.06  # a stricter reading
BILABIALS: Final = frozenset({"P", "B", "M"})
OPEN_VOWELS: Final = frozenset({"AA", "AE", "AO", "AW", "AY"})
_GRID_S: Final = 0.005
_GRID_RATE_HZ: Final = 25_000  # of the times in GRID's word labels
_LONG_PAUSE_S: Final = 0.4
_PAUSE_EDGES_S: Final = (0.2, 0.12)  # closing after speech, opening before it
_FRAME_S: Final = 0.04
_LEVEL_SAMPLES: Final = SAMPLE_RATE_HZ // 100
_SOUNDS_DB: Final = -20.0  # of the loudest 10 ms of a vowel


def labelled_closures(
    encoder: Encoder, data: Path, changed: Callable[[F32], F32] = lambda samples: samples
) -> dict[str, Any]:
    """Shares of bilabials that close and of open vowels that do, over audio/lj with its labels,
    and what the lips do in its pauses; `changed` makes of each sentence what is heard."""
    closed: dict[float, list[bool]] = {REAL_NEAR_S: [], NEAR_S: []}
    shut: dict[str, list[bool]] = {"middle": [], "sounding": [], "whole": []}
    resting: list[float] = []
    moving: list[float] = []
    for sound in sorted((data / "audio" / "lj").glob("*.wav")):
        labels = data / "labels" / "lj" / f"{sound.stem}.TextGrid"
        if not labels.is_file():
            continue
        samples = read_speech(sound)
        heard = encode_clip(encoder, changed(samples))
        time_s = np.arange(0.0, len(samples) / SAMPLE_RATE_HZ, _GRID_S)
        opening = heard.at(time_s)[:, 0]
        limit = CLOSED * float(np.percentile(opening, 95))
        for start_s, end_s, phone in read_phones(labels):
            if phone in BILABIALS:
                for reach_s, answers in closed.items():
                    near = _between(time_s, start_s - reach_s, end_s + reach_s)
                    answers.append(bool(opening[near].min() < limit))
            elif phone in OPEN_VOWELS:
                label = (start_s, end_s)
                for name, span_s in (
                    ("middle", _middle(label)),
                    ("sounding", _middle(where_it_sounds(samples, *label))),
                    ("whole", label),
                ):
                    within = _between(time_s, *span_s)
                    shut[name].append(bool(opening[within].min() < limit))
            elif phone in ("SP", "SIL", "") and end_s - start_s >= _LONG_PAUSE_S:
                frames_s = np.arange(
                    start_s + _PAUSE_EDGES_S[0], end_s - _PAUSE_EDGES_S[1], _FRAME_S
                )
                if len(frames_s) > 1:
                    lips = heard.at(frames_s)[:, 0]
                    resting.append(float(lips.max()))
                    moving.append(float(np.abs(np.diff(lips)).max()))
    if not closed[NEAR_S]:
        return {}
    return {
        "bilabials": len(closed[NEAR_S]),
        "bilabials_closed": _share(closed[REAL_NEAR_S]),
        "bilabials_closed_60ms": _share(closed[NEAR_S]),
        "open_vowels": len(shut["whole"]),
        "open_vowels_closed_in_the_middle": _share(shut["middle"]),
        "open_vowels_closed_where_they_sound": _share(shut["sounding"]),
        "open_vowels_closed": _share(shut["whole"]),
        "pauses": len(resting),
        "pause_opening": round(max(resting, default=0.0), 4),
        "pause_change": round(max(moving, default=0.0), 4),
    }


def grid_closures(encoder: Encoder, clips: Sequence[TalkingClip], data: Path) -> dict[str, Any]:
    """Shares of words beginning with b or p, in `clips` of GRID, whose lips close near their start;
    `real` is the same count over the lips that the camera saw."""
    found: list[bool] = []
    seen: list[bool] = []
    for clip in clips:
        stem = clip.name.split("__")[-1]
        labels = data / "labels" / "grid_s1" / f"{stem}.align"
        if not labels.is_file():
            continue
        heard = encode_clip(encoder, clip.audio)
        time_s = np.arange(0.0, len(clip.audio) / SAMPLE_RATE_HZ, _GRID_S)
        opening = heard.at(time_s)[:, 0]
        picture_s = clip.time_s + clip.late_s
        for start_s in word_starts(labels, ("b", "p")):
            near = _between(time_s, start_s - NEAR_S, start_s + NEAR_S)
            found.append(bool(opening[near].min() < CLOSED * np.percentile(opening, 95)))
            near = _between(picture_s, start_s - NEAR_S, start_s + NEAR_S)
            seen.append(bool(clip.opening[near].min() < CLOSED * np.percentile(clip.opening, 95)))
    if not found:
        return {}
    return {"words": len(found), "closed_60ms": _share(found), "real_60ms": _share(seen)}


def where_it_sounds(samples: F32, start_s: float, end_s: float) -> tuple[float, float]:
    """The part of a label that is not far below its loudest 10 ms, s; samples f32 at 16 kHz."""
    first, end = round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ)
    starts = np.arange(first, end, _LEVEL_SAMPLES)
    power = np.array(
        [np.square(samples[at : min(at + _LEVEL_SAMPLES, end)]).mean() for at in starts]
    )
    loud = starts[power >= power.max() * 10 ** (_SOUNDS_DB / 10)]
    span = (loud[0], min(loud[-1] + _LEVEL_SAMPLES, end))
    return float(span[0] / SAMPLE_RATE_HZ), float(span[1] / SAMPLE_RATE_HZ)


def word_starts(path: Path, letters: tuple[str, ...]) -> list[float]:
    """Start of each word that begins with one of `letters`, s, from a GRID label file."""
    rows = (line.split() for line in path.read_text().splitlines())
    return [int(row[0]) / _GRID_RATE_HZ for row in rows if row and row[2].startswith(letters)]


def read_phones(path: Path) -> list[tuple[float, float, str]]:
    """Start, end and ARPAbet phone (no stress digit) of a Praat TextGrid's tier "phones"."""
    _, _, tier = path.read_text().partition('name = "phones"')
    found = re.findall(r'xmin = ([\d.]+)\s+xmax = ([\d.]+)\s+text = "([^"]*)"', tier)
    return [(float(start), float(end), text.rstrip("012").upper()) for start, end, text in found]


def _between(time_s: NDArray[np.float64], start_s: float, end_s: float) -> NDArray[np.bool_]:
    return (time_s >= start_s) & (time_s <= end_s)


def _middle(span_s: tuple[float, float]) -> tuple[float, float]:
    edge_s = (span_s[1] - span_s[0]) / 4
    return span_s[0] + edge_s, span_s[1] - edge_s


def _share(answers: Sequence[bool]) -> float:
    return round(float(np.mean(answers)), 3)
