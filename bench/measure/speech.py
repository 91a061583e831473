"""Accuracy of the shipped encoder: against tracked lips of real people, and against phone labels.

Every figure is of the streaming stage, speech gate included. Clips are tracked as calibration
tracks them; tracks are cached, since that takes minutes. The A/V offset of each clip is removed,
because it is a property of the footage.

On clips: correlation with the tracked lip opening, and the ratio of standard deviations with each
person scaled to one amplitude (1 is as lively as the person). On labelled speech: closure on p b m
and opening on open vowels (`closures`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from lipstream.bench.measure.closures import grid_closures, labelled_closures
from lipstream.bench.measure.encode_clip import encode_clip
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
from lipstream.engine.types import F32, SAMPLE_RATE_HZ
from lipstream.streaming.files.audio_file import read_speech

Report = Callable[[str, float], None]
BABBLE_SNR_DB: Final = 10.0
_BABBLERS: Final = 6


def measure_quality(
    data: Path, cache: Path | None = None, backend: str = "auto", report: Report | None = None
) -> dict[str, Any]:
    """All figures for the clips and the labelled speech below `data`.

    Raises: UsageError when `data` holds no clips; AssetError without the face landmarker.
    """
    from lipstream.calibration.assets import cache_folder

    report = (lambda what, share: None) if report is None else report
    cache = cache_folder() / "tracks" if cache is None else cache
    clips = track_clips(data, cache, report)
    if not clips:
        raise UsageError(f"{data}: no clip with a face and a voice")
    held = held_out([clip.speaker for clip in clips], HELD_OUT)
    unseen = [clip for clip, hidden in zip(clips, held, strict=True) if hidden]
    scale = person_scale(clips)
    encoders = {ms: Encoder(ms, backend) for ms in LOOK_AHEADS_MS}
    profiles = {ms: name for name, ms in PROFILE_LOOK_AHEAD_MS.items()}
    result: dict[str, Any] = {"profiles": {}, "look_aheads": [], "clips": len(unseen)}

    def evaluate(encoder: Encoder, some: Sequence[TalkingClip]) -> list[dict[str, Any]]:
        return [_clip_figures(encoder, clip, scale[clip.speaker]) for clip in some]

    for index, (look_ahead_ms, encoder) in enumerate(encoders.items()):
        report(f"measuring {look_ahead_ms} ms of look-ahead", index / len(encoders))
        rows = evaluate(encoder, unseen)
        figures: dict[str, Any] = _by_speaker(rows)
        figures["closures"] = labelled_closures(encoder, data)
        figures["grid_closures"] = grid_closures(encoder, unseen, data)
        result["look_aheads"].append({"look_ahead_ms": look_ahead_ms, **figures})
        if look_ahead_ms in profiles:
            result["profiles"][profiles[look_ahead_ms]] = figures
        if profiles.get(look_ahead_ms) == "live":
            result["each"] = rows
    live = encoders[PROFILE_LOOK_AHEAD_MS["live"]]
    crowd = babble(data)
    if crowd is not None:
        noisy = [replace(clip, audio=with_babble(clip.audio, crowd)) for clip in unseen]
        result["babble"] = {
            **_by_speaker(evaluate(live, noisy)),
            "closures": labelled_closures(live, data, lambda s: with_babble(s, crowd)),
        }
    result["rest"] = rest_figures(live)
    result["step_ms"] = step_ms(live)
    result["backend"] = live.network.name
    return result


def _clip_figures(encoder: Encoder, clip: TalkingClip, scale: float) -> dict[str, Any]:
    encoded = encode_clip(encoder, clip.audio)
    # The clips of GRID share one recording set-up, whose A/V offset is 0.
    lags = np.array([0.0]) if clip.speaker.startswith("grid") else LAGS_S
    scores = [correlation(encoded.at(clip.time_s + lag)[:, 0], clip.opening) for lag in lags]
    best = int(np.argmax(scores))
    lips = encoded.at(clip.time_s + float(lags[best]))
    real = clip.lips
    return {
        "clip": clip.name,
        "speaker": clip.speaker,
        "late_ms": round(1000 * float(lags[best])),
        "opening_r": scores[best],
        "width_r": correlation(lips[:, 1], real[:, 1]),
        "protrusion_r": correlation(lips[:, 2], real[:, 2]),
        "spread": float(lips[:, 0].std() / (scale * clip.opening.std() + 1e-6)),
    }


def _by_speaker(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    speakers = sorted({row["speaker"] for row in rows})
    return {name: _mean([row for row in rows if row["speaker"] == name]) for name in speakers}


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    keys = ("opening_r", "width_r", "protrusion_r", "spread")
    return {"clips": len(rows), **{k: round(float(np.mean([r[k] for r in rows])), 3) for k in keys}}


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


def rest_figures(encoder: Encoder) -> dict[str, float]:
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
    }
    return {
        name: round(float(encode_clip(encoder, sound.astype(np.float32)).lips[:, 0].max()), 4)
        for name, sound in sounds.items()
    }


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
    """The figures as lines for people."""
    lines = []
    for row in result["look_aheads"]:
        for group, figures in list(row.items())[1:]:
            values = ", ".join(f"{key} {value}" for key, value in figures.items())
            lines.append(f"{row['look_ahead_ms']:3d} ms ahead, {group}: {values}")
    for group, figures in result.get("babble", {}).items():
        values = ", ".join(f"{key} {value}" for key, value in figures.items())
        lines.append(f"live, babble at {BABBLE_SNR_DB:g} dB, {group}: {values}")
    rest = ", ".join(f"{key} {value}" for key, value in result["rest"].items())
    lines.append(f"opening without speech: {rest}")
    lines.append(f"CPU per 20 ms step: {result['step_ms']} ms ({result['backend']})")
    return "\n".join(lines)
