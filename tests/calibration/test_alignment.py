"""Phone times of real speech: known words, and known phrases in an order nobody told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lipstream.calibration.pretrain import alignment, phones
from lipstream.calibration.pretrain.phones import SILENCE, UNKNOWN
from lipstream.engine.types import F32

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


def heard(said: list[int], sure: float = 0.6) -> F32:
    """Log posteriors of a recogniser that hears phones, one a step, with this probability."""
    posterior = np.full((len(said), len(phones.PHONES)), 0.01, np.float32)
    posterior[np.arange(len(said)), said] = sure
    logs: F32 = np.log(posterior)
    return logs


def spoken(text: str) -> list[int]:
    """Phones of words, 80 ms each, with a pause before and after."""
    sounds = [phone for word in text.split() for phone in alignment.phones_of(word)]
    return np.repeat([SILENCE, *sounds, SILENCE], 4).tolist()


def test_alignment_finds_the_boundaries_of_a_clear_posterior() -> None:
    names = ("sil", "b", "iy", "sil", "f", "ao", "sil")
    truth = np.repeat([phones.INDEX[name] for name in names], 6)
    labels, score = alignment.align(
        heard(truth.tolist()), [phones.INDEX[name] for name in ("b", "iy", "f", "ao")]
    )
    np.testing.assert_array_equal(labels, np.repeat(truth, 2))
    assert -0.7 < score < np.log(0.6)


def test_grid_names_are_sentences() -> None:
    assert alignment.grid_sentence("bbaf4p") == "bin blue at F four please"


@needs_flite
def test_phrases_are_found_in_any_order_and_the_words_between_them() -> None:
    truth = spoken("may I have large latte with brown sugar please")
    labels = alignment.align_phrases(heard(truth), ["brown sugar", "latte", "large"])
    np.testing.assert_array_equal(labels, np.repeat(truth, 2))


@needs_flite
def test_a_pause_inside_a_phrase_is_allowed() -> None:
    truth = spoken("large brown") + spoken("sugar")
    labels = alignment.align_phrases(heard(truth), ["brown sugar", "large"])
    np.testing.assert_array_equal(labels, np.repeat(truth, 2))


@needs_flite
def test_words_that_nobody_knows_are_not_vouched_for() -> None:
    before, after = spoken("large"), spoken("latte")
    noise = np.full((30, len(phones.PHONES)), -np.log(len(phones.PHONES)), np.float32)
    labels = alignment.align_phrases(
        np.concatenate([heard(before), noise, heard(after)]), ["latte", "large"]
    )[::2]
    edge = len(before) - 4  # the pause after it may be heard longer
    np.testing.assert_array_equal(labels[:edge], before[:edge])
    np.testing.assert_array_equal(labels[-len(after) + 4 :], after[4:])
    between = labels[len(before) : len(before) + len(noise)]
    assert set(between.tolist()) <= {SILENCE, UNKNOWN}


def test_orders_are_read_with_their_phrases(tmp_path: Path) -> None:
    assert alignment.spoken_phrases(tmp_path) == []
    (tmp_path / "labels").mkdir()
    (tmp_path / "audio" / "barista").mkdir(parents=True)
    orders = {
        "two.wav": {"slots": {"drink": "latte", "milk": " soy milk"}},
        "lost.wav": {"slots": {"drink": "mocha"}},
    }
    (tmp_path / "labels" / "barista.json").write_text(json.dumps(orders))
    sound = tmp_path / "audio" / "barista" / "two.flac"
    sound.touch()
    assert alignment.spoken_phrases(tmp_path) == [(sound, ["latte", "soy milk"])]
