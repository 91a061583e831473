"""Training sequences of the heads: what the listener makes of a clip, and the lips to predict."""

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
from lipstream.calibration.training.speech.log_mel import features_of
from lipstream.calibration.training.speech.phones import SILENCE
from lipstream.engine.networks.encoder_torch import EncoderNet
from lipstream.engine.networks.signatures import (
    BLOCKS,
    FILE_DELAY_MS,
    FRAMES_PER_STEP,
    LOOK_AHEADS_MS,
    TOKENS_AFTER,
    TOKENS_AFTER_IN_FILE,
)
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, STEP_SAMPLES, U8

UNKNOWN: Final = 255  # a phone target outside the clip
_VARIANTS: Final = 12  # augmented copies of each real clip
_WITH_BABBLE: Final = 0.35  # fraction of them
_AT_ONCE: Final = 8  # clips that pass through the listener


@dataclass(frozen=True, slots=True)
class Hearing:
    """How a head hears: the delays of its outputs, how far the listener looks ahead, and when."""

    name: str
    delays_ms: tuple[int, ...]  # of each output, before the end of its step
    ahead_tokens: int  # of each block
    late_tokens: int  # by which a layer's output comes later than that of the layer before

    def code(self, net: EncoderNet, features: F32) -> NDArray[np.float16]:
        """What the head sees of a clip: f32 [T, FEATURES] to f16 [T, code]."""
        return self.codes(net, features[None])[0]

    def codes(self, net: EncoderNet, features: F32) -> NDArray[np.float16]:
        """What the head sees of clips of one length: f32 [B, T, FEATURES] to f16 [B, T, code]."""
        late = tuple(layer * self.late_tokens for layer in range(BLOCKS + 1))
        found = []
        with torch.no_grad():
            for some in torch.from_numpy(features).split(_AT_ONCE):
                found.append(net.code(net.listener(some, self.ahead_tokens), late).half())
        return torch.cat(found).numpy()

    def times_s(self, steps: int) -> F32:
        """The time that each output of each step belongs to, f32 [steps, outputs]."""
        ends = (np.arange(steps, dtype=np.float32)[:, None] + 1) * 0.02
        times: F32 = (ends - np.array(self.delays_ms) / 1000).astype(np.float32)
        return times


STREAM: Final = Hearing("stream", LOOK_AHEADS_MS, TOKENS_AFTER, TOKENS_AFTER)
FILE: Final = Hearing("file", (FILE_DELAY_MS,), TOKENS_AFTER_IN_FILE, 0)


@dataclass(frozen=True, slots=True)
class RealSequence:
    """A real clip with its tracked expression."""

    code: NDArray[np.float16]  # f16 [T, code]
    target: F32  # f32 [T, L, K]
    known: NDArray[np.bool_]  # bool [T, L]


@dataclass(frozen=True, slots=True)
class SpokenSequence:
    """Speech with the time of every phone, and the lip motion that follows from them."""

    code: NDArray[np.float16]  # f16 [T, code]
    lips: F32  # f32 [T, L, 3], coarticulated
    phones: U8  # u8 [T, L], UNKNOWN outside the clip


def real_sequences(
    net: EncoderNet, hearing: Hearing, clips: Sequence[TalkingClip], rng: np.random.Generator
) -> dict[str, list[RealSequence]]:
    """Each clip as it is and in 12 augmented copies, through the listener, by person."""
    scale = person_scale(clips)
    people: dict[str, list[RealSequence]] = {}
    for clip in clips:
        for variant in range(_VARIANTS + 1):
            audio, speed = clip.audio, 1.0
            if variant:
                speed = float(np.exp(rng.uniform(np.log(0.85), np.log(1.18))))
                audio = augmented(clip.audio, speed, _babble(clip, clips, rng), rng)
            code = hearing.code(net, features_of(audio))
            times_s = hearing.times_s(len(code))
            target, known = _targets(clip, times_s * speed, scale[clip.speaker])
            people.setdefault(clip.speaker, []).append(RealSequence(code, target, known))
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


def augmented(audio: F32, speed: float, babble: F32 | None, rng: np.random.Generator) -> F32:
    """Speech f32 [n] at another speed, in another room, through another channel."""
    how = augment.Augmentation(room=0.4, noise=0.7, equaliser=0.8, telephone=0.1, clip=0.03)
    heard = augment.resample_and_equalise(audio, 16_000 * speed, rng, how)
    if babble is not None:
        babble = np.resize(babble, len(heard))
    heard = augment.add_noise(heard, babble, rng, how)
    return augment.through_channel(heard, rng, how)


def _targets(clip: TalkingClip, audio_s: F32, scale: float) -> tuple[F32, NDArray[np.bool_]]:
    video_s = audio_s - clip.late_s
    known = (video_s >= clip.time_s[0]) & (video_s <= clip.time_s[-1]) & (audio_s >= 0)
    columns = [np.interp(video_s, clip.time_s, column) for column in clip.expression.T]
    target = (scale * np.stack(columns, -1)).astype(np.float32)
    return target, known


def silent_sequences(
    net: EncoderNet, hearing: Hearing, count: int, rng: np.random.Generator
) -> list[SpokenSequence]:
    """Noise, hum, music, breaths and clicks without a voice: lips rest."""
    length = 6 * SAMPLE_RATE_HZ
    time_s = np.arange(length) / SAMPLE_RATE_HZ
    phones = np.full(length // STEP_SAMPLES * FRAMES_PER_STEP, SILENCE, np.uint8)
    sequences = []
    for index in range(count):
        kind = index % 4
        if kind == 0:
            sound = augment.music(length, rng)
        elif kind == 1:
            sound = np.resize(augment.mouth_noise(int(rng.integers(8_000, 32_000)), rng), length)
        elif kind == 2:
            hz = float(rng.uniform(40, 250))
            sound = np.sin(2 * np.pi * hz * time_s).astype(np.float32)
            sound += float(rng.uniform(0.005, 0.1)) * augment.coloured_noise(length, rng)
        else:
            sound = augment.coloured_noise(length, rng)
        level = 10 ** (float(rng.uniform(-60, -15)) / 20)
        sound *= np.float32(level / (np.sqrt(np.mean(sound**2)) + 1e-9))
        code = hearing.code(net, features_of(sound.astype(np.float32)))
        sequences.append(spoken_sequence(code, hearing, phones))
    return sequences


def spoken_sequence(code: NDArray[np.float16], hearing: Hearing, phones: U8) -> SpokenSequence:
    """A clip with its phones, u8 [n] per 10 ms; code f16 [T, code]."""
    times_s = hearing.times_s(len(code))
    frames_s = (np.arange(len(phones)) + 0.5) * 0.01
    track = lip_track(phones)
    lips = np.stack([np.interp(times_s, frames_s, column) for column in track.T], -1)
    index = np.rint(times_s * 100).astype(int)
    heard = phones[np.clip(index, 0, len(phones) - 1)]
    heard[(index < 0) | (index >= len(phones))] = UNKNOWN
    return SpokenSequence(code, lips.astype(np.float32), heard)
