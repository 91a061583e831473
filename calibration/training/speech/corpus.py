"""The synthetic corpus on disk: log-mel features and phones, in shards that their seeds determine.

A new process makes each shard, because espeak-ng carries state from one utterance to the next: the
same seed in a new process gives the same shard, bit for bit.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.training.npz import save_npz
from lipstream.calibration.training.speech import augment, synthesis
from lipstream.engine.networks.signatures import BANDS, FRAMES_PER_STEP, LOOK_AHEADS_MS
from lipstream.engine.speech.features import Features, offline_log_mel
from lipstream.engine.types import F32, U8

SHARD_CLIPS: Final = 100
CORPUS_VERSION: Final = 2  # of the content for a seed; part of a shard's file name
CLIP_FRAMES: Final = synthesis.CLIP_SAMPLES // synthesis.PHONE_HOP_SAMPLES
UNKNOWN: Final = 255  # a phone target before the clip began


@dataclass(frozen=True, slots=True)
class Shard:
    """Clips ready to train on."""

    log_mel: NDArray[np.float16]  # f16 [clips, frames, BANDS], not normalised
    features: NDArray[np.float16]  # f16 [clips, steps, BANDS * FRAMES_PER_STEP], normalised
    phones: U8  # u8 [clips, frames], per 10 ms
    voices: tuple[str, ...]  # of each clip; "" if unknown
    targets: U8  # u8 [clips, steps, look-aheads], the phone of each output


def make_shard(job: tuple[int, Path]) -> Path:
    """Synthesise and save the shard of one seed; to be called in a fresh process."""
    seed, path = job
    features = Features()
    log_mel = np.zeros((SHARD_CLIPS, CLIP_FRAMES, BANDS), np.float16)
    phones = np.zeros((SHARD_CLIPS, CLIP_FRAMES), np.uint8)
    voices = []
    for index in range(SHARD_CLIPS):
        clip = synthesis.make_clip(seed * SHARD_CLIPS + index)
        log_mel[index] = offline_log_mel(features, clip.samples)
        phones[index] = clip.phones
        voices.append(clip.voice)
    save_shard(path, log_mel, phones, voices)
    return path


def make_corpus(
    folder: Path, hours: float, seed: int, report: Callable[[str, float], None]
) -> list[Path]:
    """Shards of about `hours` of speech; those already in `folder` are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds = SHARD_CLIPS * CLIP_FRAMES * 0.01
    count = max(2, round(hours * 3600 / seconds))
    paths = [folder / f"speech_{CORPUS_VERSION}_{seed}_{index:04d}.npz" for index in range(count)]
    jobs = [
        (seed * 100_000 + index, path) for index, path in enumerate(paths) if not path.is_file()
    ]
    context = multiprocessing.get_context("spawn")
    with context.Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        for done, _ in enumerate(pool.imap_unordered(make_shard, jobs, chunksize=1)):
            report("synthesising speech", done / len(jobs))
    return paths


def make_real_shard(
    speech: list[tuple[F32, U8]], path: Path, clips: int, rng: np.random.Generator
) -> None:
    """Save a shard of `clips` augmentations of aligned real speech, f32 [samples] with u8 phones
    per 10 ms."""
    features = Features()
    length = synthesis.CLIP_SAMPLES
    log_mel = np.zeros((clips, CLIP_FRAMES, BANDS), np.float16)
    phones = np.zeros((clips, CLIP_FRAMES), np.uint8)
    how = augment.Augmentation()
    centres = (np.arange(CLIP_FRAMES) + 0.5) * synthesis.PHONE_HOP_SAMPLES
    for index in range(clips):
        samples = np.zeros(length, np.float32)
        speed = float(np.exp(rng.uniform(np.log(0.85), np.log(1.18))))
        which = int(rng.integers(len(speech)))
        at = int(rng.uniform(-8000, 8000))
        while at < length:
            audio, labels = speech[which]
            voice = augment.resample_and_equalise(audio, 16_000 * speed, rng, augment.DRY)
            voice *= np.float32(0.1) / (np.sqrt(np.mean(voice**2, dtype=np.float32)) + 1e-6)
            first, last = max(0, at), min(length, at + len(voice))
            if last > first:
                samples[first:last] += voice[first - at : last - at]
            frames = ((centres - at) * speed / synthesis.PHONE_HOP_SAMPLES).astype(int)
            inside = (frames >= 0) & (frames < len(labels)) & (centres >= at)
            phones[index][inside] = labels[frames[inside]]
            at += len(voice) + int(rng.exponential(0.2) * 16_000)
            # Neighbours in the list are mostly of one speaker.
            which = int(np.clip(which + rng.integers(-2, 3), 0, len(speech) - 1))
        samples = augment.resample_and_equalise(samples, 16_000, rng, how)
        others = _babble(speech, length, rng) if rng.random() < how.babble else None
        samples = augment.add_noise(samples, others, rng, how)
        samples = augment.through_channel(samples, rng, how)
        log_mel[index] = offline_log_mel(features, samples)
    save_shard(path, log_mel, phones, [""] * clips)


def _babble(speech: list[tuple[F32, U8]], length: int, rng: np.random.Generator) -> F32:
    """Three to six sentences at once, f32 [length]."""
    chosen = rng.integers(len(speech), size=int(rng.integers(3, 7)))
    voices = [np.roll(np.resize(speech[i][0], length), int(rng.integers(length))) for i in chosen]
    return np.sum([voice / (voice.std() + 1e-6) for voice in voices], axis=0, dtype=np.float32)


def save_shard(path: Path, log_mel: NDArray[np.float16], phones: U8, voices: Sequence[str]) -> None:
    """Write a shard, whole or not at all."""
    save_npz(path, {"log_mel": log_mel, "phones": phones, "voices": np.array(voices)})


def load_shard(path: Path) -> Shard:
    """Read a shard and normalise it as the stream would be."""
    with np.load(path) as data:
        log_mel, phones, voices = data["log_mel"], data["phones"], data["voices"]
    normal = normalise(log_mel)
    steps = normal.reshape(len(normal), -1, BANDS * FRAMES_PER_STEP)
    return Shard(log_mel, steps, phones, tuple(voices.tolist()), phone_targets(phones))


def normalise(log_mel: NDArray[np.float16] | F32) -> NDArray[np.float16]:
    """The causal normalisation over many clips at once, [clips, frames, BANDS]."""
    normaliser = Features().normaliser
    state = normaliser.init((len(log_mel),))
    normal = np.empty(log_mel.shape, np.float16)
    for frame in range(log_mel.shape[1]):
        row, state = normaliser.step(state, log_mel[:, frame].astype(np.float32))
        normal[:, frame] = row
    return normal


def phone_targets(phones: U8) -> U8:
    """The phone of the output of each step and look-ahead, UNKNOWN before the clip."""
    steps = phones.shape[1] // FRAMES_PER_STEP
    targets = np.full((len(phones), steps, len(LOOK_AHEADS_MS)), UNKNOWN, np.uint8)
    for column, look_ahead_ms in enumerate(LOOK_AHEADS_MS):
        frames = FRAMES_PER_STEP * (np.arange(steps) + 1) - look_ahead_ms // 10 - 1
        known = frames >= 0
        targets[:, known, column] = phones[:, frames[known]]
    return targets
