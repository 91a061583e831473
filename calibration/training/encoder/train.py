"""Trains the encoder that ships: a listener from a teacher, and heads from lips and phone times.

1. Prepare windows of real and of synthetic speech; the teacher hears them clean (`windows`).
2. Distil the teacher into the listener, which hears a stream (`distillation`).
3. Teach a head the phones of the synthetic speech; with it, align real sentences of known words,
   and find the A/V offset of each real clip.
4. Train lip readers on real clips, on what the teacher hears; they read the lips of all other real
   speech (`lip_reader`).
5. Distil the teacher further, with an error in what the readers read.
6. Train the two heads, for a stream and for files, on real lips, on lips that were read, and on
   phone times (`expression_head`).
7. Write encoder.safetensors and encoder.onnx.

Windows, tracks and the listener are cached.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lipstream.calibration.training.clips import HELD_OUT
from lipstream.engine.errors import UsageError
from lipstream.engine.types import F32, U8

if TYPE_CHECKING:
    from lipstream.calibration.training.clips import TalkingClip
    from lipstream.calibration.training.encoder.distillation import Goal
    from lipstream.calibration.training.encoder.sequences import (
        Hearing,
        RealSequence,
        SpokenSequence,
    )
    from lipstream.calibration.training.encoder.teacher import Teacher
    from lipstream.calibration.training.encoder.windows import Windows
    from lipstream.engine.networks.encoder_torch import EncoderNet, Listener

Report = Callable[[str, float], None]

_HEAD_RATE: Final = 3e-3
_ALIGNED_VERSIONS: Final = 3  # of each aligned sentence, in other channels
_SILENT: Final = 200  # clips without a voice
_READ: Final = 1200  # windows of real speech whose lips are read
_PHONE_SHARDS: Final = 4  # of synthetic speech, to align real speech by
_TAPPED_CLIPS: Final = 20  # whose tokens decide what the taps keep


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Amount of training of each part; about 3 h on two cores in all."""

    seed: int = 0
    synthetic: int = 1000  # windows of 8 s
    steps: int = 1100  # of the listener, by the teacher's components alone
    lip_steps: int = 1200  # of the listener, by lip readers as well
    phone_steps: int = 150  # of the head that aligns real speech
    head_steps: int = 380  # more fit the training people better and held-out people worse
    held_out: tuple[str, ...] = HELD_OUT  # people that no training may see

    def __post_init__(self) -> None:
        if (
            min(self.synthetic, self.phone_steps, self.head_steps) <= 0
            or min(self.steps, self.lip_steps) < 0
        ):
            raise UsageError(f"got {self}; expected positive numbers")


def main(
    output: Path,
    data: Path,
    wheel: Path,
    cache: Path | None = None,
    options: TrainingOptions | None = None,
    report: Report | None = None,
    listener: Path | None = None,
) -> dict[str, Any]:
    """Train an encoder and write it into the folder `output`; returns its figures.

    Args:
        output: folder.
        data: folder of clips of people talking and of speech (docs/models.md says what ours holds).
        wheel: the teacher (`teacher.WHEEL`).
        cache: folder for the results of the steps.
        options: the amount of training.
        report: takes the name of a step and the fraction of it that is done.
        listener: encoder.safetensors whose listener is trained further; with 0 steps it is kept as
            it is.

    Raises:
        UsageError: torch, onnx or a synthesiser is missing, or `data` holds no clips.
        AssetError: the face landmarker or the teacher is missing.
    """
    for module in ("torch", "onnx"):
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"training needs {module}; pip install 'lipstream[torch]' onnx")
    import torch

    from lipstream.calibration.training import clips as talking
    from lipstream.calibration.training.encoder import export, lip_reader, windows
    from lipstream.calibration.training.encoder.distillation import (
        Goal,
        Material,
        distil,
        teacher_components,
    )
    from lipstream.calibration.training.encoder.expression_head import HeadTrainer, Weights
    from lipstream.calibration.training.encoder.sequences import (
        FILE,
        STREAM,
        real_sequences,
        silent_sequences,
    )
    from lipstream.calibration.training.encoder.teacher import Teacher
    from lipstream.engine.face.model import face_model
    from lipstream.engine.networks.encoder_torch import EncoderNet, EncoderSize
    from lipstream.engine.paths import cache_folder

    options = TrainingOptions() if options is None else options
    report = (lambda step, fraction: None) if report is None else report
    cache = cache_folder() / "train" if cache is None else cache
    cache.mkdir(parents=True, exist_ok=True)
    teacher, seed = Teacher(wheel), options.seed
    paths = windows.synthetic_windows(options.synthetic, teacher, cache, seed, report)
    synthetic = [windows.load(path) for path in paths]
    speech = windows.real_speech(data, options.held_out)
    paths = windows.real_windows(speech, teacher, cache, seed, report)
    material = Material([windows.load(path) for path in paths], synthetic)
    torch.manual_seed(seed)
    net = EncoderNet(EncoderSize(coefficients=face_model().size))
    net.listener.load_state_dict(earlier_listener(teacher, listener).state_dict())
    components = teacher_components(material.real)
    set_tap(net, -1, components)
    distil(net.listener, Goal(components), material, options.steps, seed, report)
    found = talking.track_clips(data, cache / "tracks", report)
    held = talking.held_out([clip.speaker for clip in found], options.held_out)
    seen = [clip for clip, hidden in zip(found, held, strict=True) if not hidden]
    some = seen[:: max(1, len(seen) // _TAPPED_CLIPS)]
    fit_taps(net, some)
    spoken = spoken_sequences(net, FILE, synthetic[:_PHONE_SHARDS])
    HeadTrainer(net, FILE, {}, spoken, Weights(), seed).train(
        options.phone_steps, _HEAD_RATE, report
    )
    hidden_files = {clip.name for clip, hide in zip(found, held, strict=True) if hide}
    sentences = aligned_sentences(net, data, hidden_files)
    seen = talking.with_offsets(seen, lambda audio: openness(net, audio), FILE.delays_ms[0])
    readers = lip_reader.train_readers(teacher, components, seen, seed, report)
    goal = Goal(components, readers)
    distil(net.listener, goal, material, options.lip_steps, seed + 1, report)
    fit_taps(net, some)
    (cache / "listener").mkdir(exist_ok=True)
    export.save_encoder(net, cache / "listener", {"seed": str(seed)})
    for hearing in (STREAM, FILE):
        rng = np.random.default_rng(seed)
        people = real_sequences(net, hearing, seen, rng)
        read = read_sequences(net, hearing, goal, material.real, rng)
        labelled = [
            *spoken_sequences(net, hearing, synthetic),
            *aligned_sequences(net, hearing, sentences, rng),
            *silent_sequences(net, hearing, _SILENT, rng),
        ]
        torch.manual_seed(seed)
        fresh = EncoderNet(net.size)
        trainer = HeadTrainer(net, hearing, people, labelled, Weights(), seed, read)
        for part in trainer.parts:
            getattr(net, part).load_state_dict(getattr(fresh, part).state_dict())
        trainer.train(options.head_steps, _HEAD_RATE, report)
    output.mkdir(parents=True, exist_ok=True)
    export.save_encoder(net, output, {"seed": str(seed)})
    return {
        "output": str(output),
        "clips": len(seen),
        "sentences": len(sentences),
        "late_ms": {clip.name: round(1000 * clip.late_s) for clip in seen},
    }


def earlier_listener(teacher: Teacher, path: Path | None) -> Listener:
    """The teacher's, or that of an encoder.safetensors."""
    from lipstream.engine.networks.encoder_torch import load_net

    if path is None:
        return teacher.listener
    try:
        return load_net(path).listener
    except KeyError as error:
        raise UsageError(f"{path}: not an encoder of this shape; it lacks {error}") from error


def set_tap(net: EncoderNet, layer: int, components: Any) -> None:
    """Let the heads see these components of a layer."""
    import torch

    with torch.no_grad():
        net.taps[layer].weight.copy_(torch.from_numpy(components.weight))
        net.taps[layer].bias.copy_(torch.from_numpy(components.bias))


def fit_taps(net: EncoderNet, clips: Sequence[TalkingClip]) -> None:
    """Set all taps but the last to principal components of their layers over `clips`."""
    import torch

    from lipstream.calibration.training.encoder.distillation import principal_components
    from lipstream.calibration.training.speech.log_mel import features_of
    from lipstream.engine.networks.signatures import TOKENS_AFTER

    with torch.no_grad():
        heard = [
            net.listener(torch.from_numpy(features_of(clip.audio))[None], TOKENS_AFTER)
            for clip in clips
        ]
    for layer, width in enumerate(net.size.taps[:-1]):
        tokens = torch.cat([layers[layer][0] for layers in heard]).numpy()
        set_tap(net, layer, principal_components(tokens, width))


def spoken_sequences(
    net: EncoderNet, hearing: Hearing, shards: Sequence[Windows]
) -> list[SpokenSequence]:
    """Synthetic speech with the coarticulated lip motion of its phones."""
    from lipstream.calibration.training.encoder.sequences import spoken_sequence
    from lipstream.calibration.training.speech.log_mel import normalise
    from lipstream.engine.networks.signatures import FEATURES

    sequences = []
    for shard in shards:
        versions = shard.energies.shape[1]
        heard = normalise(shard.energies.reshape(-1, *shard.energies.shape[2:]))
        codes = hearing.codes(net, heard.reshape(len(heard), -1, FEATURES))
        for index, code in enumerate(codes):
            sequences.append(spoken_sequence(code, hearing, shard.phones[index // versions]))
    return sequences


def read_sequences(
    net: EncoderNet,
    hearing: Hearing,
    goal: Goal,
    shards: Sequence[Windows],
    rng: np.random.Generator,
) -> list[RealSequence]:
    """Real speech without a camera, one version of each of _READ windows, with lips as read."""
    from lipstream.calibration.training.encoder.lip_reader import read_sequence, read_windows
    from lipstream.calibration.training.speech.log_mel import normalise
    from lipstream.engine.networks.signatures import FEATURES

    sequences = []
    for shard in shards:
        chosen = rng.permutation(len(shard.target))[: _READ // len(shards)]
        versions = rng.integers(shard.energies.shape[1], size=len(chosen))
        heard = normalise(shard.energies[chosen, versions])
        lips = read_windows(goal, shard.target[chosen])
        codes = hearing.codes(net, heard.reshape(len(heard), -1, FEATURES))
        for code, expression in zip(codes, lips, strict=True):
            sequences.append(read_sequence(code, hearing, expression))
    return sequences


def aligned_sentences(net: EncoderNet, data: Path, hidden: set[str]) -> list[tuple[F32, U8]]:
    """Real speech f32 [n] with its phones u8 per 10 ms, aligned by the head for files; `hidden`:
    names of clips to leave out."""
    from lipstream.calibration.training.clips import clip_name
    from lipstream.calibration.training.encoder.sequences import FILE
    from lipstream.calibration.training.speech import alignment

    delay_steps = FILE.delays_ms[0] // 20
    speech: list[tuple[F32, U8]] = []
    for path, text in alignment.labelled_sentences(data):
        if clip_name(path, data) in hidden:
            continue
        audio = alignment.read_sentence(path)
        posterior = phone_posterior(net, np.pad(audio, (0, delay_steps * 320)))[delay_steps:]
        labels, score = alignment.align(np.log(posterior + 1e-9), alignment.phones_of(text))
        if score > alignment.GOOD_SCORE:
            speech.append((audio, labels))
    return speech


def aligned_sequences(
    net: EncoderNet,
    hearing: Hearing,
    sentences: Sequence[tuple[F32, U8]],
    rng: np.random.Generator,
) -> list[SpokenSequence]:
    """Aligned sentences in several channels, with the lip motion of their phones."""
    from lipstream.calibration.training.encoder.sequences import augmented, spoken_sequence
    from lipstream.calibration.training.speech.log_mel import features_of

    sequences = []
    for audio, phones in sentences:
        for _ in range(_ALIGNED_VERSIONS):
            code = hearing.code(net, features_of(augmented(audio, 1.0, None, rng)))
            sequences.append(spoken_sequence(code, hearing, phones))
    return sequences


def phone_posterior(net: EncoderNet, audio: F32) -> F32:
    """Of the head for files, f32 [steps, phones]."""
    import torch

    from lipstream.calibration.training.encoder.sequences import FILE
    from lipstream.calibration.training.speech.log_mel import features_of

    code = torch.from_numpy(FILE.code(net, features_of(audio))).float()[None]
    with torch.no_grad():
        logits, _ = net.express_file(code)
    posterior: F32 = logits[0, :, 0].softmax(-1).numpy()
    return posterior


def openness(net: EncoderNet, audio: F32) -> F32:
    """Lip opening by the phone table, f32 [steps], delayed as the head for files is."""
    from lipstream.calibration.training.speech.phones import PHONES

    table = np.array([phone.opening for phone in PHONES], np.float32)
    opening: F32 = phone_posterior(net, audio) @ table
    return opening
