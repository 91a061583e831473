"""Training sequences: each output has the phone and the lips of its own time."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")

from lipstream.calibration.training.encoder.sequences import (  # noqa: E402
    FILE,
    STREAM,
    UNKNOWN,
    spoken_sequence,
)
from lipstream.calibration.training.speech.phones import INDEX  # noqa: E402


def test_targets_of_a_look_ahead_lie_in_the_past() -> None:
    phones = np.arange(40, dtype=np.uint8)
    made = spoken_sequence(np.zeros((20, 3), np.float16), STREAM, phones)
    assert made.phones.shape == (20, 5)
    assert made.phones[10].tolist() == [22, 18, 14, 10, 2]
    assert made.phones[3].tolist() == [8, 4, 0, UNKNOWN, UNKNOWN]
    assert made.phones[19, 0] == UNKNOWN  # the moment at which the clip ends
    made = spoken_sequence(np.zeros((20, 3), np.float16), FILE, phones)
    assert made.phones[10].tolist() == [18]


def test_lips_are_closed_at_the_time_of_a_closure() -> None:
    names = ("aa", "b", "aa")
    phones = np.repeat([INDEX[name] for name in names], 20).astype(np.uint8)
    made = spoken_sequence(np.zeros((30, 3), np.float16), STREAM, phones)
    for output, delay_ms in enumerate(STREAM.delays_ms):
        ends_ms = 20 * (np.argmin(made.lips[12:, output, 0]) + 13)
        assert abs(ends_ms - delay_ms - 300) <= 40
