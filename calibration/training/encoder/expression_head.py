"""Trains a head: from what the listener hears to phones and lip motion.

Real clips show how lips move between sounds and how far. They are few, and their people differ in
amplitude and in the resting face; so each person is scaled to one amplitude, and the constant part
of a clip has no loss, except in the opening. Speech with phone times gives the moments at which
lips meet, round and open (`coarticulation`), in every voice. Every batch holds both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lipstream.calibration.training.clips import TYPICAL_OPENING
from lipstream.calibration.training.encoder.sequences import (
    FILE,
    UNKNOWN,
    Hearing,
    RealSequence,
    SpokenSequence,
)
from lipstream.calibration.training.speech.phones import BILABIALS, OPEN_VOWELS, SILENCE
from lipstream.engine.face.model import face_model
from lipstream.engine.networks.encoder_torch import EncoderNet
from lipstream.engine.types import F32

_CROP_STEPS: Final = 175
_REAL_BATCH: Final = 24
_SYNTHETIC_BATCH: Final = 16
_WARM_UP_STEPS: Final = 8  # of a crop, without a loss: a recurrent head starts from zero
_WIDTH_SWING: Final = 0.045  # standard deviation of mouth width in speech, inter-ocular
_PROTRUSION_SWING: Final = 0.02
_TRACK_PEAK: Final = 0.59  # 93rd percentile of coarticulated opening over synthetic speech
EXPRESSION_POWER: Final = 0.12  # mean square of real expressions, which scales errors
_OUTPUT_WEIGHT: Final = (0.5, 0.9, 1.1, 1.3, 1.2)  # by look-ahead; `live` is the default profile
# The shorter the look-ahead, the less a closure shows in time, and the more it has to be sought.
_CLOSURE_WEIGHT: Final = (3.0, 3.0, 1.7, 1.0, 1.0)
# An m taken for an n leaves the lips open, which is visible; the reverse is not.
_BILABIAL_WEIGHT: Final = 2.0
# Lips aim beyond contact, so that they still meet if the time is off by 20 ms.
_PRESSED: Final = 0.06
_PARTED: Final = 0.4  # least opening of an open vowel; both over TYPICAL_OPENING
_FAIRNESS: Final = 0.4
_READ_SHARE: Final = 0.72  # of the real clips of a batch: their lips are less exact, but many
_CODE_NOISE: Final = 0.1  # standard deviation; a component of the code has 1
_AVERAGING: Final = 0.99  # of the weights over steps
_DECAY: Final = 0.05
_PARTS: Final = {
    "stream": ("head_gru", "phone", "head"),
    "file": ("file_gru", "file_phone", "file_head"),
}


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the losses."""

    expression: float = 0.5  # vertex motion
    correlation: float = 1.0  # of opening, width and protrusion, per clip
    spread: float = 0.3  # amplitude, which a mean-square loss alone makes too small
    opening: float = 0.5
    track: float = 0.3  # coarticulated motion of synthetic speech
    shape: float = 0.6  # width and protrusion in that motion
    narrowing: float = 4.0  # of rounded lips, in swings of width; people differ from 2 to 5
    closure: float = 1.5  # lips meet on p b m, and part on open vowels
    real_closure: float = 1.0
    rest: float = 0.4
    phone: float = 0.15


class HeadTrainer:
    """The losses and the batches of one training run."""

    def __init__(
        self,
        net: EncoderNet,
        hearing: Hearing,
        people: dict[str, list[RealSequence]],
        spoken: list[SpokenSequence],
        weights: Weights,
        seed: int,
        read: list[RealSequence] | None = None,
    ) -> None:
        """`people`: clips by person; `read`: speech whose lips were read, of many people."""
        torch.manual_seed(seed)
        self.net = net
        self.hearing = hearing
        self.parts = _PARTS[hearing.name]  # of the net, that train
        self.weights = weights
        self._rng = np.random.default_rng(seed)
        self._people = [people[name] for name in sorted(people)]
        # People with more footage are drawn more often, but far less than in proportion.
        amount = np.array([sum(len(s.code) for s in clips) for clips in self._people]) ** _FAIRNESS
        self._weights = amount / amount.sum() if len(amount) else amount
        if read:
            self._people.append(read)
            self._weights = np.append((1 - _READ_SHARE) * self._weights, _READ_SHARE)
        self._spoken = spoken
        self._rows = torch.from_numpy(face_model().lip_rows())
        self._opening_axis = self._rows[0] / self._rows[0].norm()
        self._natural = torch.from_numpy(_natural_motion(people))
        self._by_closure = torch.tensor((1.0,) if hearing is FILE else _CLOSURE_WEIGHT)
        self._by_output = torch.tensor((1.0,) if hearing is FILE else _OUTPUT_WEIGHT)

    def train(self, steps: int, rate: float, report: Callable[[str, float], None]) -> None:
        """Train the head of the net in place; its weights end as their running average."""
        parameters = [p for n, p in self.net.named_parameters() if n.split(".")[0] in self.parts]
        average = [p.detach().clone() for p in parameters]
        optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=_DECAY)
        self.net.train()
        for step in range(steps):
            done = step / steps
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * np.cos(np.pi * done))
            loss = self.loss()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            keep = min(_AVERAGING, (step + 1) / (step + 10))
            with torch.no_grad():
                for kept, parameter in zip(average, parameters, strict=True):
                    kept.lerp_(parameter, 1.0 - keep)
            if step % 10 == 0:
                report(f"training the head, loss {float(loss.detach()):.2f}", done)
        with torch.no_grad():
            for kept, parameter in zip(average, parameters, strict=True):
                parameter.copy_(kept)
        self.net.eval()

    def loss(self) -> Tensor:
        """Loss of one batch of real and spoken crops."""
        real = self._real_batch() if self._people else None
        spoken = self._spoken_batch()
        code = spoken[0] if real is None else torch.cat([real[0], spoken[0]])
        code = code + _CODE_NOISE * torch.randn_like(code)
        express = self.net.express_file if self.hearing is FILE else self.net.express
        logits, expression = express(code)
        count = 0 if real is None else len(real[0])
        loss = self._spoken_loss(expression[count:], logits[count:], spoken[1], spoken[2])
        if real is not None:
            loss = loss + self._real_loss(
                expression[:count], logits[:count].detach(), real[1], real[2]
            )
        return loss

    def _real_loss(self, found: Tensor, logits: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
        w = self.weights
        residual = found - wanted
        constant = _mean(residual, known[..., None])
        along = (constant @ self._opening_axis)[..., None] * self._opening_axis
        residual = residual - (constant - along)[:, None]
        motion = _mean((residual**2).sum(-1), known) / EXPRESSION_POWER
        loss = w.expression * (motion * self._by_output).mean()
        lips, lips_wanted = found @ self._rows.T, wanted @ self._rows.T
        for index, importance in enumerate((1.0, 0.4, 0.3)):
            r, log_spread = _correlate(lips[..., index], lips_wanted[..., index], known)
            agreement = w.correlation * (1.0 - r) + w.spread * log_spread**2
            loss = loss + importance * (agreement * self._by_output).mean()
        gap = lips[..., 0] / TYPICAL_OPENING
        error = (gap.clamp(min=0) - lips_wanted[..., 0] / TYPICAL_OPENING) ** 2
        loss = loss + w.opening * (_mean(error, known) * self._by_output).mean()
        posterior = logits.softmax(-1)
        closed = known * (posterior[..., list(BILABIALS)].sum(-1) > 0.8)
        opened = known * (posterior[..., list(OPEN_VOWELS)].sum(-1) > 0.5)
        meet = _mean_where(torch.relu(gap + _PRESSED) ** 2, closed)
        part = _mean_where(torch.relu(_PARTED - gap) ** 2, opened)
        return loss + w.real_closure * (meet + 2.0 * part)

    def _spoken_loss(self, found: Tensor, logits: Tensor, wanted: Tensor, phones: Tensor) -> Tensor:
        w = self.weights
        known = (phones != UNKNOWN).float()
        known[:, :_WARM_UP_STEPS] = 0.0
        lips = found @ self._rows.T
        gap = lips[..., 0] / TYPICAL_OPENING
        opening = ((gap - wanted[..., 0] / _TRACK_PEAK) ** 2 * known * self._by_output).mean()
        spread, narrowed = wanted[..., 1].clamp(min=0), wanted[..., 1].clamp(max=0)
        width = (lips[..., 1] / _WIDTH_SWING - 1.6 * spread - w.narrowing * narrowed) ** 2
        rounding = (lips[..., 2] / _PROTRUSION_SWING - 2.5 * (wanted[..., 2] - 0.15)) ** 2
        shape = ((width + rounding) * known * self._by_output).mean()
        unnatural = ((found - lips @ self._natural) ** 2).sum(-1) / EXPRESSION_POWER
        natural = (unnatural * known).mean()
        loss = w.track * (2.0 * opening + w.shape * shape + 0.3 * natural)
        closed = known * torch.isin(phones, torch.tensor(BILABIALS)) * (wanted[..., 0] < 0.04)
        opened = known * torch.isin(phones, torch.tensor(OPEN_VOWELS)) * (wanted[..., 0] > 0.12)
        meet = _mean_where(self._by_closure * torch.relu(gap + _PRESSED) ** 2, closed)
        part = _mean_where(torch.relu(_PARTED - gap) ** 2, opened)
        silent = known * (phones == SILENCE) * (wanted.abs().amax(-1) < 0.12)
        rest = _mean_where((found**2).sum(-1), silent) / EXPRESSION_POWER
        loss = loss + w.closure * (meet + 4.0 * part) + w.rest * rest
        return loss + w.phone * (self._phone_loss(logits, phones) * known).mean()

    def _phone_loss(self, logits: Tensor, phones: Tensor) -> Tensor:
        """Cross-entropy f32 [B, T, L]; phones i64 [B, T, L]."""
        by_phone = torch.ones(logits.shape[-1])
        by_phone[list(BILABIALS)] = _BILABIAL_WEIGHT
        wanted = phones.masked_fill(phones == UNKNOWN, SILENCE)
        loss = functional.cross_entropy(
            logits.movedim(-1, 1), wanted, by_phone, reduction="none", label_smoothing=0.03
        )
        return loss * self._by_output

    def _real_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        rows = []
        for _ in range(_REAL_BATCH):
            clips = self._people[int(self._rng.choice(len(self._people), p=self._weights))]
            s = clips[int(self._rng.integers(len(clips)))]
            rows.append(self._crop((s.code, s.target, s.known)))
        code, target, known = (np.stack(column) for column in zip(*rows, strict=True))
        known = known.astype(np.float32)
        known[:, :_WARM_UP_STEPS] = 0.0
        return torch.from_numpy(code).float(), torch.from_numpy(target), torch.from_numpy(known)

    def _spoken_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        rows = []
        for _ in range(_SYNTHETIC_BATCH):
            s = self._spoken[int(self._rng.integers(len(self._spoken)))]
            rows.append(self._crop((s.code, s.lips, s.phones)))
        code, lips, phones = (np.stack(column) for column in zip(*rows, strict=True))
        return (
            torch.from_numpy(code).float(),
            torch.from_numpy(lips),
            torch.from_numpy(phones.astype(np.int64)),
        )

    def _crop(self, arrays: tuple[NDArray[np.generic], ...]) -> list[NDArray[np.generic]]:
        length = len(arrays[0])
        start = 0
        if length > _CROP_STEPS and self._rng.random() < 0.7:
            start = int(self._rng.integers(0, length - _CROP_STEPS + 1))
        crops = []
        for array in arrays:
            piece = array[start : start + _CROP_STEPS]
            short = _CROP_STEPS - len(piece)
            crops.append(np.pad(piece, ((0, short), *((0, 0),) * (piece.ndim - 1))))
        return crops


def _natural_motion(people: dict[str, list[RealSequence]]) -> F32:
    """Ridge regression from lip measures to the expression that people have, f32 [3, K]."""
    model = face_model()
    rows = model.lip_rows()
    if not people:
        scaled = rows * model.spread**2
        natural: F32 = (np.linalg.pinv(scaled @ rows.T) @ scaled).astype(np.float32)
        return natural
    motion = np.concatenate(
        [s.target[:, 0][s.known[:, 0]] for clips in people.values() for s in clips]
    )
    lips = motion @ rows.T
    penalty = 1e-4 * len(lips) * np.diag(lips.var(0))
    fitted: F32 = np.linalg.solve(lips.T @ lips + penalty, lips.T @ motion).astype(np.float32)
    return fitted


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """Mean over time of [B, T, …] where known."""
    return (values * known).sum(1) / known.sum(1).clamp(min=1.0)


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / (chosen.sum() + 1.0)


def _correlate(a: Tensor, b: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Pearson's over time, and the log ratio of the standard deviations; both [B, L]."""
    a = (a - _mean(a, known)[:, None]) * known
    b = (b - _mean(b, known)[:, None]) * known
    power_a, power_b = (a * a).sum(1), (b * b).sum(1)
    r = (a * b).sum(1) / torch.sqrt(power_a * power_b + 1e-6)
    return r, 0.5 * torch.log((power_a + 1e-4) / (power_b + 1e-4))
