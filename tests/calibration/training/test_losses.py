"""The renderer's losses: 0 for the truth, and what each ignores."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")

from lipstream.calibration.training.renderer.losses import (  # noqa: E402
    LossWeights,
    loss_weights,
    picture_losses,
    window_loss,
)

SIDE = 256


def conditioning(gap: bool):  # noqa: ANN201
    """The lip layer opaque in the middle, the gap within it."""
    value = torch.zeros(1, 3, SIDE, SIDE)
    value[:, 0, 90:170, 80:180] = 1
    if gap:
        value[:, 1, 120:140, 100:160] = 0.5
    return value


def teeth(shift: int):  # noqa: ANN201
    """Light and dark stripes, 6 px each."""
    columns = (torch.arange(SIDE) + shift) // 6 % 2
    return columns.float().mul(0.6).add(0.2).expand(1, 3, SIDE, SIDE).contiguous()


def test_the_truth_has_no_loss() -> None:
    found = picture_losses(teeth(0), teeth(0), conditioning(True))
    assert set(found) | {"motion", "adversarial"} == set(LossWeights.__slots__)
    assert all(abs(float(value)) < 1e-6 for value in found.values())


def test_outside_the_lip_layer_there_is_no_loss() -> None:
    other = teeth(0)
    other[..., :60, :] = 1
    found = picture_losses(other, teeth(0), conditioning(True))
    assert all(abs(float(value)) < 1e-6 for value in found.values())


def test_displaced_teeth_cost_less_than_grey_ones() -> None:
    grey, moved, truth = torch.full((1, 3, SIDE, SIDE), 0.5), teeth(3), teeth(0)
    _, window = loss_weights(conditioning(True))
    assert float(window_loss(moved, truth, window)) < 0.2 * float(window_loss(grey, truth, window))
    # Pixel by pixel it is the other way round, or at best a tie: that is why teeth went grey.
    assert float((moved - truth).abs().mean()) >= float((grey - truth).abs().mean()) - 0.01


def test_in_the_gap_windows_weigh_more_than_pixels() -> None:
    pixel, window = loss_weights(conditioning(True))
    lips, gap = (0, 0, 100, 90), (0, 0, 130, 130)
    assert pixel[gap] < pixel[lips] == window[lips] < window[gap]


def test_strength_loss_is_0_at_equal_edge_strength() -> None:
    """A slope as steep at the aim as far from it would drown the other losses."""

    def off_by(share: float) -> float:
        wider = 0.5 + (teeth(0) - 0.5) * (1 + share)
        return float(picture_losses(wider, teeth(0), conditioning(False))["strength"])

    assert off_by(0.3) > 50 * off_by(0.03) > 0
