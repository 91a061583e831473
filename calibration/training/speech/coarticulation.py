"""Lip motion computed from phone times, for speech without video.

Each phone pulls the lips towards its own shape with a strength that falls off on both sides of it;
the lips go to the weighted mean of all pulls. Source: dominance functions, Cohen and Massaro,
"Modeling coarticulation in synthetic visual speech", 1993; the numbers are ours.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lipstream.calibration.training.speech.phones import BILABIALS, LABIODENTALS, PHONES
from lipstream.engine.types import F32, U8

FRAME_S: Final = 0.01
# Decay of a pull before and after its phone. Rounding starts well before its vowel.
_OPENING_BEFORE_S: Final = 0.045
_OPENING_AFTER_S: Final = 0.050
_SHAPE_BEFORE_S: Final = 0.110
_SHAPE_AFTER_S: Final = 0.070
_CLOSURE_S: Final = 0.020  # lips meet within this time of the hold of p, b and m
_BITE_OPENING: Final = 0.15  # maximum of f and v
_OPENING: Final = np.array([p.opening for p in PHONES], np.float32)
_WIDTH: Final = np.array([p.width for p in PHONES], np.float32)
_ROUNDING: Final = np.array([p.rounding for p in PHONES], np.float32)
_OPENING_DOMINANCE: Final = np.array([p.opening_dominance for p in PHONES], np.float32)
_SHAPE_DOMINANCE: Final = np.array([p.shape_dominance for p in PHONES], np.float32)


def segments(phones: U8) -> tuple[F32, F32, U8]:
    """Runs of equal labels: starts f32 [n] and ends f32 [n] in seconds, and the phone of each."""
    cuts = np.flatnonzero(np.diff(phones)) + 1
    starts = np.concatenate([[0], cuts])
    ends = np.concatenate([cuts, [len(phones)]])
    return (
        (starts * FRAME_S).astype(np.float32),
        (ends * FRAME_S).astype(np.float32),
        phones[starts],
    )


def lip_track(phones: U8) -> F32:
    """Phones per 10 ms u8 [n] to f32 [n, 3]: opening 0..1, width -1..1, rounding 0..1."""
    starts, ends, names = segments(phones)
    time_s = ((np.arange(len(phones)) + 0.5) * FRAME_S).astype(np.float32)[:, None]
    middle = 0.5 * (starts + ends)
    hold = 0.25 * (ends - starts)  # full strength in the middle half of a phone
    before = np.maximum(0.0, (middle - hold) - time_s)
    after = np.maximum(0.0, time_s - (middle + hold))

    def pull(dominance: F32, before_s: float, after_s: float) -> F32:
        fallen: F32 = dominance[names] * np.exp(-before / before_s - after / after_s)
        weights: F32 = fallen / fallen.sum(1, keepdims=True)
        return weights

    opening_pull = pull(_OPENING_DOMINANCE, _OPENING_BEFORE_S, _OPENING_AFTER_S)
    shape_pull = pull(_SHAPE_DOMINANCE, _SHAPE_BEFORE_S, _SHAPE_AFTER_S)
    opening = opening_pull @ _OPENING[names]
    distance_s = before + after
    for index in np.flatnonzero(np.isin(names, BILABIALS)):
        opening = opening * (1.0 - np.exp(-((distance_s[:, index] / _CLOSURE_S) ** 2)))
    for index in np.flatnonzero(np.isin(names, LABIODENTALS)):
        near = np.exp(-((distance_s[:, index] / _CLOSURE_S) ** 2))
        opening = opening + near * (np.minimum(opening, _BITE_OPENING) - opening)
    track = np.stack([opening, shape_pull @ _WIDTH[names], shape_pull @ _ROUNDING[names]], 1)
    padded = np.pad(track, ((1, 1), (0, 0)), mode="edge")
    smooth: F32 = (0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]).astype(np.float32)
    return smooth
