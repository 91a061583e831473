"""Likeness: equal scores as equal, worse as worse, and what is soft is sharpened."""

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
    """A network that makes of every mouth a softer one, the more the further it spreads."""

    name, device, precision = "blurring", "CPU", "f32"

    def __init__(self, spread_px: float) -> None:
        self._spread_px = spread_px

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        gates = np.zeros((1, 3, *inputs[RENDERER_INPUT].shape[2:]), np.float32)
        gates[:, 2] = -0.2 * self._spread_px  # of its own fine part
        return {RENDERER_OUTPUT: gates}


def test_the_truth_scores_full_marks() -> None:
    row = compare_with(picture(), picture(), INSIDE)
    assert row["ssim"] == pytest.approx(1.0)
    assert row["sharpness"] == pytest.approx(1.0)
    assert row["psnr_db"] > 60


def test_noise_costs_what_it_should() -> None:
    noisy = picture().astype(int)
    noisy[20:40, 20:44] += np.where(np.indices((20, 24)).sum(0) % 2 == 0, 5, -5)[..., None]
    row = compare_with(noisy.astype(np.uint8), picture(), INSIDE)
    assert row["psnr_db"] == pytest.approx(20 * np.log10(255 / 5), abs=1e-3)


def test_a_blurred_mouth_is_less_sharp() -> None:
    soft = gaussian_filter(picture().astype(np.float32), (1, 1, 0)).astype(np.uint8)
    assert compare_with(soft, picture(), INSIDE)["sharpness"] < 0.6


def test_a_softer_network_is_sharpened_more(target: Path) -> None:
    judge = Evaluator(load_target(target))
    amounts = [judge.sharpening(Renderer(Blurring(px))) for px in (0.01, 0.7, 1.0)]
    assert amounts[0] + 0.2 < amounts[1] < amounts[2]


def test_one_renderer_is_made_as_sharp_as_another(target: Path) -> None:
    judge = Evaluator(load_target(target))
    soft = Renderer(Blurring(0.7), sharpen=0.8)
    aim = judge.figures(soft)["sharpness"]
    assert abs(judge.sharpening(Renderer(Blurring(0.7)), aim) - 0.8) < 0.05


def test_a_blurring_network_is_less_like_the_camera(target: Path) -> None:
    judge = Evaluator(load_target(target))
    clear, soft = (judge.figures(Renderer(Blurring(px), sharpen=0.0)) for px in (0.01, 1.5))
    assert soft["ssim"] < clear["ssim"] and soft["sharpness"] < clear["sharpness"]


def test_footage_too_short_to_tell_gets_what_everybody_gets(target: Path) -> None:
    judge = Evaluator(load_target(target), (0, 12))
    assert judge.frames == 0 and judge.figures(Renderer(Blurring(1.0))) == {}
    assert judge.sharpening(Renderer(Blurring(1.0))) == SHARPEN
