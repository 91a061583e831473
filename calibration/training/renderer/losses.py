"""Losses of the renderer, inside the mouth mask.

Shapes: B crops of h × w; pictures f32 [B, 3, h, w] in 0 to 1, weight f32 [B, 1, h, w].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lipstream.calibration.media.color import LUMA

# A warp does not put teeth on exactly the right pixels, and the mean over all places where they
# might be is grey. So the gap weighs little pixel by pixel, and more in the levels and edges that a
# small window holds, wherever in it they are.
_PIXELS_IN_GAP = 0.25
_WINDOWS_IN_GAP = 3.0
_WINDOW, _WINDOW_STEP = 16, 8  # px; every second pixel of a window is used
_MIDDLE_PX = 144  # side of the middle of the crop, at most


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weight of each loss."""

    color: float = 4.0
    structure: float = 1.5
    gradient: float = 2.0
    sharpness: float = 5.0
    strength: float = 2.0
    levels: float = 3.0
    edges: float = 4.0
    motion: float = 2.0
    adversarial: float = 0.05


def loss_weights(conditioning: Tensor) -> tuple[Tensor, Tensor]:
    """Weight maps of errors per pixel and per window, by the opacity of the lip layer."""
    opacity, gap = conditioning[:, :1], (conditioning[:, 1:2] > 0).float()
    return (
        opacity * (1 + (_PIXELS_IN_GAP - 1) * gap),
        opacity * (1 + (_WINDOWS_IN_GAP - 1) * gap),
    )


def picture_losses(ours: Tensor, real: Tensor, conditioning: Tensor) -> dict[str, Tensor]:
    """Each loss by its name in LossWeights, a scalar per name."""
    pixel, window = loss_weights(conditioning)
    return {
        "color": _mean((ours - real).abs(), pixel),
        "structure": 1 - similarity(luma(ours), luma(real), pixel),
        "gradient": sum(
            (
                _mean((_gradient(a) - _gradient(b)).abs(), w)
                for a, b, w in _pyramid(ours, real, pixel)
            ),
            torch.zeros(()),
        ),
        "sharpness": sharpness_loss(ours, real, window),
        "strength": strength_loss(ours, real, conditioning[:, :1]),
        "levels": window_loss(ours, real, window),
        "edges": window_loss(_steepness(ours), _steepness(real), window),
    }


def motion_loss(
    ours: Tensor, before: Tensor, real: Tensor, real_before: Tensor, w: Tensor
) -> Tensor:
    """Difference of the change from frame to frame and that of the real footage."""
    return _mean(((ours - before) - (real - real_before)).abs(), w)


def luma(picture: Tensor) -> Tensor:
    """f32 [B, 1, h, w]."""
    r, g, b = (float(weight) for weight in LUMA)
    return r * picture[:, :1] + g * picture[:, 1:2] + b * picture[:, 2:3]


def similarity(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """SSIM of f32 [B, 1, h, w] over 7 × 7 windows, weighted. Source: Wang et al. 2004."""

    def mean(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 7, 1, 3)

    ma, mb = mean(a), mean(b)
    va, vb = mean(a * a) - ma * ma, mean(b * b) - mb * mb
    cov = mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return _mean(value, weight)


def sharpness_loss(ours: Tensor, real: Tensor, weight: Tensor) -> Tensor:
    """Difference of edge strength, averaged over a few pixels.

    Without it a blurred mouth has the least mean error.
    """
    a, b = (functional.avg_pool2d(_gradient(luma(x)).abs(), 9, 4, 4) for x in (ours, real))
    return _mean((a - b).abs(), functional.avg_pool2d(weight, 9, 4, 4))


def strength_loss(ours: Tensor, real: Tensor, opacity: Tensor) -> Tensor:
    """Squared log of the ratio of mean edge strength over the whole mouth to the real one.

    A blurred pixel costs less than a misplaced edge, so local losses favour too few edges. Squared,
    because a slope of constant size on both sides of the optimum outweighs the other losses.
    """
    a, b = ((_steepness(x) * opacity).mean((1, 2, 3)) + 1e-5 for x in (ours, real))
    return (a / b).log().square().mean()


def window_loss(ours: Tensor, real: Tensor, weight: Tensor) -> Tensor:
    """Distance between the sorted values of each small window: their Wasserstein distance."""

    def windows(x: Tensor) -> Tensor:
        taken = functional.unfold(_middle(x), _WINDOW // 2, dilation=2, stride=_WINDOW_STEP)
        return taken.unflatten(1, (x.shape[1], -1))  # f32 [B, C, values, windows]

    distance = (windows(ours).sort(2).values - windows(real).sort(2).values).abs().mean((1, 2))
    weights = windows(weight).mean((1, 2))
    return (distance * weights).sum() / (weights.sum() + 1e-6)


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
        return self.layers(_middle(picture) * 2 - 1)


def discriminator_loss(net: Discriminator, ours: Tensor, real: Tensor) -> Tensor:
    """Hinge loss."""
    return functional.relu(1 - net(real)).mean() + functional.relu(1 + net(ours)).mean()


def _middle(x: Tensor) -> Tensor:
    top, left = (max(side - _MIDDLE_PX, 0) // 2 for side in x.shape[-2:])
    return x[..., top : top + _MIDDLE_PX, left : left + _MIDDLE_PX]


def _steepness(x: Tensor) -> Tensor:
    return _gradient(luma(x)).abs().sum(1, keepdim=True)


def _gradient(x: Tensor) -> Tensor:
    """Differences to the right and down, f32 [B, 2C, h, w]."""
    dx = functional.pad(x[..., 1:] - x[..., :-1], (0, 1))
    dy = functional.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
    return torch.cat([dx, dy], 1)


def _pyramid(a: Tensor, b: Tensor, w: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    half = [functional.avg_pool2d(x, 2) for x in (a, b, w)]
    return [(a, b, w), (half[0], half[1], half[2])]


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values.mean(1, keepdim=True) * weight).sum() / (weight.sum() + 1e-6)
