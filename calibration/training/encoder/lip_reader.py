"""Reads lips off what the teacher hears, so that speech without a camera can teach lip motion.

Real lips are known of few people. The teacher's output is much the same for everybody, so a small
head on it, which sees both ways, reads the lips of people it never saw; what it reads of an hour of
other voices then trains the heads that ship, which have less to go by. Several heads are trained
and their mean is taken.

Source: pseudo-labels (Lee, 2013), with the teacher's view of the clean sound as the better reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lipstream.calibration.training.clips import TYPICAL_OPENING, TalkingClip, person_scale
from lipstream.calibration.training.encoder.distillation import COMPONENTS, Components, Goal
from lipstream.calibration.training.encoder.sequences import Hearing, RealSequence
from lipstream.calibration.training.encoder.teacher import (
    EARLY_SAMPLES,
    WINDOW_LENGTH,
    WINDOW_TOKENS,
    Teacher,
)
from lipstream.engine.face.model import face_model
from lipstream.engine.types import F32, SAMPLE_RATE_HZ

_READERS: Final = 3
_STEPS: Final = 300
_BATCH: Final = 24
_CROP: Final = 120  # tokens
_RATE: Final = 3e-3
_TOKEN_S: Final = 0.02
_EDGE: Final = 10  # tokens at either end of a window, where the reader has seen too little
_IMPORTANCE: Final = (1.0, 0.6, 0.3)  # of opening, width, protrusion
_AT_ONCE: Final = 50  # windows
_NOISE: Final = 0.1  # standard deviation; a component has 1

Report = Callable[[str, float], None]


class LipReader(nn.Module):
    """Components of the teacher's output f32 [B, T, COMPONENTS] to expressions f32 [B, T, K]."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)
        self.gru = nn.GRU(COMPONENTS, width, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * width, face_model().size)

    def forward(self, heard: Tensor) -> Tensor:
        """See the class."""
        motion, _ = self.gru(self.drop(heard))
        found: Tensor = self.out(self.drop(motion))
        return found


def train_readers(
    teacher: Teacher,
    components: Components,
    clips: Sequence[TalkingClip],
    seed: int,
    report: Report,
) -> list[LipReader]:
    """Readers trained on real clips, whose A/V offset is known."""
    people: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    scale = person_scale(clips)
    for clip in clips:
        heard = hear(teacher, components, clip.audio)
        time_s = _TOKEN_S * np.arange(len(heard)) - clip.late_s
        columns = [np.interp(time_s, clip.time_s, column) for column in clip.expression.T]
        target = (scale[clip.speaker] * np.stack(columns, -1)).astype(np.float32)
        known = ((time_s >= 0) & (time_s <= clip.time_s[-1])).astype(np.float32)
        rows = (torch.from_numpy(array) for array in (heard, target, known))
        people.setdefault(clip.speaker, []).append(tuple(rows))
    return [_train([people[p] for p in sorted(people)], seed + i, report) for i in range(_READERS)]


def hear(teacher: Teacher, components: Components, audio: F32) -> F32:
    """The teacher's components over a clip f32 [n] of any length, f32 [tokens, COMPONENTS].

    Windows overlap by half, and all but the first give their later three quarters.
    """
    tokens = len(audio) // (WINDOW_LENGTH // WINDOW_TOKENS)
    found = np.zeros((tokens + WINDOW_TOKENS, COMPONENTS), np.float32)
    hop = WINDOW_LENGTH // 2
    for start in range(0, max(1, len(audio) - hop), hop):
        skip = 0 if start == 0 else WINDOW_TOKENS // 4
        made = components.of(torch.from_numpy(teacher(audio[start : start + WINDOW_LENGTH])))
        first = start * WINDOW_TOKENS // WINDOW_LENGTH
        found[first + skip : first + WINDOW_TOKENS] = made[skip:].numpy()
    return found[:tokens]


def _train(
    people: Sequence[Sequence[tuple[Tensor, Tensor, Tensor]]], seed: int, report: Report
) -> LipReader:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    reader = LipReader()
    rows = torch.from_numpy(face_model().lip_rows())
    optimiser = torch.optim.AdamW(reader.parameters(), _RATE, weight_decay=0.05)
    importance = torch.tensor(_IMPORTANCE)
    reader.train()
    for step in range(_STEPS):
        done = step / _STEPS
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1, (step + 1) / 30) * (0.5 + 0.5 * np.cos(np.pi * done))
        heard, wanted, known = _draw(people, rng)
        found = reader(heard + _NOISE * torch.randn_like(heard))
        a, b = (_centred(x @ rows.T, known) for x in (found, wanted))
        power_a, power_b = (a**2).sum(1), (b**2).sum(1)
        r = (a * b).sum(1) / (power_a * power_b + 1e-6).sqrt()
        spread = 0.5 * torch.log((power_a + 1e-4) / (power_b + 1e-4))
        motion = (_centred(found - wanted, known) ** 2).sum(-1).mean() / (b**2).sum(-1).mean()
        level = ((found @ rows[0] - wanted @ rows[0]) * known[..., 0] / TYPICAL_OPENING) ** 2
        loss = ((1 - r + 0.1 * spread**2) * importance).sum(-1).mean()
        loss = loss + 0.1 * motion + 0.1 * level.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 10 == 0:
            report(f"training a lip reader, loss {float(loss.detach()):.2f}", done)
    return reader.eval().requires_grad_(False)


def _draw(
    people: Sequence[Sequence[tuple[Tensor, Tensor, Tensor]]], rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Crops of people drawn alike: heard, wanted, and known f32 [B, T, 1]."""
    columns: list[list[Tensor]] = [[], [], []]
    for _ in range(_BATCH):
        clips = people[int(rng.integers(len(people)))]
        clip = clips[int(rng.integers(len(clips)))]
        first = int(rng.integers(max(1, len(clip[0]) - _CROP)))
        for column, whole in zip(columns, clip, strict=True):
            piece = whole[first : first + _CROP]
            short = _CROP - len(piece)
            padding = (0, 0) * (piece.ndim - 1) + (0, short)
            column.append(nn.functional.pad(piece, padding))
    heard, wanted, known = (torch.stack(column) for column in columns)
    return heard, wanted, known[..., None]


def _centred(x: Tensor, known: Tensor) -> Tensor:
    """f32 [B, T, n] about its mean where known, 0 elsewhere."""
    mean = (x * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)
    return (x - mean) * known


def read_windows(goal: Goal, windows: NDArray[np.float16]) -> F32:
    """Expressions f32 [n, T, K] of windows of the teacher's output f16 [n, T, TOKEN_WIDTH]."""
    found = []
    for first in range(0, len(windows), _AT_ONCE):
        tokens = torch.from_numpy(windows[first : first + _AT_ONCE].astype(np.float32))
        with torch.no_grad():
            heard = goal.components.of(tokens)
            read = torch.stack([reader(heard) for reader in goal.readers])
            found.append(read.mean(0).numpy())
    return np.concatenate(found)


def read_sequence(code: NDArray[np.float16], hearing: Hearing, expression: F32) -> RealSequence:
    """A window as a head hears it, code f16 [T, code], with what was read, f32 [tokens, K]."""
    steps = hearing.times_s(len(code)) - EARLY_SAMPLES / SAMPLE_RATE_HZ
    time_s = _TOKEN_S * np.arange(len(expression))
    columns = [np.interp(steps, time_s, column) for column in expression.T]
    known = (steps >= time_s[_EDGE]) & (steps <= time_s[-_EDGE])
    return RealSequence(code, np.stack(columns, -1).astype(np.float32), known)
