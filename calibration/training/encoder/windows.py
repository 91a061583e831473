"""Windows of speech for the listener: what it hears, and what the teacher makes of the clean sound.

A window is 8 s. The teacher hears real speech as it was recorded, and synthetic speech dry; the
listener hears each in several versions: clean, and in rooms, through telephones and codecs, with
noise, music and other voices. No words are needed. Windows are kept on disk in shards that the seed
and the data determine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.training.clips import seen_clips
from lipstream.calibration.training.encoder.teacher import EARLY_SAMPLES, WINDOW_LENGTH, Teacher
from lipstream.calibration.training.npz import save_npz
from lipstream.calibration.training.speech import augment, synthesis
from lipstream.calibration.training.speech.alignment import read_sentence
from lipstream.calibration.training.speech.log_mel import log_mel
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, U8

Report = Callable[[str, float], None]

# LJ Speech and LibriTTS are left out: the evaluation uses them.
FOLDERS: Final = ("audio/barista", "audio/vctk", "audio/aishell3", "audio/a2f", "audio/jfk.flac")
_SHARD: Final = 100  # windows
_DAMAGED: Final = 2  # versions of a real window, beside the clean one
_PASSES: Final = 6  # over the real speech, each at other speeds
_RMS: Final = 0.07
_DAMAGE: Final = augment.Augmentation(room=0.4, codec=0.15)
_BABBLE: Final = 0.3  # fraction of the damaged versions
_VERSION: Final = 1  # of the content; part of a shard's file name


@dataclass(frozen=True, slots=True)
class Windows:
    """A shard. `phones` are those of synthetic speech, and empty for real speech."""

    target: NDArray[np.float16]  # f16 [n, WINDOW_TOKENS, TOKEN_WIDTH], the teacher's
    energies: NDArray[np.float16]  # f16 [n, versions, frames, BANDS], log10, not normalised
    phones: U8  # u8 [n, frames], per 10 ms


def real_speech(data: Path, held: Sequence[str]) -> list[list[F32]]:
    """Sounds f32 [n] below `data` by folder: `FOLDERS`, and the clips of people not in `held`."""
    found = [sorted((data / name).glob("*.*")) for name in FOLDERS[:-1]] + [[data / FOLDERS[-1]]]
    by_person: dict[str, list[Path]] = {}
    for path, speaker in seen_clips(data, held):
        by_person.setdefault(speaker, []).append(path)
    folders = [
        [path for path in paths if path.is_file()] for paths in (*found, *by_person.values())
    ]
    return [[read_sentence(path) for path in paths] for paths in folders if paths]


def real_windows(
    speech: list[list[F32]], teacher: Teacher, folder: Path, seed: int, report: Report
) -> list[Path]:
    """Shards of real speech, those already in `folder` kept."""
    voices = [sound for sounds in speech for sound in sounds]
    paths: list[Path] = []
    for turn in range(_PASSES):
        path = folder / f"real_{_VERSION}_{seed}_{turn}.npz"
        paths.append(path)
        if path.is_file():
            continue
        rng = np.random.default_rng((seed, turn))
        targets, energies = [], []
        for early, window in _streams(speech, rng):
            targets.append(teacher(window).astype(np.float16))
            energies.append(_versions(early, voices, rng))
        save_npz(path, _arrays(targets, energies, []))
        report("preparing real speech", (turn + 1) / _PASSES)
    return paths


def _streams(speech: list[list[F32]], rng: np.random.Generator) -> Iterator[tuple[F32, F32]]:
    """Windows of sentences one after the other, each f32 [WINDOW_LENGTH], and the same a little
    early."""
    for sounds in speech:
        pieces = [np.zeros(int(rng.uniform(0, 1.5) * SAMPLE_RATE_HZ), np.float32)]
        for index in rng.permutation(len(sounds)):
            speed = float(np.exp(rng.uniform(np.log(0.84), np.log(1.2))))
            voice = augment.resample_and_equalise(
                sounds[index], SAMPLE_RATE_HZ * speed, rng, augment.DRY
            )
            level = _RMS * 10 ** (rng.normal(0, 3) / 20)
            voice *= np.float32(level / (np.sqrt(np.mean(voice**2)) + 1e-6))
            pause_s = min(2.5, rng.exponential(0.35))
            pieces += [voice, np.zeros(int(pause_s * SAMPLE_RATE_HZ), np.float32)]
        stream = np.concatenate(pieces)
        stream = np.pad(stream, (EARLY_SAMPLES, -len(stream) % WINDOW_LENGTH))
        for first in range(0, len(stream) - WINDOW_LENGTH, WINDOW_LENGTH):
            window = stream[first : first + WINDOW_LENGTH + EARLY_SAMPLES]
            yield window[:WINDOW_LENGTH], window[EARLY_SAMPLES:]


def _versions(early: F32, voices: Sequence[F32], rng: np.random.Generator) -> NDArray[np.float16]:
    """Log energies of a window clean and damaged, f16 [1 + _DAMAGED, frames, BANDS]."""
    level = np.float32(10 ** (rng.normal(0, 6) / 20))
    versions = [log_mel(early * level)]
    for _ in range(_DAMAGED):
        heard = augment.resample_and_equalise(early, SAMPLE_RATE_HZ, rng, _DAMAGE)
        others = _others(voices, rng) if rng.random() < _BABBLE else None
        heard = augment.add_noise(heard, others, rng, _DAMAGE)
        versions.append(log_mel(augment.through_channel(heard, rng, _DAMAGE)))
    return np.stack(versions).astype(np.float16)


def _others(voices: Sequence[F32], rng: np.random.Generator) -> F32:
    """One to six voices at once, f32 [WINDOW_LENGTH]."""
    chosen = [voices[int(rng.integers(len(voices)))] for _ in range(int(rng.integers(1, 7)))]
    return np.sum(
        [
            np.roll(np.resize(v / (v.std() + 1e-6), WINDOW_LENGTH), rng.integers(WINDOW_LENGTH))
            for v in chosen
        ],
        axis=0,
        dtype=np.float32,
    )


def synthetic_windows(
    count: int, teacher: Teacher, folder: Path, seed: int, report: Report
) -> list[Path]:
    """Shards of synthetic speech with its phones, those already in `folder` kept."""
    shards = -(-count // _SHARD)
    paths = [folder / f"synthetic_{_VERSION}_{seed}_{index:02d}.npz" for index in range(shards)]
    for index, path in enumerate(paths):
        report("synthesising speech", index / shards)
        if path.is_file():
            continue
        rng = np.random.default_rng((seed, index))
        first = (seed * shards + index) * _SHARD
        clips = [synthesis.make_clip(first + row, augment.DRY) for row in range(_SHARD)]
        voices = [clip.samples for clip in clips]
        early = [np.pad(voice, (EARLY_SAMPLES, 0))[:WINDOW_LENGTH] for voice in voices]
        targets = [teacher(voice).astype(np.float16) for voice in voices]
        energies = [_versions(voice, voices, rng) for voice in early]
        phones = [clip.phones for clip in clips]
        save_npz(path, _arrays(targets, energies, phones))
    return paths


def _arrays(
    targets: list[NDArray[np.float16]], energies: list[NDArray[np.float16]], phones: list[U8]
) -> dict[str, NDArray[np.generic]]:
    return {
        "target": np.stack(targets),
        "energies": np.stack(energies),
        "phones": np.stack(phones) if phones else np.zeros((0, 0), np.uint8),
    }


def load(path: Path) -> Windows:
    """Read a shard."""
    with np.load(path) as data:
        return Windows(data["target"], data["energies"], data["phones"])
