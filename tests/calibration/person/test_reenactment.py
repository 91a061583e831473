"""Painted frames of a clip have the mouth of another time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lipstream.calibration.person.reenactment import Reenactment
from lipstream.engine.target.bundle import load_target


def test_only_frames_of_the_span_are_drawn(target: Path) -> None:
    loaded = load_target(target)
    assert Reenactment([loaded], (10, 31)).pairs == 20
    assert Reenactment([loaded], (10, 11)).pairs == 0


def test_the_source_of_a_painted_frame_lies_outside_its_window_anywhere_in_the_clip(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_target(target)
    footage = Reenactment([loaded], (100, 131))
    cut, sources = footage.cut, list[int]()
    monkeypatch.setattr(
        footage, "cut", lambda clip, frame: sources.append(frame) or cut(clip, frame)
    )
    for seed in range(8):
        layers, real = footage.draw_painted(np.random.default_rng(seed))
        assert layers.painted.shape == real.shape and (layers.mask > 0).any()
    window = 0.5 * float(loaded.fps)
    assert all(frame <= 130 - window or frame >= 101 + window for frame in sources)
    assert any(not 100 <= frame < 131 for frame in sources)
