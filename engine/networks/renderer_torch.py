"""The renderer in torch: for training, adapting, and as the reference backend.

    crop ─► 2×2 pixels to channels ─► 1/2 ─► 1/4 ─► 1/8 ─► 1/4 ─► 1/2 ─► gates

A residual U-Net of dense 3×3 convolutions and nothing else: CPUs and tensor cores run those
fastest, and without normalisation layers the result does not depend on the statistics of a frame.
It is fully convolutional: any side that 8 divides is accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from lipstream.engine.networks.base import Model
from lipstream.engine.networks.signatures import (
    CHANNELS,
    CROP_SHAPE,
    RENDERER_INPUT,
    RENDERER_OUTPUT,
)
from lipstream.engine.networks.torch import TorchNetwork

ARCHITECTURE = "lipstream-renderer"
_FIRST_GATES = (0.9, 0.1, 0.0)


@dataclass(frozen=True, slots=True)
class RendererSize:
    """Widths at 1/2, 1/4 and 1/8 of the crop, and residual blocks at the two smaller sizes."""

    fine: int = 16
    middle: int = 40
    coarse: int = 80
    middle_blocks: int = 2
    coarse_blocks: int = 1


class Block(nn.Module):
    """x + conv(relu(conv(x))), f32 [B, width, h, w]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        y: Tensor = self.second(functional.relu(self.first(x)))
        return functional.relu(x + y)


class RendererNet(nn.Module):
    """Crop f32 [B, 12, h, w], 0 to 1, to the gates of `apply_gates`, f32 [B, 3, h, w]."""

    def __init__(self, size: RendererSize) -> None:
        super().__init__()
        self.size = size
        fine, middle, coarse = size.fine, size.middle, size.coarse
        self.enter = nn.Conv2d(4 * CHANNELS, fine, 3, padding=1)
        self.down1 = nn.Conv2d(fine, middle, 3, 2, 1)
        self.down2 = nn.Conv2d(middle, coarse, 3, 2, 1)
        self.coarse = nn.Sequential(*(Block(coarse) for _ in range(size.coarse_blocks)))
        self.up1 = nn.Conv2d(coarse, 4 * middle, 1)
        self.middle = nn.Sequential(*(Block(middle) for _ in range(size.middle_blocks)))
        self.up2 = nn.Conv2d(middle, 4 * fine, 1)
        self.fine = Block(fine)
        self.leave = nn.Conv2d(fine, 12, 3, padding=1)
        # Training starts from the coarse part of the prior and the fine part of the warped crop.
        nn.init.zeros_(self.leave.weight)
        with torch.no_grad():
            self.leave.bias.copy_(torch.tensor(_FIRST_GATES).repeat_interleave(4))

    def forward(self, crop: Tensor) -> Tensor:
        """One frame of each of B crops."""
        fine = functional.relu(self.enter(functional.pixel_unshuffle(crop - 0.5, 2)))
        middle = functional.relu(self.down1(fine))
        coarse = self.coarse(functional.relu(self.down2(middle)))
        middle = self.middle(
            functional.relu(middle + functional.pixel_shuffle(self.up1(coarse), 2))
        )
        fine = self.fine(functional.relu(fine + functional.pixel_shuffle(self.up2(middle), 2)))
        return functional.pixel_shuffle(self.leave(fine), 2)


def apply_gates(gates: Tensor, warped: Tensor, prior: Tensor) -> Tensor:
    """What is added to the warped crop, all f32 [B, 3, h, w]; the twin of the kernel in `crop`."""

    def coarse(x: Tensor) -> Tensor:
        for _ in range(2):
            x = functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
        return x

    low, fine = gates[:, :1].clamp(0, 1), gates[:, 1:2].clamp(0, 1)
    difference = prior - warped
    smooth = coarse(difference)
    own = gates[:, 2:].clamp(-0.5, 1) * (warped - coarse(warped))
    return low * smooth + fine * (difference - smooth) + own


def load_net(path: Path) -> RendererNet:
    """The module with the weights of a safetensors file, ready to evaluate."""
    return net_of({name: w.float() for name, w in load_file(str(path)).items()}).eval()


def net_of(weights: dict[str, Tensor]) -> RendererNet:
    """The module with these weights, by name; its sizes follow from their shapes."""

    def blocks(part: str) -> int:
        return len({name.split(".")[1] for name in weights if name.startswith(part + ".")})

    net = RendererNet(
        RendererSize(
            fine=weights["enter.bias"].shape[0],
            middle=weights["down1.bias"].shape[0],
            coarse=weights["down2.bias"].shape[0],
            middle_blocks=blocks("middle"),
            coarse_blocks=blocks("coarse"),
        )
    )
    net.load_state_dict(weights)
    return net


def load_network(model: Model) -> TorchNetwork:
    """The renderer with the weights of a model's safetensors file."""
    net = load_net(model.safetensors)

    def gates(crop: Tensor) -> tuple[Tensor]:
        return (net(crop.contiguous(memory_format=torch.channels_last)),)

    return TorchNetwork(net, gates, (RENDERER_INPUT,), (RENDERER_OUTPUT,))


def multiply_adds(size: RendererSize, shape: tuple[int, int] = CROP_SHAPE) -> int:
    """Per frame."""
    counted = 0

    def count(module: nn.Conv2d, _: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal counted
        counted += module.weight.numel() * out.shape[-1] * out.shape[-2]

    net = RendererNet(size)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        net(torch.zeros(1, CHANNELS, *shape))
    return counted
