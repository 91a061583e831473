"""Teaches the recogniser to hear one voice among others, from speech whose words nobody knows.

A trained encoder hears real people speak alone. A copy of it hears the same with up to six others
talking behind them, and learns to say what the first one says: the phones, the code, and the lips
that both have the same head make of them. So an hour of fifty speakers teaches that has no labels,
and what it says of a voice alone stays what it was.

Source: distillation from clean to noisy input, as in Li et al., "Large-scale domain adaptation via
teacher-student learning" (Interspeech 2017); the losses are ours.

    python -m lipstream.calibration.training.encoder.babble_distillation \
        ENCODER.safetensors DATA -o DIR

trains the recogniser of an encoder on and keeps its head.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from lipstream.calibration.assets import cache_folder
from lipstream.calibration.training.clips import TYPICAL_OPENING, find_clips, held_out
from lipstream.calibration.training.encoder import export, recogniser
from lipstream.calibration.training.encoder.expression_head import EXPRESSION_POWER
from lipstream.calibration.training.encoder.train import TrainingOptions
from lipstream.calibration.training.precision import computes_in_bf16
from lipstream.calibration.training.speech import augment, corpus, synthesis
from lipstream.calibration.training.speech.alignment import read_sentence
from lipstream.calibration.training.speech.corpus import Shard
from lipstream.calibration.training.speech.phones import BILABIALS
from lipstream.engine.face.model import face_model
from lipstream.engine.networks.encoder_torch import EncoderNet, load_net
from lipstream.engine.networks.signatures import BANDS
from lipstream.engine.speech.features import Features, offline_log_mel
from lipstream.engine.types import F32

# What labels and crowds of evaluation are made of is left out: LJ Speech, LibriTTS, AISHELL-3.
_FOLDERS: Final = ("audio/barista", "audio/vctk", "audio/a2f")
_PLAIN: Final = 0.7  # of a batch: speech without words
_CROWDED: Final = 0.85, 0.45  # of that, and of the rest
_PLAIN_SHARDS: Final = 30
_STRANGE_STEPS: Final = 20  # of a clip, not judged
_HEADED: Final = 16  # clips of a batch whose lips are compared
_RATE: Final = 7e-4
_F32_TAIL: Final = 0.1
_LINE: Final = augment.Augmentation(
    room=0.25, noise=0, colour=0.7, babble=0, music=0, codec=0.1, clip=0.03, loss=0.05
)

Report = Callable[[str, float], None]


def plain_shards(
    data: Path, clips: Sequence[Path], folder: Path, seed: int, report: Report
) -> list[Shard]:
    """Real people one at a time, out of `clips` and of the folders of `data` named above, their
    voices and lines varied; phones unknown. Kept in `folder`."""
    paths = [path for name in _FOLDERS for path in sorted((data / name).glob("*.*"))]
    paths += clips
    speech: list[F32] = []
    shards = []
    for index in range(_PLAIN_SHARDS):
        path = folder / f"plain_{corpus.CORPUS_VERSION}_{seed}_{index:02d}.npz"
        if not path.is_file():
            speech = speech or [read_sentence(path) for path in paths]
            _make_shard(speech, path, np.random.default_rng((seed, index)))
        shards.append(corpus.load_shard(path))
        report("gathering real speech", (index + 1) / _PLAIN_SHARDS)
    return shards


def heard_clips(data: Path, held: Sequence[str]) -> list[Path]:
    """The clips below `data` whose people and sentences are not held out for judging."""
    found = find_clips(data)
    hidden = held_out([speaker for _, speaker in found], held)
    return [path for (path, _), hide in zip(found, hidden, strict=True) if not hide]


def _make_shard(speech: Sequence[F32], path: Path, rng: np.random.Generator) -> None:
    features, length = Features(), synthesis.CLIP_SAMPLES
    log_mel = np.zeros((corpus.SHARD_CLIPS, corpus.CLIP_FRAMES, BANDS), np.float16)
    for row in range(corpus.SHARD_CLIPS):
        clip = np.zeros(0, np.float32)
        while len(clip) < length:
            speed = float(np.exp(rng.uniform(np.log(0.84), np.log(1.2))))
            voice = speech[int(rng.integers(len(speech)))]
            voice = augment.resample_and_colour(voice, 16_000 * speed, rng, _LINE)
            voice = augment.add_noise(voice, None, rng, _LINE)
            pause = np.zeros(int(rng.exponential(0.3) * 16_000), np.float32)
            clip = np.concatenate([clip, augment.over_the_line(voice, rng, _LINE), pause])
        first = int(rng.integers(len(clip) - length + 1))
        log_mel[row] = offline_log_mel(features, clip[first : first + length])
    unknown = np.full((len(log_mel), corpus.CLIP_FRAMES), corpus.UNKNOWN, np.uint8)
    corpus.save_shard(path, log_mel, unknown, [""] * len(log_mel))


class _Said(nn.Module):
    """All that an encoder says of features, so that weights can be handed in."""

    def __init__(self, net: EncoderNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, features: Tensor, headed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Phone logits and code of every clip, expression of the clips `headed`."""
        logits, hidden = self.net.recognise(features)
        code = torch.tanh(self.net.code(hidden))
        training, self.net.training = self.net.training, False
        expression = self.net.express(logits[headed], hidden[headed])
        self.net.training = training
        return logits, code, expression


def learn_crowds(
    net: EncoderNet,
    spoken: Sequence[Shard],
    plain: Sequence[Shard],
    steps: int,
    seed: int,
    report: Report,
    teacher: EncoderNet | None = None,
) -> None:
    """Train the phonetic part of `net` in place to say in a crowd what `teacher` (by default
    itself, as it is now) says without; its head stays.

    spoken: synthetic speech, whose phones are known. plain: real speech, of `plain_shards`.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    knows, learns = _Said(deepcopy(net if teacher is None else teacher).eval()), _Said(net)
    parameters = [p for n, p in net.named_parameters() if n.split(".")[0] in recogniser.PARTS]
    optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=1e-4)
    fast = torch.bfloat16 if computes_in_bf16("cpu") else torch.float32
    known = {name: p.detach().to(fast) for name, p in knows.named_parameters()}
    rows = torch.from_numpy(face_model().lip_rows())
    net.train()
    for step in range(steps):
        share = step / steps
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1, 0.02 + step / 60) * (0.51 + 0.5 * np.cos(np.pi * share))
        alone, among, targets = _draw(spoken, plain, rng)
        headed = torch.randperm(len(alone))[:_HEADED]
        with torch.no_grad():
            wanted = torch.func.functional_call(knows, known, (alone.to(fast), headed))
        dtype = fast if share < 1 - _F32_TAIL else torch.float32
        weights = {name: p.to(dtype) for name, p in learns.named_parameters()}
        said = torch.func.functional_call(learns, weights, (among.to(dtype), headed))
        loss = _apart([x.float() for x in said], [x.float() for x in wanted], rows)
        loss = loss + 0.3 * recogniser.phone_loss(said[0].float(), targets)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 10 == 0:
            report(f"learning to hear in a crowd, loss {float(loss.detach()):.2f}", share)
    net.eval()


def _draw(
    spoken: Sequence[Shard], plain: Sequence[Shard], rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Features of a batch alone and among others, and its phones, -100 where unknown."""
    count = round(recogniser.BATCH * _PLAIN)
    picked = [recogniser.any_clip(plain, rng) for _ in range(count)]
    picked += [recogniser.any_clip(spoken, rng) for _ in range(recogniser.BATCH - count)]
    alone = np.stack([shard.features[row] for shard, row in picked]).astype(np.float32)
    chance = np.repeat(_CROWDED, (count, recogniser.BATCH - count))
    crowded = np.flatnonzero(rng.random(len(picked)) < chance)
    others = [*plain, *spoken]
    among = alone.copy()
    mixed = [
        recogniser.with_crowd(shard.log_mel[row], others, rng)
        for shard, row in (picked[index] for index in crowded)
    ]
    among[crowded] = corpus.normalise(np.stack(mixed)).reshape(len(mixed), *alone.shape[1:])
    targets = np.stack([shard.targets[row] for shard, row in picked]).astype(np.int64)
    targets[targets == corpus.UNKNOWN] = -100
    heard = recogniser.varied(torch.from_numpy(among), rng)
    return torch.from_numpy(alone), heard, torch.from_numpy(targets)


def _apart(said: Sequence[Tensor], wanted: Sequence[Tensor], rows: Tensor) -> Tensor:
    """How far apart phones, code and lips are; what p, b and m are taken for counts up to four
    times, and lips that should be closed three times."""
    weight = torch.tensor(recogniser.LOOK_AHEAD_WEIGHT)
    (logits, code, lips), (logits_w, code_w, lips_w) = (
        (x[0][:, _STRANGE_STEPS:], x[1][:, _STRANGE_STEPS:], x[2][:, _STRANGE_STEPS:])
        for x in (said, wanted)
    )
    posterior = logits_w.softmax(-1)
    counts = 1 + 3 * posterior[..., list(BILABIALS)].sum(-1)
    surprise = (posterior * (logits_w.log_softmax(-1) - logits.log_softmax(-1))).sum(-1)
    phones = ((counts * surprise).mean((0, 1)) * weight).mean()
    motion = ((lips - lips_w) ** 2).sum(-1).mean() / EXPRESSION_POWER
    read, read_w = lips @ rows.T, lips_w @ rows.T
    off = ((read - read_w) / read_w.std((0, 1)).clamp(min=1e-4)) ** 2
    closed = 1 + 2 * (read_w[..., :1] < 0.1 * TYPICAL_OPENING)
    scale = torch.cat(
        [closed, torch.ones_like(read_w[..., 1:2]), torch.full_like(read_w[..., 2:], 0.3)], -1
    )
    shape = ((off * scale).sum(-1).mean((0, 1)) * weight).mean()
    return phones + 1.5 * ((code - code_w) ** 2).mean() + 0.3 * (shape + 0.3 * motion)


def main() -> None:
    """The command in the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("encoder", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--steps", type=int, default=TrainingOptions().crowd_steps)
    parser.add_argument("--hours", type=float, default=4.4)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()

    def report(what: str, share: float) -> None:
        sys.stderr.write(f"{share:4.0%} {what}\n")

    folder = cache_folder() / "train" / "corpus"
    spoken = [corpus.load_shard(path) for path in corpus.make_corpus(folder, told.hours, 0, report)]
    clips = heard_clips(told.data, TrainingOptions().held_out)
    plain = plain_shards(told.data, clips, folder, 0, report)
    net = load_net(told.encoder)
    teacher = None if told.teacher is None else load_net(told.teacher)
    learn_crowds(net, spoken[1:], plain, told.steps, told.seed, report, teacher)
    told.output.mkdir(parents=True, exist_ok=True)
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    export.save_encoder(weights, told.output, {"seed": str(told.seed)})


if __name__ == "__main__":
    main()
