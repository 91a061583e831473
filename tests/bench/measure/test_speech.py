"""The quality benchmark on synthetic sounds and labels, and on labelled speech where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lipstream.bench.measure.closures import (
    labelled_closures,
    loud_part,
    read_phones,
    word_starts,
)
from lipstream.bench.measure.encode_clip import encode_clip
from lipstream.bench.measure.speech import measure_quality, step_ms
from lipstream.engine.errors import UsageError
from lipstream.engine.speech.encoder import Encoder
from tests.engine.sounds import data_folder, vowels

GRID = """name = "words"
 xmin = 0.0
 xmax = 9.0
 text = "no"
item [2]:
 name = "phones"
 intervals [1]:
  xmin = 0.000
  xmax = 0.090
  text = "AH0"
 intervals [2]:
  xmin = 0.090
  xmax = 0.210
  text = "B"
"""


def test_phones_of_a_textgrid(tmp_path: Path) -> None:
    path = tmp_path / "x.TextGrid"
    path.write_text(GRID)
    assert read_phones(path) == [(0.0, 0.09, "AH"), (0.09, 0.21, "B")]


def test_words_of_a_grid_label_file(tmp_path: Path) -> None:
    path = tmp_path / "bbaf4p.align"
    path.write_text("0 17250 sil\n17250 22500 bin\n22500 26500 blue\n38000 47250 please\n")
    assert word_starts(path, ("b", "p")) == [0.69, 0.9, 1.52]
    assert word_starts(path, ("s",)) == [0.0]


def test_the_loud_part_of_a_vowel() -> None:
    samples = np.full(16_000, 1e-4, np.float32)
    samples[8000:11_200] = 0.1
    start_s, end_s = loud_part(samples, 0.4, 0.65)
    assert (start_s, end_s) == pytest.approx((0.5, 0.65))
    assert loud_part(samples, 0.503, 0.507) == pytest.approx((0.503, 0.507))


def test_an_encoded_clip_has_steps_of_20_ms() -> None:
    encoded = encode_clip(Encoder(80), vowels(1.0))
    np.testing.assert_allclose(encoded.time_s, 0.02 * np.arange(50))
    assert encoded.lips.shape == (50, 3)
    np.testing.assert_allclose(encoded.at(encoded.time_s), encoded.lips, atol=1e-6)


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no video"):
        measure_quality(tmp_path, tmp_path / "cache")


def test_cpu_time_of_a_step_is_plausible() -> None:
    assert 0.01 < step_ms(Encoder(80)) < 3.0


def test_lips_meet_on_real_bilabials() -> None:
    """The figures of the model card, with the shipped weights, through the streaming stage."""
    figures = labelled_closures(Encoder(80), data_folder())
    assert figures["bilabials"] == 46
    assert figures["bilabials_closed"] >= 0.8
    assert figures["open_vowels_closed"] <= 0.25
    assert figures["open_vowels_closed_where_loud"] <= 0.05
