"""What the renderer is trained against, inside the mouth mask.

Shapes: B crops of S × S; pictures f32 [B, 3, S, S] in 0 to 1, weight f32 [B, 1, S, S].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

_GAP_COUNTS = 2.0  # on top of 1: teeth are few pixels and what people look at
_DISCRIMINATED_PX = 144  # round the middle of the crop
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each counts."""

    colour: float = 4.0
    structure: float = 0.6
    gradient: float = 4.0
    sharpness: float = 60.0
    contrast: float = 6.0
    motion: float = 2.0
    adversarial: float = 0.15


def loss_weight(guides: Tensor) -> Tensor:
    """Where an error counts: the opacity of the lip layer, and the gap more."""
    opacity, gap = guides[:, :1], (guides[:, 1:2] > 0).float()
    return opacity * (1 + _GAP_COUNTS * gap)


def picture_losses(ours: Tensor, real: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Each loss by its name in LossWeights, a scalar per name."""
    return {
        "colour": _mean((ours - real).abs(), weight),
        "structure": 1 - similarity(luma(ours), luma(real), weight),
        "gradient": sum(
            (
                _mean((_gradient(a) - _gradient(b)).abs(), w)
                for a, b, w in _pyramid(ours, real, weight)
            ),
            torch.zeros(()),
        ),
        "sharpness": sharpness_loss(ours, real, weight),
        "contrast": contrast_loss(ours, real, weight),
    }


def motion_loss(
    ours: Tensor, before: Tensor, real: Tensor, real_before: Tensor, w: Tensor
) -> Tensor:
    """Change from frame to frame that the real footage does not have."""
    return _mean(((ours - before) - (real - real_before)).abs(), w)


def luma(picture: Tensor) -> Tensor:
    """f32 [B, 1, S, S]."""
    r, g, b = _LUMA
    return r * picture[:, :1] + g * picture[:, 1:2] + b * picture[:, 2:3]


def similarity(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """SSIM of f32 [B, 1, S, S] over 7 × 7 windows, weighted. Source: Wang et al. 2004."""

    def mean(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 7, 1, 3)

    ma, mb = mean(a), mean(b)
    va, vb = mean(a * a) - ma * ma, mean(b * b) - mb * mb
    cov = mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return _mean(value, weight)


def sharpness_loss(ours: Tensor, real: Tensor, weight: Tensor) -> Tensor:
    """Edges as strong as the real ones, wherever within a few pixels they lie.

    Without it the mean error is least for a blurred mouth.
    """
    a, b = (functional.avg_pool2d(_gradient(luma(x)).abs(), 9, 4, 4) for x in (ours, real))
    return _mean((a - b).abs(), functional.avg_pool2d(weight, 9, 4, 4))


def contrast_loss(ours: Tensor, real: Tensor, weight: Tensor) -> Tensor:
    """Light and dark as far apart as they really are: teeth stay bright where they are unsure."""

    def spread(x: Tensor) -> Tensor:
        mean = functional.avg_pool2d(x, 25, 6, 12)
        return (functional.avg_pool2d(x * x, 25, 6, 12) - mean * mean + 1e-4).sqrt()

    return _mean((spread(ours) - spread(real)).abs(), functional.avg_pool2d(weight, 25, 6, 12))


class Discriminator(nn.Module):
    """Real or painted, patch by patch round the mouth; spectrally normalised."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.spectral_norm
        widths = (3, 24, 48, 96)
        layers: list[nn.Module] = []
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, norm(nn.Conv2d(widths[-1], 1, 3, 1, 1)))

    def forward(self, picture: Tensor) -> Tensor:
        """Scores f32 [B, 1, h, w] of the middle of a picture."""
        edge = (picture.shape[-1] - _DISCRIMINATED_PX) // 2
        middle = picture[..., edge : edge + _DISCRIMINATED_PX, edge : edge + _DISCRIMINATED_PX]
        return self.layers(middle * 2 - 1)


def discriminator_loss(judge: Discriminator, ours: Tensor, real: Tensor) -> Tensor:
    """Hinge."""
    return functional.relu(1 - judge(real)).mean() + functional.relu(1 + judge(ours)).mean()


def _gradient(x: Tensor) -> Tensor:
    """Differences to the right and down, f32 [B, 2C, S, S]."""
    dx = functional.pad(x[..., 1:] - x[..., :-1], (0, 1))
    dy = functional.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
    return torch.cat([dx, dy], 1)


def _pyramid(a: Tensor, b: Tensor, w: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    half = [functional.avg_pool2d(x, 2) for x in (a, b, w)]
    return [(a, b, w), (half[0], half[1], half[2])]


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values.mean(1, keepdim=True) * weight).sum() / (weight.sum() + 1e-6)
