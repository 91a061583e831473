"""calibrate --adapt: kept when the held-out slice gains, left alone when it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from lipstream.calibration import adapt as adapting
from lipstream.calibration import bundle
from lipstream.calibration.adapt import WEIGHTS, AdaptOptions, adapt
from lipstream.engine.errors import UsageError
from lipstream.engine.pipeline import Engine
from lipstream.engine.renderer import SHARPEN, shipped_model
from lipstream.engine.target import load_target

pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")

QUICK = {"steps": 8, "judge_every": 4, "batch": 2, "judged_examples": 4, "least_gain": 0.0}


@pytest.fixture
def folder(target: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(target, tmp_path / "own.target"))


def untrained(path: Path) -> Path:
    """A universal renderer with much to learn: every gate a fifth too low, so mouths are soft."""
    from lipstream.calibration.pretrain.export_renderer import save_weights
    from lipstream.engine.renderer_torch import load_net

    weights = load_net(shipped_model().safetensors).state_dict()
    weights["leave.bias"] = weights["leave.bias"] - 0.2
    file = path / "universal.safetensors"
    save_weights(weights, file, {})
    return file


def nothing(what: str, share: float) -> None:
    assert what and 0 <= share <= 1


def judged(monkeypatch: pytest.MonkeyPatch, after: dict[str, float]) -> list[dict[str, float]]:
    """What painted mouths are found to be, before and after: a photo has no consensus, so gates
    change nothing but its sharpness, and by that alone nothing is judged."""
    from lipstream.calibration.likeness import Judge

    told = [{"psnr_db": 30.0, "ssim": 0.8, "sharpness": 1.0}, after]
    monkeypatch.setattr(Judge, "figures", lambda *_: told.pop(0))
    return told


def test_a_gain_is_kept_and_the_engine_takes_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, {"psnr_db": 31.0, "ssim": 0.82, "sharpness": 1.0})
    figures = adapt(
        folder, nothing, AdaptOptions(universal=untrained(tmp_path), rate=2e-3, **QUICK)
    )
    assert figures["kept"] and figures["score"] < figures["universal_score"]
    assert "renderer adapted" in figures["told"]
    target = load_target(folder)
    assert target.renderer is not None and target.renderer.name == WEIGHTS
    sound = np.zeros(16000, np.float32)

    def last(renderer: str, own: bool):  # noqa: ANN202
        if not own:
            (folder / WEIGHTS).unlink()
            bundle.note_sharpen(folder, SHARPEN, shipped_model().safetensors)
        engine = Engine(load_target(folder), renderer=renderer)
        session = engine.session()
        return [*session.push(sound), *session.flush()][-1].i420

    adapted, universal = last("network", True), last("network", False)
    assert (adapted != universal).any()


def test_what_gains_nothing_is_not_kept(folder: Path) -> None:
    figures = adapt(folder, nothing, AdaptOptions(rate=1e-9, **{**QUICK, "least_gain": 0.005}))
    assert not figures["kept"] and not (folder / WEIGHTS).exists()
    assert "the universal renderer was as good" in figures["told"]


@pytest.mark.parametrize(
    ("psnr_db", "ssim", "sharpness", "kept"),
    [
        (31.0, 0.79, 1.0, False),
        (29.0, 0.9, 1.0, False),
        (30.05, 0.8, 1.0, False),
        (31.0, 0.9, 0.85, False),
        (29.95, 0.81, 1.0, True),
    ],
    ids=["less like it", "farther", "by chance", "blurred", "nearer"],
)
def test_only_what_comes_nearer_to_the_camera_is_kept(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    psnr_db: float,
    ssim: float,
    sharpness: float,
    kept: bool,
) -> None:
    told = judged(monkeypatch, {"psnr_db": psnr_db, "ssim": ssim, "sharpness": sharpness})
    figures = adapt(
        folder, nothing, AdaptOptions(universal=untrained(tmp_path), rate=2e-3, **QUICK)
    )
    assert figures["score"] < figures["universal_score"]
    assert figures["kept"] == (folder / WEIGHTS).exists() == kept
    assert not told


def test_the_time_limit_ends_it(folder: Path) -> None:
    figures = adapt(folder, nothing, AdaptOptions(**{**QUICK, "steps": 500}, time_limit_s=0.01))
    assert figures["steps"] == 1


def test_too_little_footage_is_told(folder: Path) -> None:
    figures = adapt(folder, nothing, AdaptOptions(least_pairs=10_000))
    assert not figures["kept"] and "too few usable frames" in figures["told"]
    # 90 frames: 72 to learn from, and of the 18 that judge too few are neighbours
    figures = adapt(folder, nothing, AdaptOptions(used_share=0.3))
    assert not figures["kept"] and "too few usable frames" in figures["told"]


def test_what_it_needs_is_told_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    photo = tmp_path / "face.png"
    Image.new("RGB", (64, 64)).save(photo)
    with pytest.raises(UsageError, match="a photo has none"):
        adapting.check(photo)
    monkeypatch.setattr(adapting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs torch"):
        adapting.check(Path("clip.mp4"))
