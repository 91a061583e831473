"""Trains the phonetic part of the encoder to name phones, in voices made for the purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lipstream.calibration.pretrain.corpus import UNKNOWN, Shard
from lipstream.engine.encoder_torch import EncoderNet
from lipstream.engine.features import BANDS, FRAMES_PER_STEP

BATCH: Final = 32
# By look-ahead: what has just been heard is a guess and must not pull the rest.
_WEIGHT: Final = (0.4, 0.8, 1.0, 1.0, 1.0)
_PARTS: Final = ("dense", "gru1", "gru2", "phone")
_F32_TAIL: Final = 0.15  # the last steps in f32; bf16 before that is 1.6 times as fast on CPUs


class _Recognise(nn.Module):
    """`EncoderNet.recognise` as a forward, so that its weights can be handed in."""

    def __init__(self, net: EncoderNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, features: Tensor) -> Tensor:
        """Phone logits."""
        logits, _ = self.net.recognise(features)
        return logits


def train_recogniser(
    net: EncoderNet,
    shards: Sequence[Shard],
    steps: int,
    rate: float,
    seed: int,
    report: Callable[[str, float], None],
) -> None:
    """Train the phonetic part of `net` in place for `steps` batches of 32 clips of 8 s."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    forward = _Recognise(net)
    parameters = [p for name, p in net.named_parameters() if name.split(".")[0] in _PARTS]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    net.train()
    for step in range(steps):
        share = step / steps
        warm = min(1.0, 0.02 + step / 100)
        for group in optimiser.param_groups:
            group["lr"] = rate * warm * (0.5 * (1.0 + np.cos(np.pi * share)) + 0.01)
        features, targets = _batch(shards, rng)
        dtype = torch.bfloat16 if share < 1.0 - _F32_TAIL else torch.float32
        weights = {name: p.to(dtype) for name, p in forward.named_parameters()}
        logits = torch.func.functional_call(forward, weights, (features.to(dtype),))
        loss = phone_loss(logits.float(), targets)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 10 == 0:
            report(f"learning phones, loss {float(loss.detach()):.2f}", share)
    net.eval()


def phone_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over look-aheads; logits f32 [B, T, L, phones], targets i64 [B, T, L]."""
    loss = functional.cross_entropy(
        logits.flatten(0, 2), targets.flatten(), reduction="none", ignore_index=-100,
        label_smoothing=0.03,
    )  # fmt: skip
    return (loss.view(targets.shape) * torch.tensor(_WEIGHT)).mean()


def frame_accuracy(net: EncoderNet, shard: Shard) -> list[float]:
    """Share of steps whose phone is named rightly, for each look-ahead."""
    with torch.no_grad():
        logits, _ = net.recognise(torch.from_numpy(shard.features.astype(np.float32)))
    right = logits.argmax(-1).numpy() == shard.targets
    return [float(right[:, 20:, column].mean()) for column in range(right.shape[2])]


def _batch(shards: Sequence[Shard], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random clips, with their channel and noise varied once more in the feature domain."""
    picked = [shards[int(rng.integers(len(shards)))] for _ in range(BATCH)]
    rows = [int(rng.integers(len(shard.features))) for shard in picked]
    features = np.stack([s.features[row] for s, row in zip(picked, rows, strict=True)])
    targets = np.stack([s.targets[row] for s, row in zip(picked, rows, strict=True)])
    x = torch.from_numpy(features.astype(np.float32)).unflatten(-1, (FRAMES_PER_STEP, BANDS))
    tilt = functional.interpolate(0.25 * torch.randn(BATCH, 1, 8), size=BANDS, mode="linear")
    x = x + tilt[:, :, None] + 0.15 * torch.randn(BATCH, 1, 1, 1) + 0.08 * torch.randn_like(x)
    for row in range(BATCH):
        if rng.random() < 0.3:
            width = int(rng.integers(2, 10))
            first = int(rng.integers(0, BANDS - width))
            x[row, :, :, first : first + width] = 0.0
    wanted = torch.from_numpy(targets.astype(np.int64))
    return x.flatten(-2), wanted.masked_fill(wanted == UNKNOWN, -100)
