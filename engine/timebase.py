"""Integer time: sample indices at 16 kHz and frame indices with a rational rate.

Each position is computed from its index, so no error accumulates.
"""

from __future__ import annotations

from fractions import Fraction

from lipstream.engine.types import SAMPLE_RATE_HZ


def frame_sample(frame_index: int, fps: Fraction) -> int:
    """First sample that sounds while frame `frame_index` is shown (floor)."""
    return (frame_index * SAMPLE_RATE_HZ * fps.denominator) // fps.numerator


def frames_covering(samples: int, fps: Fraction) -> int:
    """Number of frames whose presentation begins before sample `samples`."""
    return -((-samples * fps.numerator) // (SAMPLE_RATE_HZ * fps.denominator))


def ms_to_samples(ms: int) -> int:
    """Milliseconds to samples, exact."""
    return ms * SAMPLE_RATE_HZ // 1000
