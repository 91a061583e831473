"""Accuracy of the shipped encoder: against tracked lips of real people, and against phone labels.

Every figure is of the stage that a profile runs, speech gate included. Clips are tracked as
calibration tracks them; tracks are cached, since that takes minutes. The A/V offset of each clip is
removed, because it is a property of the footage.

On clips: correlation with the tracked lip opening, and the ratio of standard deviations with each
person scaled to one amplitude (1 is as lively as the person). On labelled speech: closure on p b m
and opening on open vowels (`closures`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.bench.measure.closures import grid_closures, labelled_closures
from lipstream.bench.measure.encode_clip import AnyEncoder, encode_clip
from lipstream.calibration.training.clips import (
    HELD_OUT,
    LAGS_S,
    TalkingClip,
    correlation,
    held_out,
    person_scale,
    track_clips,
)
from lipstream.engine.errors import UsageError
from lipstream.engine.networks.signatures import LOOK_AHEADS_MS
from lipstream.engine.speech.encoder import PROFILE_LOOK_AHEAD_MS, Encoder
from lipstream.engine.speech.file_encoder import make_encoder
from lipstream.engine.speech.profiles import FILE, PROFILES
from lipstream.engine.types import F32, SAMPLE_RATE_HZ
from lipstream.streaming.files.audio_file import read_speech

Report = Callable[[str, float], None]
BABBLE_SNR_DB: Final = 10.0
_BABBLERS: Final = 6
NOISY: Final = ("live", FILE)  # profiles that are measured in babble too


def measure_quality(
    data: Path, cache: Path | None = None, backend: str = "auto", report: Report | None = None
) -> dict[str, Any]:
    """All figures for the clips and the labelled speech below `data`.

    Raises: UsageError when `data` holds no clips; AssetError without the face landmarker.
    """
    from lipstream.engine.paths import cache_folder

    report = (lambda what, share: None) if report is None else report
    cache = cache_folder() / "tracks" if cache is None else cache
    clips = track_clips(data, cache, report)
    if not clips:
        raise UsageError(f"{data}: no clip with a face and a voice")
    held = held_out([clip.speaker for clip in clips], HELD_OUT)
    unseen = [clip for clip, hidden in zip(clips, held, strict=True) if hidden]
    scale = person_scale(clips)
    crowd = babble(data)
    profiles: dict[str, AnyEncoder] = {name: make_encoder(name, backend) for name in PROFILES}
    result: dict[str, Any] = {"profiles": {}, "look_aheads": [], "babble": {}, "rest": {}}
    result["clips"] = len(unseen)

    def evaluate(encoder: AnyEncoder, some: Sequence[TalkingClip]) -> list[dict[str, Any]]:
        return [_clip_figures(encoder, clip, scale[clip.speaker]) for clip in some]

    def figures(encoder: AnyEncoder) -> dict[str, Any]:
        return {
            **_by_group(evaluate(encoder, unseen)),
            "closures": labelled_closures(encoder, data),
            "grid_closures": grid_closures(encoder, unseen, data),
        }

    for index, (name, encoder) in enumerate(profiles.items()):
        report(f"measuring the profile {name}", index / len(profiles))
        result["profiles"][name] = figures(encoder)
        result["rest"][name] = rest_figures(encoder)
        if crowd is not None and name in NOISY:
            noisy = [replace(clip, audio=with_babble(clip.audio, crowd)) for clip in unseen]
            result["babble"][name] = {
                **_by_group(evaluate(encoder, noisy)),
                "closures": labelled_closures(encoder, data, partial(with_babble, crowd=crowd)),
            }
    by_look_ahead = {ms: name for name, ms in PROFILE_LOOK_AHEAD_MS.items()}
    for look_ahead_ms in LOOK_AHEADS_MS:
        name = by_look_ahead.get(look_ahead_ms, "")
        found = result["profiles"].get(name) or figures(Encoder(look_ahead_ms, backend))
        result["look_aheads"].append({"look_ahead_ms": look_ahead_ms, **found})
    live = Encoder(PROFILE_LOOK_AHEAD_MS["live"], backend)
    result["step_ms"] = step_ms(live)
    result["backend"] = live.network.name
    return result


def _clip_figures(encoder: AnyEncoder, clip: TalkingClip, scale: float) -> dict[str, Any]:
    encoded = encode_clip(encoder, clip.audio)
    scores = [correlation(encoded.at(clip.time_s + lag)[:, 0], clip.opening) for lag in LAGS_S]
    best = int(np.argmax(scores))
    lips = encoded.at(clip.time_s + float(LAGS_S[best]))
    real = clip.lips
    return {
        "clip": clip.name,
        "speaker": clip.speaker,
        "late_ms": round(1000 * float(LAGS_S[best])),
        "opening_r": scores[best],
        "width_r": correlation(lips[:, 1], real[:, 1]),
        "protrusion_r": correlation(lips[:, 2], real[:, 2]),
        "spread": float(lips[:, 0].std() / (scale * clip.opening.std() + 1e-6)),
    }


def group_of(speaker: str) -> str:
    """What a speaker's clips are: sentences read for GRID, by a person whose other sentences were
    trained on or by one of whom nothing was, or talk as in broadcasts."""
    if speaker == "grid_s1":
        return "read, seen person"
    return "read" if speaker.startswith("grid") else "broadcast"


def _by_group(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the people of each group, a person being the mean of the clips."""
    people = [
        {"speaker": name, **_mean([row for row in rows if row["speaker"] == name])}
        for name in sorted({row["speaker"] for row in rows})
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for person in people:
        groups.setdefault(group_of(person["speaker"]), []).append(person)
    return {
        name: {**_mean(group), "people": {p["speaker"]: p["opening_r"] for p in group}}
        for name, group in groups.items()
    }


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    keys = ("opening_r", "width_r", "protrusion_r", "spread")
    return {k: round(float(np.mean([row[k] for row in rows])), 3) for k in keys}


def babble(data: Path) -> F32 | None:
    """Six people talking at once, f32 [samples]; None where audio/libritts has too few."""
    files = sorted((data / "audio" / "libritts").rglob("*.wav"))
    if len(files) < _BABBLERS:
        return None
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, _BABBLERS).astype(int)]
    voices = [read_speech(path) for path in chosen]
    length = max(len(voice) for voice in voices)
    return np.sum([np.resize(voice / (voice.std() + 1e-9), length) for voice in voices], axis=0)


def with_babble(samples: F32, crowd: F32) -> F32:
    """Speech with babble at BABBLE_SNR_DB over the whole clip, both f32 at 16 kHz."""
    noise = np.resize(crowd, len(samples))
    level = samples.std() / (noise.std() + 1e-9) * 10 ** (-BABBLE_SNR_DB / 20)
    mixed: F32 = np.clip(samples + level * noise, -1, 1).astype(np.float32)
    return mixed


def rest_figures(encoder: AnyEncoder) -> dict[str, float]:
    """Widest opening in 3 s of sounds that are not speech, over the inter-ocular distance."""
    rng = np.random.default_rng(0)
    time_s = np.arange(3 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    white = rng.standard_normal(len(time_s))
    swell = np.clip(np.sin(2 * np.pi * time_s / 1.5), 0, 1)
    sounds = {
        "silence": np.zeros(len(time_s)),
        "white_noise": 0.03 * white,
        "hum": 0.05 * np.sin(2 * np.pi * 100 * time_s) + 0.001 * white,
        "breath": 0.01 * swell * np.convolve(white, [0.5, 0.0, -0.5], "same"),
        "music": 0.05 * _music(time_s),
    }
    return {
        name: round(float(encode_clip(encoder, sound.astype(np.float32)).lips[:, 0].max()), 4)
        for name, sound in sounds.items()
    }


def _music(time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """A chord a second on a plucked instrument, over f64 [n], of about unit power."""
    chords_hz = np.array([[220.0, 277.2, 329.6], [196.0, 246.9, 293.7], [174.6, 220.0, 261.6]])
    hz = chords_hz[time_s.astype(int) % 3]
    fade = np.exp(-2.0 * (time_s % 1.0))
    harmonics = [np.sin(2 * np.pi * k * hz * time_s[:, None]).sum(1) / k for k in range(1, 8)]
    music: NDArray[np.float64] = fade * np.sum(harmonics, axis=0)
    return music


def step_ms(encoder: Encoder) -> float:
    """CPU time of one 20 ms step, ms: the shortest of five runs of 4 s."""
    rng = np.random.default_rng(0)
    samples = (0.05 * rng.standard_normal(4 * SAMPLE_RATE_HZ)).astype(np.float32)
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        encode_clip(encoder, samples)
        best = min(best, time.process_time() - began)
    return round(1000 * best / 204, 3)


def summary(result: dict[str, Any]) -> str:
    """The figures as a table by profile, and lines, for people."""
    profiles = result["profiles"]
    rows = [("", *profiles)]
    for label, group, key in (
        ("opening, read speech", "read", "opening_r"),
        ("opening, broadcast speech", "broadcast", "opening_r"),
        ("width, read speech", "read", "width_r"),
        ("width, broadcast speech", "broadcast", "width_r"),
        ("p b m closed within 60 ms", "closures", "bilabials_closed_60ms"),
        ("open vowels closed, middle half", "closures", "open_vowels_closed_in_the_middle"),
    ):
        rows.append((label, *(_cell(figures, group, key) for figures in profiles.values())))
    for group in ("read", "broadcast"):
        alone = [_figure(figures, group, "opening_r") for figures in profiles.values()]
        among = [_figure(result["babble"].get(n, {}), group, "opening_r") for n in profiles]
        lost = [
            "-" if a is None or b is None else f"{a - b:.3f}"
            for a, b in zip(alone, among, strict=True)
        ]
        rows.append((f"lost in babble at {BABBLE_SNR_DB:g} dB, {group} speech", *lost))
    for sound in ("silence", "breath", "music", "hum", "white_noise"):
        widest = [f"{result['rest'][name][sound]:.3f}" for name in profiles]
        rows.append((f"widest opening in {sound.replace('_', ' ')}", *widest))
    width = max(len(row[0]) for row in rows)
    lines = ["  ".join([row[0].ljust(width), *(f"{cell:>7}" for cell in row[1:])]) for row in rows]
    for row in result["look_aheads"]:
        for group, figures in list(row.items())[1:]:
            values = ", ".join(f"{key} {value}" for key, value in figures.items())
            lines.append(f"{row['look_ahead_ms']:3d} ms ahead, {group}: {values}")
    lines.append(f"CPU per 20 ms step: {result['step_ms']} ms ({result['backend']})")
    return "\n".join(lines)


def _figure(figures: Mapping[str, Any], group: str, key: str) -> float | None:
    value = figures.get(group, {}).get(key)
    return None if value is None else float(value)


def _cell(figures: Mapping[str, Any], group: str, key: str) -> str:
    value = _figure(figures, group, key)
    return "-" if value is None else f"{value:.3f}"
