"""calibrate --adapt: it finds what tells, and is kept when footage it had not seen gains."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lipstream.calibration import bundle_writer
from lipstream.calibration.person import relevance as adapting
from lipstream.calibration.person.appearance_fit import MouthTextures, learn
from lipstream.calibration.person.relevance import AdaptOptions, _Best, _descent, adapt
from lipstream.engine.errors import UsageError
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import face_model
from lipstream.engine.target.appearance import TEXTURE_SHAPE
from lipstream.engine.target.bundle import load_target
from lipstream.engine.target.similarity import MouthSimilarity

pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")

FRAMES, READINGS = 200, 5


def features(frames: int) -> np.ndarray:
    """Slow ones that wander on their own, f32 [N, F]."""
    steps = np.random.default_rng(3).normal(0, 1, (READINGS, frames + 40))
    slow = [np.convolve(one, np.hanning(20), "valid")[:frames] for one in steps]
    return (np.stack(slow, 1) / np.std(slow)).astype(np.float32)


def textures(told_by: int) -> MouthTextures:
    """Pictures that follow one reading and nothing else."""
    known = features(FRAMES)
    bright = 120 + 40 * np.tanh(known[:, told_by])[:, None, None, None]
    shade = np.linspace(0.5, 1, TEXTURE_SHAPE[1])[:, None]
    seen = np.broadcast_to(bright * shade, (FRAMES, *TEXTURE_SHAPE, 3))
    noise = np.random.default_rng(4).normal(0, 1, (FRAMES, 1, 1, 1))
    pictures = (seen + noise).astype(np.uint8)
    return MouthTextures(np.arange(FRAMES), pictures, known, pictures[::20])


@pytest.fixture
def folder(target: Path, tmp_path: Path) -> Path:
    """The demo, with readings of its frames and an appearance learned by them."""
    folder = Path(shutil.copytree(target, tmp_path / "own.target"))
    clip = load_target(folder)
    frame_offset = features(len(clip.track))
    projection = np.zeros((READINGS, face_model().size), np.float32)
    similarity = MouthSimilarity(projection, frame_offset, frame_offset[clip.source_frames])
    bundle_writer.write_sources(folder, clip.source_frames, list(clip.sources), similarity)
    mesh = build_mesh(face_model())
    read = clip.frames.decoder().read
    learned = learn(MouthTextures.of(clip.track, read, similarity, mesh, clip.source_frames), 12)
    assert learned is not None
    bundle_writer.write_appearance(folder, learned.appearance)
    bundle_writer._write_info(folder, json.loads((folder / "target.json").read_text()))
    return folder


def nothing(what: str, share: float) -> None:
    assert what and 0 <= share <= 1


def test_what_tells_comes_to_count_and_what_does_not_ceases_to() -> None:
    some = textures(told_by=2)
    known = learn(some, 5)
    assert known is not None
    stood = list(_descent(some, known, 5, (140, 200), AdaptOptions(steps=40)))
    first, last = stood[0], stood[-1]
    assert first.relevance is not None and last.relevance is not None
    np.testing.assert_array_equal(first.relevance, 1)
    assert first.scores[0] == first.scores[1] == last.scores[0]
    assert last.scores[1] < 0.7 * last.scores[0]
    assert last.relevance[2] > 1.3 * np.delete(last.relevance, 2).max()


def test_it_stops_where_the_stopping_part_sees_no_gain() -> None:
    some = textures(told_by=2)
    # Learned from one thing, stopped by another: what is learned does not help.
    other = textures(told_by=4)
    late = some.frames >= 120
    seen = np.where(late[:, None, None, None], other.seen, some.seen)
    mixed = replace(some, seen=seen)
    known = learn(mixed, 5)
    assert known is not None
    stood = list(_descent(mixed, known, 5, (140, 200), AdaptOptions(patience=1, rate=0.2)))
    assert stood[-1].steps < AdaptOptions().steps


@pytest.mark.parametrize(
    ("psnr_db", "ssim", "softer", "kept"),
    [
        (1.0, -0.01, False, False),
        (-1.0, 0.1, False, False),
        (0.05, 0.0, False, False),
        (1.0, 0.1, True, False),
        (-0.05, 0.01, False, True),
    ],
    ids=["less like it", "farther", "by chance", "blurred", "nearer"],
)
def test_only_what_comes_nearer_to_the_camera_is_kept(
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
    figures = adapt(folder, nothing)
    after = load_target(folder)
    assert (figures["steps"], figures["universal_score"], figures["score"]) == (7, 0.5, 0.25)
    assert before.appearance is not None and after.appearance is not None
    assert figures["kept"] is kept
    np.testing.assert_array_equal(
        after.appearance.relevance, relevance if kept else np.ones(READINGS)
    )
    assert (after.sharpen == 0.75) is kept
    assert figures["told"].startswith("adapted" if kept else "not adapted")


def test_what_no_longer_gains_is_not_judged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ones = np.ones(READINGS, np.float32)
    monkeypatch.setattr(adapting, "_descent", lambda *_: iter([_Best(ones, 9, (0.5, 0.5))]))
    monkeypatch.setattr(adapting, "_gains", lambda *_: pytest.fail("nothing to judge"))
    figures = adapt(folder, nothing)
    assert not figures["kept"] and "was as good" in figures["told"]


def test_it_runs_to_its_end(folder: Path) -> None:
    figures = adapt(folder, nothing, AdaptOptions(steps=5, stop_every=5))
    assert set(figures) == {"kept", "universal_score", "score", "steps", "seconds", "told"}
    assert 0 < figures["score"] <= figures["universal_score"]


def test_the_time_limit_ends_it(folder: Path) -> None:
    assert adapt(folder, nothing, AdaptOptions(time_limit_s=0.01))["steps"] == 0


def test_too_little_footage_is_told(folder: Path, target: Path) -> None:
    assert "too few usable frames" in adapt(folder, nothing, AdaptOptions(used_share=0.1))["told"]
    assert "too few usable frames" in adapt(target, nothing)["told"], "nothing is known of a photo"


def test_what_it_needs_is_told_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    photo = tmp_path / "face.png"
    Image.new("RGB", (64, 64)).save(photo)
    with pytest.raises(UsageError, match="a photo has none"):
        adapting.check(photo)
    monkeypatch.setattr(adapting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs torch"):
        adapting.check(Path("clip.mp4"))
