"""calibrate --adapt: relevant features are found, and kept where held-out footage gains."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lipstream.calibration import bundle_writer
from lipstream.calibration.person import relevance as adapting
from lipstream.calibration.person.appearance_fit import MouthTextures, fit_appearance
from lipstream.calibration.person.relevance import AdaptOptions, _Best, _descent, adapt
from lipstream.engine.errors import UsageError
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import face_model
from lipstream.engine.target.appearance import TEXTURE_SHAPE
from lipstream.engine.target.bundle import load_target
from lipstream.engine.target.similarity import MouthSimilarity

pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")

FRAMES, FEATURES = 200, 5


def features(frames: int) -> np.ndarray:
    """Slow, independent features, f32 [N, F]."""
    steps = np.random.default_rng(3).normal(0, 1, (FEATURES, frames + 40))
    slow = [np.convolve(one, np.hanning(20), "valid")[:frames] for one in steps]
    return (np.stack(slow, 1) / np.std(slow)).astype(np.float32)


def textures(depends_on: int) -> MouthTextures:
    """Textures that depend on one feature alone."""
    values = features(FRAMES)
    bright = 120 + 40 * np.tanh(values[:, depends_on])[:, None, None, None]
    shade = np.linspace(0.5, 1, TEXTURE_SHAPE[1])[:, None]
    clean = np.broadcast_to(bright * shade, (FRAMES, *TEXTURE_SHAPE, 3))
    noise = np.random.default_rng(4).normal(0, 1, (FRAMES, 1, 1, 1))
    pixels = (clean + noise).astype(np.uint8)
    return MouthTextures(np.arange(FRAMES), pixels, values, pixels[::20])


@pytest.fixture
def folder(target: Path, tmp_path: Path) -> Path:
    """The demo, with features of its frames and an appearance fitted to them."""
    folder = Path(shutil.copytree(target, tmp_path / "copy.target"))
    clip = load_target(folder)
    offset = features(len(clip.track))
    projection = np.zeros((FEATURES, face_model().size), np.float32)
    similarity = MouthSimilarity(projection, offset, offset[clip.source_frames])
    bundle_writer.write_sources(folder, clip.source_frames, list(clip.sources), similarity)
    mesh = build_mesh(face_model())
    read = clip.frames.decoder().read
    of_clip = MouthTextures.of(clip.track, read, similarity, mesh, clip.source_frames)
    fit = fit_appearance(of_clip, 12)
    assert fit is not None
    bundle_writer.write_appearance(folder, fit.appearance)
    bundle_writer._write_info(folder, json.loads((folder / "target.json").read_text()))
    return folder


def checked_report(step: str, fraction: float) -> None:
    assert step and 0 <= fraction <= 1


def test_the_relevant_feature_gains_weight_and_the_others_lose_it() -> None:
    some = textures(depends_on=2)
    default = fit_appearance(some, 5)
    assert default is not None
    states = list(_descent(some, default, 5, (140, 200), AdaptOptions(steps=40)))
    first, last = states[0], states[-1]
    assert first.relevance is not None and last.relevance is not None
    np.testing.assert_array_equal(first.relevance, 1)
    assert first.scores[0] == first.scores[1] == last.scores[0]
    assert last.scores[1] < 0.7 * last.scores[0]
    assert last.relevance[2] > 1.3 * np.delete(last.relevance, 2).max()


def test_early_stopping_ends_it() -> None:
    some = textures(depends_on=2)
    # Another feature is relevant in the early-stopping part than in the training part.
    other = textures(depends_on=4)
    late = some.frames >= 120
    pixels = np.where(late[:, None, None, None], other.pixels, some.pixels)
    mixed = replace(some, pixels=pixels)
    default = fit_appearance(mixed, 5)
    assert default is not None
    states = list(_descent(mixed, default, 5, (140, 200), AdaptOptions(patience=1, rate=0.2)))
    assert states[-1].steps < AdaptOptions().steps


@pytest.mark.parametrize(
    ("psnr_db", "ssim", "softer", "kept"),
    [
        (1.0, -0.01, False, False),
        (-1.0, 0.1, False, False),
        (0.05, 0.0, False, False),
        (1.0, 0.1, True, False),
        (-0.05, 0.01, False, True),
    ],
    ids=["ssim loses", "psnr loses", "by chance", "blurred", "gains"],
)
def test_learned_weights_are_kept_only_where_scores_gain(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    psnr_db: float,
    ssim: float,
    softer: bool,
    kept: bool,
) -> None:
    relevance = np.array([1, 2, 0.5, 1, 1], np.float32)
    monkeypatch.setattr(adapting, "_descent", lambda *_: iter([_Best(relevance, 7, (0.5, 0.25))]))
    gains = {"psnr_db": psnr_db, "ssim": ssim, "softer": softer}
    monkeypatch.setattr(adapting, "_gains", lambda *_: (gains, 0.75))
    before = load_target(folder)
    figures = adapt(folder, checked_report)
    after = load_target(folder)
    assert (figures["steps"], figures["default_score"], figures["score"]) == (7, 0.5, 0.25)
    assert before.appearance is not None and after.appearance is not None
    assert figures["kept"] is kept
    np.testing.assert_array_equal(
        after.appearance.relevance, relevance if kept else np.ones(FEATURES)
    )
    assert (after.sharpen == 0.75) is kept
    assert figures["summary"].startswith("adapted" if kept else "not adapted")


def test_without_a_gain_in_early_stopping_nothing_is_evaluated(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ones = np.ones(FEATURES, np.float32)
    monkeypatch.setattr(adapting, "_descent", lambda *_: iter([_Best(ones, 9, (0.5, 0.5))]))
    monkeypatch.setattr(adapting, "_gains", lambda *_: pytest.fail("evaluated"))
    figures = adapt(folder, checked_report)
    assert not figures["kept"] and "no gain" in figures["summary"]


def test_it_runs_to_its_end(folder: Path) -> None:
    figures = adapt(folder, checked_report, AdaptOptions(steps=5, stop_every=5))
    assert set(figures) == {"kept", "default_score", "score", "steps", "seconds", "summary"}
    assert 0 < figures["score"] <= figures["default_score"]


def test_the_time_limit_ends_it(folder: Path) -> None:
    assert adapt(folder, checked_report, AdaptOptions(time_limit_s=0.01))["steps"] == 0


def test_too_little_footage_is_reported(folder: Path, target: Path) -> None:
    assert (
        "too few usable frames"
        in adapt(folder, checked_report, AdaptOptions(used_fraction=0.05))["summary"]
    )
    assert "too few usable frames" in adapt(target, checked_report)["summary"], (
        "a photo has no similarity"
    )


def test_requirements_are_checked_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    photo = tmp_path / "face.png"
    Image.new("RGB", (64, 64)).save(photo)
    with pytest.raises(UsageError, match="a photo has none"):
        adapting.require_adaptable(photo)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs torch"):
        adapting.require_adaptable(Path("clip.mp4"))
