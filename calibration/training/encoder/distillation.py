"""Teaches the listener, which hears a stream, what the teacher makes of the whole window.

The listener begins as the teacher's own convolutions and blocks. It loses positions, the future and
a waveform that is normalised over the window, and learns to give the same output without them: in
a stream with 2 tokens ahead a block, and, one batch in four, as over a file. It hears the sound
damaged and the teacher hears it clean, so it learns robustness from speech without words.

A stream cannot know all that the teacher knows. Where lip readers of the teacher's output are given
(`lip_reader`), an error counts as well by what it does to the lips that they read.

Source: distillation from clean to noisy input, as in Li et al., "Large-scale domain adaptation via
teacher-student learning" (Interspeech 2017); the rest is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lipstream.calibration.training.encoder.windows import Windows
from lipstream.calibration.training.speech.log_mel import features_of, normalise
from lipstream.engine.face.model import face_model
from lipstream.engine.networks.encoder_torch import Listener
from lipstream.engine.networks.signatures import (
    BANDS,
    FRAMES_PER_STEP,
    TOKENS_AFTER,
    TOKENS_AFTER_IN_FILE,
    TOKENS_KEPT,
)
from lipstream.engine.types import F32, STEP_SAMPLES

COMPONENTS: Final = 128  # of the teacher's output, by variance
_BATCH: Final = 12
_SYNTHETIC: Final = 3  # windows of a batch
_RATE: Final = 4e-4
_AS_FILE: Final = 0.25  # fraction of the batches
_AFTER_SILENCE: Final = 0.5  # fraction that begins as a stream does; others begin amid speech
_BABBLE: Final = 0.4  # fraction of the windows, beside what the versions have
_WARM_UP: Final = 3  # tokens without a loss, for they see what lies ahead of the window
_DROPPED_BANDS: Final = 0.25  # fraction of windows in which some bands are missing
# Of an error in opening, width and protrusion of the lips as read, in their own variance.
_LIPS: Final = (1.0, 0.6, 0.3)

Report = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Components:
    """Principal components of the teacher's output, each of unit variance."""

    weight: F32  # f32 [COMPONENTS, TOKEN_WIDTH]
    bias: F32  # f32 [COMPONENTS]
    spread: F32  # f32 [COMPONENTS], standard deviation before scaling to 1, descending

    def of(self, tokens: Tensor) -> Tensor:
        """f32 [..., TOKEN_WIDTH] to f32 [..., COMPONENTS]."""
        return tokens @ torch.from_numpy(self.weight).T + torch.from_numpy(self.bias)


def principal_components(tokens: F32, count: int) -> Components:
    """Of f32 [n, TOKEN_WIDTH], whose columns are first scaled to one spread."""
    mean, scale = tokens.mean(0), tokens.std(0) + 1e-3
    _, singular, rows = np.linalg.svd(np.linalg.qr((tokens - mean) / scale)[1])
    spread = (singular[:count] / np.sqrt(len(tokens))).astype(np.float32)
    weight = (rows[:count] / spread[:, None] / scale).astype(np.float32)
    return Components(weight, -(weight @ mean).astype(np.float32), spread)


def teacher_components(shards: Sequence[Windows]) -> Components:
    """Of the teacher's output over every fifth window."""
    some = [shard.target[::5, ::11].reshape(-1, shard.target.shape[-1]) for shard in shards]
    return principal_components(np.concatenate(some).astype(np.float32), COMPONENTS)


@dataclass(frozen=True, slots=True)
class Goal:
    """What the listener learns: the teacher's components, and the lips that readers read off them.

    A reader gives expressions f32 [B, T, K] for f32 [B, T, COMPONENTS] and is not trained here.
    """

    components: Components
    readers: Sequence[nn.Module] = ()


@dataclass(frozen=True, slots=True)
class Material:
    """The windows that a listener is trained on."""

    real: Sequence[Windows]
    synthetic: Sequence[Windows] = ()


def distil(
    listener: Listener, goal: Goal, material: Material, steps: int, seed: int, report: Report
) -> None:
    """Train `listener` in place for `steps` batches of 12 windows of 8 s."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(listener.parameters(), _RATE, weight_decay=0.01, fused=True)
    listener.train()
    with ThreadPoolExecutor(1) as ahead:
        following = ahead.submit(_draw, material, rng)
        for step in range(steps):
            done = step / steps
            rate = _RATE * (0.01 + min(1, (step + 1) / 60) * (0.5 + 0.5 * np.cos(np.pi * done)))
            for group in optimiser.param_groups:
                group["lr"] = rate
            features, target, way = following.result()
            following = ahead.submit(_draw, material, rng)
            found, wanted = _outputs(listener, features, target, way)
            loss = _error(goal, step, goal.components.of(found), goal.components.of(wanted))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(listener.parameters(), 1.0)
            optimiser.step()
            if step % 10 == 0:
                report(f"teaching the listener, loss {float(loss.detach()):.2f}", done)
    listener.eval()


def _error(goal: Goal, step: int, found: Tensor, wanted: Tensor) -> Tensor:
    """Error of components f32 [B, T, COMPONENTS], and of lips by one reader in turn."""
    importance = torch.from_numpy(goal.components.spread / goal.components.spread.sum())
    error = ((found - wanted) ** 2 * importance).sum(-1).mean()
    if not goal.readers:
        return error
    reader = goal.readers[step % len(goal.readers)]
    rows = torch.from_numpy(face_model().lip_rows())
    with torch.no_grad():
        lips_wanted = reader(wanted) @ rows.T
    lips = (reader(found) @ rows.T - lips_wanted).square().mean((0, 1)) / lips_wanted.var((0, 1))
    return error + (torch.tensor(_LIPS) * lips).sum()


@dataclass(frozen=True, slots=True)
class _Way:
    """How a batch is heard."""

    as_file: bool
    after_silence: bool


def _outputs(
    listener: Listener, features: Tensor, target: Tensor, way: _Way
) -> tuple[Tensor, Tensor]:
    """What the listener makes of features f32 [B, T, FEATURES], and the teacher made of the same
    moments; both f32 [B, t, TOKEN_WIDTH]."""
    first = _WARM_UP
    if way.after_silence:
        silence = features_of(np.zeros(TOKENS_KEPT * STEP_SAMPLES, np.float32))
        before = torch.from_numpy(silence).expand(len(features), -1, -1)
        features = torch.cat([before, features[:, :-TOKENS_KEPT]], 1)
    else:
        first = TOKENS_KEPT
    ahead = TOKENS_AFTER_IN_FILE if way.as_file else TOKENS_AFTER
    found = listener(features, ahead)[-1]
    if way.after_silence:
        found = found[:, TOKENS_KEPT:]
    steps = found.shape[1]
    # Token k of the teacher is token k + 1 of the listener (`EARLY_SAMPLES`).
    return found[:, first:], target[:, first - 1 : steps - 1]


def _draw(material: Material, rng: np.random.Generator) -> tuple[Tensor, Tensor, _Way]:
    """Features and targets of a batch."""
    real, synthetic = material.real, material.synthetic
    energies, targets = [], []
    for row in range(_BATCH):
        shard, index = _any(synthetic if row < _SYNTHETIC and synthetic else real, rng)
        versions = shard.energies[index]
        heard = versions[int(rng.integers(len(versions)))].astype(np.float32)
        if rng.random() < _BABBLE:
            heard = _with_babble(heard, real, rng)
        energies.append(heard)
        targets.append(shard.target[index].astype(np.float32))
    features = varied(torch.from_numpy(normalise(np.stack(energies))), rng)
    way = _Way(rng.random() < _AS_FILE, rng.random() < _AFTER_SILENCE)
    return (
        features.unflatten(1, (-1, FRAMES_PER_STEP)).flatten(2),
        torch.from_numpy(np.stack(targets)),
        way,
    )


def _any(shards: Sequence[Windows], rng: np.random.Generator) -> tuple[Windows, int]:
    shard = shards[int(rng.integers(len(shards)))]
    return shard, int(rng.integers(len(shard.target)))


def _with_babble(energies: F32, shards: Sequence[Windows], rng: np.random.Generator) -> F32:
    """Log energies f32 [frames, BANDS] with one to six other voices, 2 to 22 dB weaker in sum.

    Powers add in every band, because the phases of different voices are independent.
    """
    voice: NDArray[np.float32] = np.power(np.float32(10), energies)
    babble = np.zeros_like(voice)
    for _ in range(int(rng.integers(1, 7))):
        shard, index = _any(shards, rng)
        other = np.power(np.float32(10), shard.energies[index, 0].astype(np.float32))
        babble += np.roll(other, int(rng.integers(len(other))), 0) / (other.mean() + 1e-9)
    ratio = 10.0 ** (-rng.uniform(2, 22) / 10)
    level = max(float(voice.mean()), 1e-3) * ratio / (float(babble.mean()) + 1e-9)
    mixed: F32 = np.log10(voice + np.float32(level) * babble + np.float32(1e-10))
    return mixed


def varied(features: Tensor, rng: np.random.Generator) -> Tensor:
    """Normalised frames f32 [B, frames, BANDS] with another channel, level, noise and gap."""
    count = len(features)
    tilt = functional.interpolate(0.06 * torch.randn(count, 1, 8), size=BANDS, mode="linear")
    x = features + tilt + 0.05 * torch.randn(count, 1, 1) + 0.015 * torch.randn_like(features)
    for row in range(count):
        if rng.random() < _DROPPED_BANDS:
            width = int(rng.integers(3, 14))
            first = int(rng.integers(0, BANDS - width))
            x[row, :, first : first + width] = x[row].mean()
    return x
