"""Scores against the camera, and the sharpening that they choose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lipstream.calibration.person.evaluation import Evaluator, compare_with
from lipstream.engine.networks.signatures import RENDERER_INPUT, RENDERER_OUTPUT
from lipstream.engine.rendering.refiner import Renderer
from lipstream.engine.target.bundle import load_target
from lipstream.engine.target.style import SHARPEN
from lipstream.engine.types import F32, U8


def picture(seed: int = 0) -> U8:
    rng = np.random.default_rng(seed)
    return rng.integers(60, 200, (64, 64, 3)).astype(np.uint8)


INSIDE = np.zeros((64, 64), bool)
INSIDE[20:40, 20:44] = True


class Blurring:
    """A renderer model whose mouths are softer the larger its spread."""

    name, device, precision = "blurring", "CPU", "f32"

    def __init__(self, spread_px: float) -> None:
        self._spread_px = spread_px

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        gates = np.zeros((1, 3, *inputs[RENDERER_INPUT].shape[2:]), np.float32)
        gates[:, 2] = -0.2 * self._spread_px  # of the fine detail
        return {RENDERER_OUTPUT: gates}


def test_an_equal_picture_has_the_best_scores() -> None:
    row = compare_with(picture(), picture(), INSIDE)
    assert row["ssim"] == pytest.approx(1.0)
    assert row["sharpness"] == pytest.approx(1.0)
    assert row["psnr_db"] > 60


def test_noise_lowers_psnr_by_its_power() -> None:
    noisy = picture().astype(int)
    noisy[20:40, 20:44] += np.where(np.indices((20, 24)).sum(0) % 2 == 0, 5, -5)[..., None]
    row = compare_with(noisy.astype(np.uint8), picture(), INSIDE)
    assert row["psnr_db"] == pytest.approx(20 * np.log10(255 / 5), abs=1e-3)


def test_a_blurred_mouth_is_less_sharp() -> None:
    soft = gaussian_filter(picture().astype(np.float32), (1, 1, 0)).astype(np.uint8)
    assert compare_with(soft, picture(), INSIDE)["sharpness"] < 0.6


def test_a_softer_renderer_is_sharpened_more(target: Path) -> None:
    evaluator = Evaluator(load_target(target))
    amounts = [evaluator.sharpening(Renderer(Blurring(px))) for px in (0.01, 0.7, 1.0)]
    assert amounts[0] + 0.2 < amounts[1] < amounts[2]


def test_one_renderer_is_made_as_sharp_as_another(target: Path) -> None:
    evaluator = Evaluator(load_target(target))
    soft = Renderer(Blurring(0.7), sharpen=0.8)
    aim = evaluator.figures(soft)["sharpness"]
    assert abs(evaluator.sharpening(Renderer(Blurring(0.7)), aim) - 0.8) < 0.05


def test_a_blurring_renderer_has_lower_scores(target: Path) -> None:
    evaluator = Evaluator(load_target(target))
    clear, soft = (evaluator.figures(Renderer(Blurring(px), sharpen=0.0)) for px in (0.01, 1.5))
    assert soft["ssim"] < clear["ssim"] and soft["sharpness"] < clear["sharpness"]


def test_footage_too_short_gets_the_default_sharpening(target: Path) -> None:
    evaluator = Evaluator(load_target(target), (0, 12))
    assert evaluator.frames == 0 and evaluator.figures(Renderer(Blurring(1.0))) == {}
    assert evaluator.sharpening(Renderer(Blurring(1.0))) == SHARPEN
