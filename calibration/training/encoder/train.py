"""Trains the encoder that ships: synthetic speech, phones, real lips, files.

1. Synthesise a corpus with exact phone times; train the recogniser on it.
2. With real clips: align their known words with that recogniser, and train on with them.
3. Find the A/V offset of each clip; train expression heads on clips and phone times together.
4. With real clips: distil the recogniser's output for real speech alone into one for the same
   speech with babble (`babble_distillation`); train one more head on it.
5. Write encoder.safetensors and encoder.onnx.

The result of every step is cached. Without real clips the lips follow the phone table, which is
correct for closures and poorer for everything else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lipstream.calibration.training.clips import HELD_OUT
from lipstream.engine.errors import UsageError
from lipstream.engine.types import F32, U8

if TYPE_CHECKING:
    from lipstream.calibration.training.clips import TalkingClip
    from lipstream.engine.networks.encoder_torch import EncoderNet

Report = Callable[[str, float], None]
# Averaging and the loss both reduce the amplitude; measured on held-out people.
OUTPUT_GAIN = 1.2
# Weight of the recogniser as it was before distillation, which knows the synthetic voices better.
_UNDISTILLED_WEIGHT = 0.3
_LATER_RATE = 1.2e-3
_CONTINUED_RATE = 1.0e-3
_ALIGNING_HEAD = 3  # 120 ms: enough context after each step, and fully trained


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Amount of training of each part; 3 h on one core in all."""

    seed: int = 0
    hours: float = 17.0  # of synthetic speech
    steps: int = 1200  # of the recogniser, on synthetic speech
    more_steps: int = 1050  # and with real speech beside it
    head_steps: int = 320  # more fit the training people better and held-out people worse
    heads: int = 3  # trained independently, shipped as their mean
    held_out: tuple[str, ...] = HELD_OUT  # people that no training may see
    distillation_steps: int = 1600  # with real speech

    def __post_init__(self) -> None:
        if min(self.hours, self.steps, self.head_steps, self.heads) <= 0 or self.more_steps < 0:
            raise UsageError(
                f"got hours {self.hours}, steps {self.steps}, {self.more_steps} and "
                f"{self.head_steps}, heads {self.heads}; expected positive numbers"
            )


def main(
    output: Path,
    data: Path | None = None,
    cache: Path | None = None,
    options: TrainingOptions | None = None,
    report: Report | None = None,
    continued: Path | None = None,
) -> dict[str, Any]:
    """Train an encoder and write it into the folder `output`; returns its figures.

    Args:
        output: folder.
        data: folder of video clips of people talking (docs/models.md says what ours holds).
        cache: folder for the results of the steps.
        options: the amount of training.
        report: takes the name of a step and the fraction of it that is done.
        continued: encoder.safetensors whose recogniser is trained further, in place of a new one,
            with `more_steps` at a lower rate.

    Raises:
        UsageError: torch, onnx or a synthesiser is missing, or `data` holds no clips.
        AssetError: the face landmarker is missing (with `data` only).
    """
    for module in ("torch", "onnx"):
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"training needs {module}; pip install 'lipstream[torch]'")
    import torch

    from lipstream.calibration.assets import cache_folder
    from lipstream.calibration.training.clips import track_clips
    from lipstream.calibration.training.encoder import babble_distillation, export, recogniser
    from lipstream.calibration.training.encoder.recogniser import PARTS
    from lipstream.calibration.training.speech import corpus
    from lipstream.engine.face.model import face_model
    from lipstream.engine.networks.encoder_torch import EncoderNet, EncoderSize, net_of

    options = TrainingOptions() if options is None else options
    report = (lambda step, fraction: None) if report is None else report
    cache = cache_folder() / "train" if cache is None else cache
    torch.manual_seed(options.seed)
    net = EncoderNet(EncoderSize(coefficients=face_model().size))
    paths = corpus.make_corpus(cache / "corpus", options.hours, options.seed, report)
    shards = [corpus.load_shard(path) for path in paths]
    held, shards = shards[0], shards[1:]
    if continued is None:
        recogniser.train_recogniser(net, shards, options.steps, 2e-3, options.seed, report)
    else:
        load_recogniser(net, continued)
    clips: list[TalkingClip] = []
    if data is not None:
        clips = track_clips(data, cache / "tracks", report)
        aligned = _real_shards(net, data, clips, cache, options)
        # At most a fifth of the whole: it holds few voices.
        some = aligned[: max(3, len(paths) // 5)]
        shards = [*shards, *(corpus.load_shard(path) for path in some)]
    if options.more_steps:
        seed = options.seed + 1
        rate = _LATER_RATE if continued is None else _CONTINUED_RATE
        recogniser.train_recogniser(net, shards, options.more_steps, rate, seed, report)
    heads = train_heads(net, shards[:12], clips, options, report)
    if data is not None and options.distillation_steps:
        paths = babble_distillation.training_clips(data, options.held_out)
        folder = cache / "corpus"
        real = babble_distillation.unlabelled_shards(data, paths, folder, options.seed, report)
        whole = net_of({n: torch.from_numpy(w) for n, w in export.merge_heads(heads).items()})
        speech = babble_distillation.Speech(shards, real)
        babble_distillation.distil(whole, speech, options.distillation_steps, options.seed, report)
        distilled = {n: w for n, w in whole.state_dict().items() if n.split(".")[0] in PARTS}
        net.load_state_dict(distilled, strict=False)
        heads += train_heads(net, shards[:12], clips, replace(options, heads=1), report)
        for name, new in distilled.items():
            mean = _UNDISTILLED_WEIGHT * heads[0][name] + (1 - _UNDISTILLED_WEIGHT) * new.numpy()
            heads = [{**head, name: mean.astype(np.float32)} for head in heads]
        net.load_state_dict({n: torch.from_numpy(w) for n, w in heads[-1].items()})
    weights = export.scale_outputs(export.merge_heads(heads), OUTPUT_GAIN)
    output.mkdir(parents=True, exist_ok=True)
    export.save_encoder(weights, output, {"seed": str(options.seed)})
    accuracy = recogniser.frame_accuracy(net, held)
    return {
        "output": str(output),
        "clips": len(clips),
        "phone_accuracy": [round(value, 3) for value in accuracy],
    }


def load_recogniser(net: EncoderNet, weights: Path) -> None:
    """Load the recogniser of encoder.safetensors. Raises: UsageError for another shape."""
    from safetensors.torch import load_file

    from lipstream.calibration.training.encoder.recogniser import PARTS

    known = {k: w.float() for k, w in load_file(weights).items() if k.split(".")[0] in PARTS}
    missing = net.load_state_dict(known, strict=False).missing_keys
    if any(name.split(".")[0] in PARTS for name in missing):
        raise UsageError(f"{weights}: not an encoder of this shape")


def train_heads(
    net: EncoderNet,
    shards: Sequence[Any],
    clips: Sequence[TalkingClip],
    options: TrainingOptions,
    report: Report,
) -> list[dict[str, F32]]:
    """Expression heads on clips that are not held out; the weights of `net` with each of them."""
    import torch

    from lipstream.calibration.training.clips import held_out, with_offsets
    from lipstream.calibration.training.encoder import expression_head as head
    from lipstream.calibration.training.encoder import sequences
    from lipstream.engine.networks.encoder_torch import EncoderNet

    seen: list[TalkingClip] = []
    if clips:
        held = held_out([clip.speaker for clip in clips], options.held_out)
        seen = [clip for clip, hidden in zip(clips, held, strict=True) if not hidden]
        seen = with_offsets(seen, lambda audio: openness(net, audio), 200)
    people = sequences.real_sequences(net, seen, np.random.default_rng(options.seed))
    spoken = sequences.spoken_sequences(net, shards)
    trained = []
    for seed in range(options.seed, options.seed + options.heads):
        torch.manual_seed(seed)
        fresh = EncoderNet(net.size)
        for part in ("code", "head_gru", "head"):
            getattr(net, part).load_state_dict(getattr(fresh, part).state_dict())
        trainer = head.HeadTrainer(net, people, spoken, head.Weights(), seed)
        trainer.train(options.head_steps, 3e-3, report)
        trained.append({name: w.numpy().copy() for name, w in net.state_dict().items()})
    return trained


def openness(net: EncoderNet, audio: F32) -> F32:
    """Lip opening by the phone table, f32 [steps], at the longest look-ahead."""
    from lipstream.calibration.training.encoder.sequences import features_of, phonetic_state
    from lipstream.calibration.training.speech.phones import PHONES

    posterior = _posterior(phonetic_state(net, features_of(audio)).logits[:, -1].astype(np.float32))
    table = np.array([phone.opening for phone in PHONES], np.float32)
    opening: F32 = posterior @ table
    return opening


def _posterior(logits: F32) -> F32:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    posterior: F32 = raised / raised.sum(-1, keepdims=True)
    return posterior


def _real_shards(
    net: EncoderNet,
    data: Path,
    clips: Sequence[TalkingClip],
    cache: Path,
    options: TrainingOptions,
) -> list[Path]:
    """Real speech with known words, aligned and augmented: 12 shards."""
    from lipstream.calibration.training.clips import held_out
    from lipstream.calibration.training.encoder.sequences import features_of, phonetic_state
    from lipstream.calibration.training.speech import alignment, corpus
    from lipstream.engine.networks.signatures import LOOK_AHEADS_MS

    hidden = {
        clip.name.split("__")[-1]
        for clip, held in zip(
            clips, held_out([clip.speaker for clip in clips], options.held_out), strict=True
        )
        if held
    }
    delay_steps = LOOK_AHEADS_MS[_ALIGNING_HEAD] // 20
    speech: list[tuple[F32, U8]] = []
    for path, text in alignment.labelled_sentences(data):
        if path.stem in hidden:
            continue
        audio = alignment.read_sentence(path)
        padded = np.concatenate([audio, np.zeros(delay_steps * 320, np.float32)])
        logits = phonetic_state(net, features_of(padded)).logits[delay_steps:, _ALIGNING_HEAD]
        posterior = _posterior(logits.astype(np.float32))
        labels, score = alignment.align(np.log(posterior + 1e-9), alignment.phones_of(text))
        if score > alignment.GOOD_SCORE:
            speech.append((audio, labels))
    paths = [
        cache / "corpus" / f"real_{corpus.CORPUS_VERSION}_{options.seed}_{index:02d}.npz"
        for index in range(12)
    ]
    for index, path in enumerate(paths if speech else []):
        if not path.is_file():
            rng = np.random.default_rng((options.seed, index))
            corpus.make_real_shard(speech, path, corpus.SHARD_CLIPS, rng)
    return paths if speech else []
