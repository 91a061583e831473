"""Lip closure by phone: closed on p b m, open on open vowels, at rest in pauses.

Lips count as closed where the opening is below 0.15 of its 95th percentile over the clip. By this
count real speakers close on 95 % of their /b p/ within 100 ms of the label; 60 ms is stricter.
An open vowel is counted over its middle half, over the part that is loud, and whole; the closure of
a neighbouring p b m counts against the whole. Two labelled sets are used: LJ Speech with phone
times, whose speaker is not in the training data; and words of GRID that begin with b or p, from
sentences that are not, where the camera shows the closures of the speaker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.bench.measure.encode_clip import AnyEncoder, encode_clip
from lipstream.calibration.training.clips import TalkingClip
from lipstream.engine.types import F32, SAMPLE_RATE_HZ
from lipstream.streaming.files.audio_file import read_speech

CLOSED: Final = 0.15  # of the clip's 95th percentile
REAL_NEAR_S: Final = 0.1  # 95 % of real bilabials close within this of their label
NEAR_S: Final = 0.06  # the stricter limit
BILABIALS: Final = frozenset({"P", "B", "M"})
OPEN_VOWELS: Final = frozenset({"AA", "AE", "AO", "AW", "AY"})
_SAMPLING_S: Final = 0.005  # of the opening over time
_GRID_RATE_HZ: Final = 25_000  # time base of the word labels of GRID
_LONG_PAUSE_S: Final = 0.4
_PAUSE_EDGES_S: Final = (0.2, 0.12)  # closing after speech, opening before it
_FRAME_S: Final = 0.04
_LEVEL_SAMPLES: Final = SAMPLE_RATE_HZ // 100
_LOUD_DB: Final = -20.0  # relative to the loudest 10 ms of a vowel


def labelled_closures(
    encoder: AnyEncoder, data: Path, distort: Callable[[F32], F32] = lambda samples: samples
) -> dict[str, Any]:
    """Closure of bilabials and of open vowels over audio/lj, and the opening in its pauses.

    distort: applied to each sentence, f32 [n] at 16 kHz, ahead of the encoder.

    Returns: counts, and shares of 1; {} where there is no labelled speech.
    """
    closed: dict[float, list[bool]] = {REAL_NEAR_S: [], NEAR_S: []}
    shut: dict[str, list[bool]] = {"middle": [], "loud": [], "whole": []}
    resting: list[float] = []
    moving: list[float] = []
    for sound in sorted((data / "audio" / "lj").glob("*.wav")):
        labels = data / "labels" / "lj" / f"{sound.stem}.TextGrid"
        if not labels.is_file():
            continue
        samples = read_speech(sound)
        encoded = encode_clip(encoder, distort(samples))
        time_s = np.arange(0.0, len(samples) / SAMPLE_RATE_HZ, _SAMPLING_S)
        opening = encoded.at(time_s)[:, 0]
        limit = CLOSED * float(np.percentile(opening, 95))
        for start_s, end_s, phone in read_phones(labels):
            if phone in BILABIALS:
                for within_s, closures in closed.items():
                    near = _between(time_s, start_s - within_s, end_s + within_s)
                    closures.append(bool(opening[near].min() < limit))
            elif phone in OPEN_VOWELS:
                label = (start_s, end_s)
                for name, span_s in (
                    ("middle", _middle(label)),
                    ("loud", _middle(loud_part(samples, *label))),
                    ("whole", label),
                ):
                    within = _between(time_s, *span_s)
                    shut[name].append(bool(opening[within].min() < limit))
            elif phone in ("SP", "SIL", "") and end_s - start_s >= _LONG_PAUSE_S:
                frames_s = np.arange(
                    start_s + _PAUSE_EDGES_S[0], end_s - _PAUSE_EDGES_S[1], _FRAME_S
                )
                if len(frames_s) > 1:
                    lips = encoded.at(frames_s)[:, 0]
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
        "open_vowels_closed_where_loud": _share(shut["loud"]),
        "open_vowels_closed": _share(shut["whole"]),
        "pauses": len(resting),
        "pause_opening": round(max(resting, default=0.0), 4),
        "pause_change": round(max(moving, default=0.0), 4),
    }


def grid_closures(encoder: AnyEncoder, clips: Sequence[TalkingClip], data: Path) -> dict[str, Any]:
    """Shares of words of GRID that begin with b or p and whose lips close near their start.

    Returns: words, closed_60ms, and real_60ms, the same count over the tracked lips of the speaker;
    {} where `clips` has no labels.
    """
    found: list[bool] = []
    real: list[bool] = []
    for clip in clips:
        stem = clip.name.split("__")[-1]
        labels = data / "labels" / "grid_s1" / f"{stem}.align"
        if not labels.is_file():
            continue
        encoded = encode_clip(encoder, clip.audio)
        time_s = np.arange(0.0, len(clip.audio) / SAMPLE_RATE_HZ, _SAMPLING_S)
        opening = encoded.at(time_s)[:, 0]
        picture_s = clip.time_s + clip.late_s
        for start_s in word_starts(labels, ("b", "p")):
            near = _between(time_s, start_s - NEAR_S, start_s + NEAR_S)
            found.append(bool(opening[near].min() < CLOSED * np.percentile(opening, 95)))
            near = _between(picture_s, start_s - NEAR_S, start_s + NEAR_S)
            real.append(bool(clip.opening[near].min() < CLOSED * np.percentile(clip.opening, 95)))
    if not found:
        return {}
    return {"words": len(found), "closed_60ms": _share(found), "real_60ms": _share(real)}


def loud_part(samples: F32, start_s: float, end_s: float) -> tuple[float, float]:
    """Start and end, s, of the part within 20 dB of its loudest 10 ms; samples f32 at 16 kHz."""
    first, end = round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ)
    starts = np.arange(first, end, _LEVEL_SAMPLES)
    power = np.array(
        [np.square(samples[at : min(at + _LEVEL_SAMPLES, end)]).mean() for at in starts]
    )
    loud = starts[power >= power.max() * 10 ** (_LOUD_DB / 10)]
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


def _share(counted: Sequence[bool]) -> float:
    return round(float(np.mean(counted)), 3)
