"""Distillation that teaches the recogniser to follow one voice among others, without labels.

The teacher is a trained encoder that gets real people speaking alone. The student is a copy of it
that gets the same speech with up to six other voices behind. It learns to give the output of the
teacher: the phones, the code, and the lips that the shared head makes of both. An hour of fifty
unlabelled speakers can so be used, and the output for a voice alone stays as it was.

Source: distillation from clean to noisy input, as in Li et al., "Large-scale domain adaptation
via teacher-student learning" (Interspeech 2017); the losses are ours.

    python -m lipstream.calibration.training.encoder.babble_distillation \
        ENCODER.safetensors DATA -o DIR

distils into the recogniser of an encoder and keeps its head.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Final, NamedTuple

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

# LJ Speech, LibriTTS and AISHELL-3 are left out: the evaluation uses them.
_FOLDERS: Final = ("audio/barista", "audio/vctk", "audio/a2f")
_UNLABELLED: Final = 0.7  # fraction of a batch
_WITH_BABBLE: Final = 0.85, 0.45  # fractions of the unlabelled and of the labelled clips
_UNLABELLED_SHARDS: Final = 30
_WARM_UP_STEPS: Final = 20  # at the start of a clip, without a loss
_LIP_CLIPS: Final = 16  # clips of a batch whose lips are compared
_RATE: Final = 7e-4
_F32_TAIL: Final = 0.1
_CHANNEL: Final = augment.Augmentation(
    room=0.25, noise=0, equaliser=0.7, babble=0, music=0, codec=0.1, clip=0.03, loss=0.05
)

Report = Callable[[str, float], None]


def unlabelled_shards(
    data: Path, clips: Sequence[Path], folder: Path, seed: int, report: Report
) -> list[Shard]:
    """Shards of real people speaking alone, with unknown phones, cached in `folder`.

    The speech comes from `clips` and from the folders of `data` named above; voices and channels
    are varied.
    """
    paths = [path for name in _FOLDERS for path in sorted((data / name).glob("*.*"))]
    paths += clips
    speech: list[F32] = []
    shards = []
    for index in range(_UNLABELLED_SHARDS):
        path = folder / f"plain_{corpus.CORPUS_VERSION}_{seed}_{index:02d}.npz"
        if not path.is_file():
            speech = speech or [read_sentence(path) for path in paths]
            _make_shard(speech, path, np.random.default_rng((seed, index)))
        shards.append(corpus.load_shard(path))
        report("preparing real speech", (index + 1) / _UNLABELLED_SHARDS)
    return shards


def training_clips(data: Path, held: Sequence[str]) -> list[Path]:
    """The clips below `data` whose people and sentences are not held out for evaluation."""
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
            voice = augment.resample_and_equalise(voice, 16_000 * speed, rng, _CHANNEL)
            voice = augment.add_noise(voice, None, rng, _CHANNEL)
            pause = np.zeros(int(rng.exponential(0.3) * 16_000), np.float32)
            clip = np.concatenate([clip, augment.through_channel(voice, rng, _CHANNEL), pause])
        first = int(rng.integers(len(clip) - length + 1))
        log_mel[row] = offline_log_mel(features, clip[first : first + length])
    unknown = np.full((len(log_mel), corpus.CLIP_FRAMES), corpus.UNKNOWN, np.uint8)
    corpus.save_shard(path, log_mel, unknown, [""] * len(log_mel))


class _Outputs(nn.Module):
    """All outputs of an encoder as a forward, so that weights can be passed in."""

    def __init__(self, net: EncoderNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, features: Tensor, with_lips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Phone logits and code of every clip, expression of the clips `with_lips`."""
        logits, hidden = self.net.recognise(features)
        code = torch.tanh(self.net.code(hidden))
        training, self.net.training = self.net.training, False
        expression = self.net.express(logits[with_lips], hidden[with_lips])
        self.net.training = training
        return logits, code, expression


class Speech(NamedTuple):
    """What is distilled on."""

    labelled: Sequence[Shard]  # synthetic
    unlabelled: Sequence[Shard]  # real, of `unlabelled_shards`


def distil(
    net: EncoderNet,
    speech: Speech,
    steps: int,
    seed: int,
    report: Report,
    teacher: EncoderNet | None = None,
) -> None:
    """Train the recogniser of `net` in place to give with babble what `teacher` gives without.

    The head stays. teacher: by default `net` as it is now.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    teaches, learns = _Outputs(deepcopy(net if teacher is None else teacher).eval()), _Outputs(net)
    parameters = [p for n, p in net.named_parameters() if n.split(".")[0] in recogniser.PARTS]
    optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=1e-4)
    fast = torch.bfloat16 if computes_in_bf16("cpu") else torch.float32
    fixed = {name: p.detach().to(fast) for name, p in teaches.named_parameters()}
    rows = torch.from_numpy(face_model().lip_rows())
    net.train()
    for step in range(steps):
        done = step / steps
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1, 0.02 + step / 60) * (0.51 + 0.5 * np.cos(np.pi * done))
        alone, among, targets = _draw(speech, rng)
        with_lips = torch.randperm(len(alone))[:_LIP_CLIPS]
        with torch.no_grad():
            wanted = torch.func.functional_call(teaches, fixed, (alone.to(fast), with_lips))
        dtype = fast if done < 1 - _F32_TAIL else torch.float32
        weights = {name: p.to(dtype) for name, p in learns.named_parameters()}
        found = torch.func.functional_call(learns, weights, (among.to(dtype), with_lips))
        loss = _distance([x.float() for x in found], [x.float() for x in wanted], rows)
        loss = loss + 0.3 * recogniser.phone_loss(found[0].float(), targets)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 10 == 0:
            report(f"distilling babble, loss {float(loss.detach()):.2f}", done)
    net.eval()


def _draw(speech: Speech, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Features of a batch without and with babble, and its phones, -100 where unknown."""
    count = round(recogniser.BATCH * _UNLABELLED)
    picked = [recogniser.any_clip(speech.unlabelled, rng) for _ in range(count)]
    picked += [recogniser.any_clip(speech.labelled, rng) for _ in range(recogniser.BATCH - count)]
    alone = np.stack([shard.features[row] for shard, row in picked]).astype(np.float32)
    chance = np.repeat(_WITH_BABBLE, (count, recogniser.BATCH - count))
    mixed_rows = np.flatnonzero(rng.random(len(picked)) < chance)
    others = [*speech.unlabelled, *speech.labelled]
    among = alone.copy()
    mixed = [
        recogniser.with_babble(shard.log_mel[row], others, rng)
        for shard, row in (picked[index] for index in mixed_rows)
    ]
    among[mixed_rows] = corpus.normalise(np.stack(mixed)).reshape(len(mixed), *alone.shape[1:])
    targets = np.stack([shard.targets[row] for shard, row in picked]).astype(np.int64)
    targets[targets == corpus.UNKNOWN] = -100
    varied = recogniser.varied(torch.from_numpy(among), rng)
    return torch.from_numpy(alone), varied, torch.from_numpy(targets)


def _distance(found: Sequence[Tensor], wanted: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Loss between two outputs in phones, code and lips.

    Errors on p, b and m weigh up to four times, errors of lips that should be closed three times.
    """
    weight = torch.tensor(recogniser.LOOK_AHEAD_WEIGHT)
    (logits, code, lips), (logits_w, code_w, lips_w) = (
        (x[0][:, _WARM_UP_STEPS:], x[1][:, _WARM_UP_STEPS:], x[2][:, _WARM_UP_STEPS:])
        for x in (found, wanted)
    )
    posterior = logits_w.softmax(-1)
    importance = 1 + 3 * posterior[..., list(BILABIALS)].sum(-1)
    divergence = (posterior * (logits_w.log_softmax(-1) - logits.log_softmax(-1))).sum(-1)
    phones = ((importance * divergence).mean((0, 1)) * weight).mean()
    motion = ((lips - lips_w) ** 2).sum(-1).mean() / EXPRESSION_POWER
    measures, measures_w = lips @ rows.T, lips_w @ rows.T
    error = ((measures - measures_w) / measures_w.std((0, 1)).clamp(min=1e-4)) ** 2
    closed = 1 + 2 * (measures_w[..., :1] < 0.1 * TYPICAL_OPENING)
    scale = torch.cat(
        [closed, torch.ones_like(measures_w[..., 1:2]), torch.full_like(measures_w[..., 2:], 0.3)],
        -1,
    )
    shape = ((error * scale).sum(-1).mean((0, 1)) * weight).mean()
    return phones + 1.5 * ((code - code_w) ** 2).mean() + 0.3 * (shape + 0.3 * motion)


def main() -> None:
    """The command in the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("encoder", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--steps", type=int, default=TrainingOptions().distillation_steps)
    parser.add_argument("--hours", type=float, default=4.4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    def report(step: str, fraction: float) -> None:
        sys.stderr.write(f"{fraction:4.0%} {step}\n")

    folder = cache_folder() / "train" / "corpus"
    labelled = [
        corpus.load_shard(path) for path in corpus.make_corpus(folder, arguments.hours, 0, report)
    ]
    clips = training_clips(arguments.data, TrainingOptions().held_out)
    unlabelled = unlabelled_shards(arguments.data, clips, folder, 0, report)
    net = load_net(arguments.encoder)
    teacher = None if arguments.teacher is None else load_net(arguments.teacher)
    distil(net, Speech(labelled[1:], unlabelled), arguments.steps, arguments.seed, report, teacher)
    arguments.output.mkdir(parents=True, exist_ok=True)
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    export.save_encoder(weights, arguments.output, {"seed": str(arguments.seed)})


if __name__ == "__main__":
    main()
