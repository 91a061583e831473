"""The expression stream: one JSON object every 20 ms, the same for a file and for chunks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lipstream.engine.errors import MediaError, UsageError
from lipstream.engine.face.arkit import ARKIT_NAMES
from lipstream.engine.face.model import face_model
from lipstream.engine.speech.encoder import Encoder
from lipstream.streaming.files.expression_stream import (
    express_lines,
    expressions,
    lines,
)
from tests.engine.sounds import vowels
from tests.streaming.sound_files import write_wav


def test_every_20_ms_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    write_wav(path, vowels(1.0))
    records = [json.loads(line) for line in express_lines(path)]
    assert [record["t"] for record in records] == [round(0.02 * k, 2) for k in range(50)]
    for record in records:
        assert set(record) == {"t", "expression", "lips", "arkit", "speech"}
        assert len(record["expression"]) == face_model().size
        assert set(record["lips"]) == {"opening", "width", "protrusion"}
        assert tuple(record["arkit"]) == ARKIT_NAMES
        assert all(0.0 <= weight <= 1.0 for weight in record["arkit"].values())
    assert any(record["speech"] for record in records)
    assert max(record["lips"]["opening"] for record in records) > 0.02


def test_the_jaw_opens_with_the_lips(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    write_wav(path, vowels(3.0))
    records = [json.loads(line) for line in express_lines(path)]
    jaw = np.array([record["arkit"]["jawOpen"] for record in records])
    gap = np.array([record["lips"]["opening"] for record in records])
    assert np.corrcoef(jaw, gap)[0, 1] > 0.7


def test_a_silent_file_has_no_weights(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "silence.wav", np.zeros(16_000, np.float32))
    for line in express_lines(path):
        assert not any(json.loads(line)["arkit"].values())


def test_a_stream_gives_lines_as_it_is_heard() -> None:
    encoder = Encoder(80)
    consumed = 0

    def chunks():  # type: ignore[no-untyped-def]
        nonlocal consumed
        for start in range(0, 16_000, 320):
            consumed += 320
            yield vowels(1.0)[start : start + 320]

    first = next(iter(lines(encoder, chunks())))
    assert json.loads(first)["t"] == 0.0
    assert consumed == 1280  # the look-ahead of 80 ms, and not a packet more


def test_nothing_heard_nothing_said() -> None:
    assert list(expressions(Encoder(80), [])) == []


def test_errors_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="low, live, studio"):
        list(express_lines("x.wav", "fast"))
    with pytest.raises(MediaError):
        list(express_lines(tmp_path / "missing.wav"))
