"""The paper's audio ID-removing, built to be measured: what it removes, and what lips gain by it.

    x' = x (I + sum_k lambda_k W_k)        lambda = GRU(x), W_k f32 [BANDS, BANDS]

Each log-mel frame passes through a matrix that a recurrent network mixes out of a few learned
ones. It is trained with the recogniser, and against a classifier that tries to name the speaker
from what is left (gradient reversal, Ganin et al., JMLR 2016). Source: *Everybody's Talkin'*
(arXiv 2001.05201), "audio ID-removing"; sizes and the classifier are ours, and a GRU stands for
the paper's LSTM.

    python -m lipstream.calibration.training.encoder.speaker_removal \
        ENCODER.safetensors CLIPS -o FILE.json

trains two recognisers from one start, with and without, by the same batches, and writes how well a
probe can tell twenty real speakers apart afterwards, and how well the opening that the named phones
ask for follows the lips of people never seen.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lipstream.calibration.assets import cache_folder
from lipstream.calibration.training.clips import (
    LAGS_S,
    TalkingClip,
    at_frames,
    correlation,
    held_out,
    track_clips,
)
from lipstream.calibration.training.encoder import recogniser
from lipstream.calibration.training.encoder.expression_head import features_of
from lipstream.calibration.training.encoder.train import TrainingOptions, load_recogniser, openness
from lipstream.calibration.training.speech import corpus
from lipstream.calibration.training.speech.alignment import read_sentence
from lipstream.engine.face.model import face_model
from lipstream.engine.networks.encoder_torch import EncoderNet, EncoderSize, load_net
from lipstream.engine.networks.signatures import BANDS, FRAMES_PER_STEP, LOOK_AHEADS_MS
from lipstream.engine.types import F32

MATRICES: Final = 8
_MIXER: Final = 48
_AGAINST: Final = 0.3  # weight of the speaker classifier's reversed gradient
_WINDOW_STEPS: Final = 50  # of a probe: one second
_LEARNED: Final = 0.6  # of each recording; the rest judges the probe
_HEAD: Final = LOOK_AHEADS_MS.index(80)


class SpeakerRemoval(nn.Module):
    """x (I + sum_k lambda_k W_k) per frame; features f32 [B, T, BANDS * FRAMES_PER_STEP]."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer = nn.GRU(BANDS * FRAMES_PER_STEP, _MIXER, batch_first=True)
        self.mix = nn.Linear(_MIXER, MATRICES)
        self.matrices = nn.Parameter(torch.randn(MATRICES, BANDS, BANDS) / BANDS)
        nn.init.zeros_(self.mix.bias)
        nn.init.normal_(self.mix.weight, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """The same frames with less of the speaker in them."""
        mixed, _ = self.mixer(features)
        share = self.mix(mixed)
        frames = features.unflatten(-1, (FRAMES_PER_STEP, BANDS))
        moved = torch.einsum("btfi,kij->btfkj", frames, self.matrices)
        return (frames + torch.einsum("btfkj,btk->btfj", moved, share)).flatten(-2)


class RemovingNet(EncoderNet):
    """The encoder with the transform in front of it."""

    def __init__(self, size: EncoderSize) -> None:
        super().__init__(size)
        self.removal = SpeakerRemoval()

    def recognise(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Phone logits and hidden state of the transformed features."""
        return super().recognise(self.removal(features))


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -_AGAINST * gradient


def _pooled(x: Tensor) -> Tensor:
    """Mean and spread over time, [B, T, F] to [B, 2 F]: what is left of a speaker in a clip."""
    return torch.cat([x.mean(1), x.std(1)], -1)


def train(
    net: EncoderNet, shards: Sequence[corpus.Shard], steps: int, seed: int, rate: float = 6e-4
) -> None:
    """Train the recogniser of `net` on, and against a speaker classifier where it has a transform.

    The batches are a function of the seed alone: both kinds of net see the same ones.
    """
    names = sorted({_speaker(voice) for shard in shards for voice in shard.voices if voice})
    index = {name: place for place, name in enumerate(names)}
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    width = 2 * BANDS * FRAMES_PER_STEP
    judge = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, len(names)))
    removal = net.removal if isinstance(net, RemovingNet) else None
    parameters = [*net.parameters(), *(judge.parameters() if removal is not None else ())]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    net.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 30) * (1.0 - 0.95 * step / steps)
        torch.manual_seed(seed * 100_003 + step)
        batch = recogniser.draw(shards, rng)
        seen = batch.features
        loss = torch.zeros(())
        if removal is not None:
            seen = removal(seen)
            speakers = torch.tensor([index.get(_speaker(v), -100) for v in batch.voices])
            named = judge(_pooled(_Reverse.apply(seen)))
            loss = functional.cross_entropy(named, speakers, ignore_index=-100)
        logits, _ = EncoderNet.recognise(net, seen)
        loss = loss + recogniser.phone_loss(logits, batch.targets)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
    net.eval()


def _speaker(voice: str) -> str:
    """espeak's variant or a recorded voice: what a listener would call the speaker."""
    return voice.split("+")[-1]


def speakers_of(data: Path) -> dict[str, F32]:
    """Recordings of people who are in no training, one each, f32 [samples]: LibriTTS, AISHELL-3."""
    files = sorted([*data.glob("audio/libritts/*.wav"), *data.glob("audio/aishell3/*.wav")])
    return {path.stem: read_sentence(path) for path in files}


def probe(representation: Callable[[F32], F32], people: Mapping[str, F32]) -> float:
    """How often a linear probe names the speaker of a second that it was not fitted on, 0 to 1.

    `representation` maps audio to f32 [steps, features]. Windows of one second, mean and spread
    over time; the first 60 % of every recording fit a logistic regression, the rest judges it.
    """
    rows: dict[bool, list[F32]] = {True: [], False: []}
    labels: dict[bool, list[int]] = {True: [], False: []}
    for label, audio in enumerate(people.values()):
        values = representation(audio)
        cut = int(len(values) * _LEARNED)
        for learned, part in ((True, values[:cut]), (False, values[cut:])):
            for start in range(0, len(part) - _WINDOW_STEPS + 1, _WINDOW_STEPS // 2):
                window = part[start : start + _WINDOW_STEPS]
                rows[learned].append(np.concatenate([window.mean(0), window.std(0)]))
                labels[learned].append(label)
    x, judged = (
        torch.from_numpy(np.stack(rows[part]).astype(np.float32)) for part in (True, False)
    )
    mean, spread = x.mean(0), x.std(0) + 1e-4
    x, judged = (x - mean) / spread, (judged - mean) / spread
    y = torch.tensor(labels[True])
    weight = torch.zeros(x.shape[1], len(people), requires_grad=True)
    bias = torch.zeros(len(people), requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(x @ weight + bias, y) + 0.01 * (weight**2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        named = (judged @ weight + bias).argmax(-1)
    return float((named == torch.tensor(labels[False])).float().mean())


def probes(net: EncoderNet, people: Mapping[str, F32]) -> dict[str, float]:
    """Speaker accuracy from what each part of the network sees or says."""

    def heard(audio: F32) -> Tensor:
        return torch.from_numpy(features_of(audio))[None]

    def transformed(audio: F32) -> F32:
        x = heard(audio)
        return (net.removal(x) if isinstance(net, RemovingNet) else x)[0].numpy()

    def state(audio: F32) -> F32:
        return net.recognise(heard(audio))[1][0].numpy()

    def posterior(audio: F32) -> F32:
        return net.recognise(heard(audio))[0][0, :, _HEAD].softmax(-1).numpy()

    def head_input(audio: F32) -> F32:
        return torch.tanh(net.code(net.recognise(heard(audio))[1]))[0].numpy()

    parts = {"features": transformed, "state": state, "code": head_input, "phones": posterior}
    with torch.no_grad():
        found = {name: round(probe(part, people), 3) for name, part in parts.items()}
    return {**found, "chance": round(1 / len(people), 3)}


def lip_agreement(net: EncoderNet, clips: Sequence[TalkingClip]) -> dict[str, float]:
    """Mean correlation of the opening by the phone table, at the longest look-ahead, by speaker;
    each clip at its own best offset."""
    scores: dict[str, list[float]] = {}
    for clip in clips:
        opening = openness(net, clip.audio)
        look_ahead_ms = LOOK_AHEADS_MS[-1]
        found = [
            correlation(at_frames(opening, look_ahead_ms, clip, float(lag)), clip.opening)
            for lag in LAGS_S
        ]
        scores.setdefault(clip.speaker, []).append(max(found))
    return {name: round(float(np.mean(values)), 3) for name, values in sorted(scores.items())}


def ablation(
    weights: Path, data: Path, options: TrainingOptions, report: Callable[[str, float], None]
) -> dict[str, Any]:
    """Both arms from the recogniser in `weights`; see the module."""
    cache = cache_folder() / "train"
    paths = corpus.make_corpus(cache / "corpus", options.hours, options.seed, report)
    shards = [corpus.load_shard(path) for path in paths]
    clips = track_clips(data, cache_folder() / "tracks", report)
    hidden = held_out([clip.speaker for clip in clips], options.held_out)
    unseen = [clip for clip, held in zip(clips, hidden, strict=True) if held]
    people = speakers_of(data)
    size = EncoderSize(coefficients=face_model().size)
    result: dict[str, Any] = {"steps": options.more_steps, "speakers": len(people)}
    result["as given"] = probes(load_net(weights), people)
    for name, kind in (("without", EncoderNet), ("with", RemovingNet)):
        report(f"training {name} the transform", 0.0)
        torch.manual_seed(options.seed)
        net = kind(size)
        load_recogniser(net, weights)
        train(net, shards[1:], options.more_steps, options.seed)
        result[name] = {
            "phones": [round(v, 3) for v in recogniser.frame_accuracy(net, shards[0])],
            "speaker": probes(net, people),
            "opening": lip_agreement(net, unseen),
        }
        report(json.dumps({name: result[name]}), 1.0)
    return result


def main() -> None:
    """The command in the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("encoder", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--hours", type=float, default=5.8)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    options = TrainingOptions(told.seed, told.hours, more_steps=told.steps)

    def report(what: str, share: float) -> None:
        sys.stderr.write(f"{share:4.0%} {what}\n")

    result = ablation(told.encoder, told.data, options, report)
    told.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
