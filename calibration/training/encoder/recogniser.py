"""Trains the recogniser, the phonetic part of the encoder, on labelled speech."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lipstream.calibration.training.precision import computes_in_bf16
from lipstream.calibration.training.speech.corpus import UNKNOWN, Shard, normalise
from lipstream.calibration.training.speech.phones import BILABIALS
from lipstream.engine.networks.encoder_torch import EncoderNet
from lipstream.engine.networks.signatures import BANDS, FRAMES_PER_STEP
from lipstream.engine.types import F32

BATCH: Final = 32
# By look-ahead: the output without one is a guess and must not dominate the others.
LOOK_AHEAD_WEIGHT: Final = (0.4, 0.8, 1.0, 1.0, 1.0)
PARTS: Final = ("dense", "gru1", "gru2", "phone")
_F32_TAIL: Final = 0.15  # the last steps in f32; bf16 before that is 1.6 times as fast
# An m recognised as an n leaves the lips open, which is visible; the reverse is not.
_BILABIAL_WEIGHT: Final = 2.0
_WITH_BABBLE: Final = 0.35  # fraction of a batch
_QUIET_ROOM: Final = 1e-4  # power in a band without speech; the least that babble is relative to


class _Recognise(nn.Module):
    """`EncoderNet.recognise` as a forward, so that weights can be passed in."""

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
    """Train the recogniser of `net` in place for `steps` batches of 32 clips of 8 s."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    forward = _Recognise(net)
    parameters = [p for name, p in net.named_parameters() if name.split(".")[0] in PARTS]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    net.train()
    for step in range(steps):
        done = step / steps
        warm = min(1.0, 0.02 + step / 100)
        for group in optimiser.param_groups:
            group["lr"] = rate * warm * (0.5 * (1.0 + np.cos(np.pi * done)) + 0.01)
        batch = draw(shards, rng)
        short = done < 1.0 - _F32_TAIL and computes_in_bf16("cpu")
        dtype = torch.bfloat16 if short else torch.float32
        weights = {name: p.to(dtype) for name, p in forward.named_parameters()}
        logits = torch.func.functional_call(forward, weights, (batch.features.to(dtype),))
        loss = phone_loss(logits.float(), batch.targets)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 10 == 0:
            report(f"training the recogniser, loss {float(loss.detach()):.2f}", done)
    net.eval()


def phone_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over look-aheads; logits f32 [B, T, L, phones], targets i64 [B, T, L]."""
    by_phone = torch.ones(logits.shape[-1])
    by_phone[list(BILABIALS)] = _BILABIAL_WEIGHT
    loss = functional.cross_entropy(
        logits.flatten(0, 2), targets.flatten(), by_phone, reduction="none", ignore_index=-100,
        label_smoothing=0.03,
    )  # fmt: skip
    return (loss.view(targets.shape) * torch.tensor(LOOK_AHEAD_WEIGHT)).mean()


def frame_accuracy(net: EncoderNet, shard: Shard) -> list[float]:
    """Fraction of steps whose phone is correct, for each look-ahead."""
    with torch.no_grad():
        logits, _ = net.recognise(torch.from_numpy(shard.features.astype(np.float32)))
    correct = logits.argmax(-1).numpy() == shard.targets
    return [float(correct[:, 20:, column].mean()) for column in range(correct.shape[2])]


@dataclass(frozen=True, slots=True)
class Batch:
    """The data of one training step."""

    features: Tensor  # f32 [BATCH, steps, FEATURES]
    targets: Tensor  # i64 [BATCH, steps, look-aheads], -100 where unknown


def draw(shards: Sequence[Shard], rng: np.random.Generator) -> Batch:
    """Random clips, some with babble, their channel and noise varied once more."""
    picked = [any_clip(shards, rng) for _ in range(BATCH)]
    features = np.stack([shard.features[row] for shard, row in picked]).astype(np.float32)
    targets = np.stack([shard.targets[row] for shard, row in picked])
    chosen = np.flatnonzero(rng.random(BATCH) < _WITH_BABBLE)
    mixed = [with_babble(picked[row][0].log_mel[picked[row][1]], shards, rng) for row in chosen]
    if mixed:
        features[chosen] = normalise(np.stack(mixed)).reshape(len(mixed), *features.shape[1:])
    wanted = torch.from_numpy(targets.astype(np.int64))
    known = wanted.masked_fill(wanted == UNKNOWN, -100)
    return Batch(varied(torch.from_numpy(features), rng), known)


def varied(features: Tensor, rng: np.random.Generator) -> Tensor:
    """Normalised features f32 [B, steps, FEATURES] with another channel, level, noise and gap."""
    count = len(features)
    x = features.unflatten(-1, (FRAMES_PER_STEP, BANDS))
    tilt = functional.interpolate(0.25 * torch.randn(count, 1, 8), size=BANDS, mode="linear")
    x = x + tilt[:, :, None] + 0.15 * torch.randn(count, 1, 1, 1) + 0.08 * torch.randn_like(x)
    for row in range(count):
        if rng.random() < 0.3:
            width = int(rng.integers(2, 10))
            first = int(rng.integers(0, BANDS - width))
            x[row, :, :, first : first + width] = 0.0
    return x.flatten(-2)


def any_clip(shards: Sequence[Shard], rng: np.random.Generator) -> tuple[Shard, int]:
    """A shard and a row of it."""
    shard = shards[int(rng.integers(len(shards)))]
    return shard, int(rng.integers(len(shard.log_mel)))


def with_babble(
    log_mel: NDArray[np.float16], shards: Sequence[Shard], rng: np.random.Generator
) -> F32:
    """A clip f16 [frames, BANDS] mixed with one to six others, 2 to 20 dB weaker in sum.

    Powers add in every band, because the phases of different voices are independent.
    """
    voice = np.exp(log_mel.astype(np.float32))
    babble = np.zeros_like(voice)
    for _ in range(int(rng.integers(1, 7))):
        shard, row = any_clip(shards, rng)
        other = np.exp(shard.log_mel[row].astype(np.float32))
        babble += np.roll(other, int(rng.integers(len(other))), 0) / (other.mean() + 1e-9)
    ratio = 10.0 ** (-float(rng.uniform(2.0, 20.0)) / 10.0)
    level = max(float(voice.mean()), _QUIET_ROOM) * ratio / (float(babble.mean()) + 1e-9)
    mixed: F32 = np.log(voice + np.float32(level) * babble).astype(np.float32)
    return mixed
