"""Training sequences of the expression head: phonetic states, and the lip motion to predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lipstream.calibration.training.clips import TalkingClip, person_scale
from lipstream.calibration.training.speech import augment
from lipstream.calibration.training.speech.coarticulation import lip_track
from lipstream.calibration.training.speech.corpus import Shard, normalise
from lipstream.engine.networks.encoder_torch import EncoderNet
from lipstream.engine.networks.signatures import BANDS, FRAMES_PER_STEP, LOOK_AHEADS_MS
from lipstream.engine.speech.features import Features, offline_log_mel
from lipstream.engine.types import F32, STEP_SAMPLES, U8

_VARIANTS: Final = 12  # augmented copies of each real clip
_WITH_BABBLE: Final = 0.35  # fraction of them


@dataclass(frozen=True, slots=True)
class PhoneticState:
    """Output of the recogniser for a clip."""

    logits: NDArray[np.float16]  # f16 [T, L, phones]
    hidden: NDArray[np.float16]  # f16 [T, hidden]


@dataclass(frozen=True, slots=True)
class RealSequence(PhoneticState):
    """With the tracked expression of a real clip."""

    target: F32  # f32 [T, L, K]
    known: NDArray[np.bool_]  # bool [T, L]


@dataclass(frozen=True, slots=True)
class SpokenSequence(PhoneticState):
    """With the lip motion and the phones of a synthetic clip."""

    lips: F32  # f32 [T, L, 3], coarticulated
    phones: U8  # u8 [T, L]


def features_of(audio: F32) -> F32:
    """Normalised features of a whole clip, f32 [steps, BANDS * FRAMES_PER_STEP]."""
    whole = len(audio) // STEP_SAMPLES * STEP_SAMPLES
    log_mel = offline_log_mel(Features(), audio[:whole])
    return normalise(log_mel[None])[0].astype(np.float32).reshape(-1, BANDS * FRAMES_PER_STEP)


def phonetic_state(net: EncoderNet, features: F32) -> PhoneticState:
    """Phone logits and hidden state of one clip, from features f32 [steps, BANDS * …]."""
    with torch.no_grad():
        logits, hidden = net.recognise(torch.from_numpy(features.astype(np.float32))[None])
    return PhoneticState(logits[0].half().numpy(), hidden[0].half().numpy())


def real_sequences(
    net: EncoderNet, clips: Sequence[TalkingClip], rng: np.random.Generator
) -> dict[str, list[RealSequence]]:
    """Each clip as it is and in 12 augmented copies, through the frozen recogniser, by person."""
    scale = person_scale(clips)
    people: dict[str, list[RealSequence]] = {}
    for clip in clips:
        for variant in range(_VARIANTS + 1):
            audio, speed = clip.audio, 1.0
            if variant:
                audio, speed = _augmented(clip.audio, _babble(clip, clips, rng), rng)
            state = phonetic_state(net, features_of(audio))
            target, known = _targets(clip, speed, len(state.logits), scale[clip.speaker])
            sequence = RealSequence(state.logits, state.hidden, target, known)
            people.setdefault(clip.speaker, []).append(sequence)
    return people


def _babble(
    clip: TalkingClip, clips: Sequence[TalkingClip], rng: np.random.Generator
) -> F32 | None:
    """Two to five other voices, f32 [samples of the clip] at 16 kHz; None most of the time."""
    others = [other.audio for other in clips if other.speaker != clip.speaker]
    if not others or rng.random() > _WITH_BABBLE:
        return None
    voices = [others[int(rng.integers(len(others)))] for _ in range(int(rng.integers(2, 6)))]
    length = len(clip.audio)
    return np.sum(
        [
            np.roll(np.resize(v / (v.std() + 1e-6), length), int(rng.integers(length)))
            for v in voices
        ],
        axis=0,
        dtype=np.float32,
    )


def _augmented(audio: F32, babble: F32 | None, rng: np.random.Generator) -> tuple[F32, float]:
    speed = float(np.exp(rng.uniform(np.log(0.85), np.log(1.18))))
    how = augment.Augmentation(room=0.4, noise=0.7, equaliser=0.8, telephone=0.1, clip=0.03)
    augmented = augment.resample_and_equalise(audio, 16_000 * speed, rng, how)
    if babble is not None:
        babble = np.resize(babble, len(augmented))
    augmented = augment.add_noise(augmented, babble, rng, how)
    return augment.through_channel(augmented, rng, how), speed


def output_times_s(steps: int) -> F32:
    """The time that each output of each step belongs to, f32 [steps, L]."""
    ends = (np.arange(steps, dtype=np.float32)[:, None] + 1) * 0.02
    times: F32 = (ends - np.array(LOOK_AHEADS_MS) / 1000).astype(np.float32)
    return times


def _targets(
    clip: TalkingClip, speed: float, steps: int, scale: float
) -> tuple[F32, NDArray[np.bool_]]:
    audio_s = output_times_s(steps) * speed
    video_s = audio_s - clip.late_s
    known = (video_s >= clip.time_s[0]) & (video_s <= clip.time_s[-1]) & (audio_s >= 0)
    columns = [np.interp(video_s, clip.time_s, column) for column in clip.expression.T]
    target = (scale * np.stack(columns, -1)).astype(np.float32)
    return target, known


def spoken_sequences(net: EncoderNet, shards: Sequence[Shard]) -> list[SpokenSequence]:
    """Synthetic clips with the coarticulated lip motion of their phones."""
    sequences = []
    for shard in shards:
        for features, phones in zip(shard.features, shard.phones, strict=True):
            state = phonetic_state(net, features.astype(np.float32))
            times_s = output_times_s(len(state.logits))
            frames_s = (np.arange(len(phones)) + 0.5) * 0.01
            track = lip_track(phones)
            lips = np.stack([np.interp(times_s, frames_s, column) for column in track.T], -1)
            index = np.clip((times_s * 100).astype(int), 0, len(phones) - 1)
            sequences.append(
                SpokenSequence(state.logits, state.hidden, lips.astype(np.float32), phones[index])
            )
    return sequences
