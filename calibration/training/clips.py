"""Real clips of people talking: tracked lip motion with audio.

Each clip is tracked once and cached. The A/V offset of real footage is 0 to 260 ms, so it is
estimated before a clip is used for training.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.training.npz import save_npz
from lipstream.engine.errors import LipstreamError, UsageError
from lipstream.engine.face.model import face_model
from lipstream.engine.types import F32, SAMPLE_RATE_HZ

log = logging.getLogger(__name__)

LAGS_S: Final = np.arange(-0.10, 0.3001, 0.01)  # the range of real clips, with a margin
_USUAL_LAG_S: Final = 0.06
_DOUBT_PER_S: Final = 0.5
VIDEO_SUFFIXES: Final = frozenset(
    {".mp4", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".avi", ".m4v"}
)
_MIN_AUDIO_S: Final = 0.5
_TRACKING: Final = b"2"  # version of the tracking; part of the cache key
_HELD_EVERY: Final = 5
_MANY: Final = 20  # clips; of people with as many, every fifth is held out
# People without whom the shipped models are trained: those to develop and to measure on.
HELD_OUT: Final = (
    "grid_drpato_A", "grid_drpato_B", "hdtf_man_a_60s_256", "latentsync_demo3", "may_5s_512",
    "vretalk_2", "vretalk_5",
)  # fmt: skip
TYPICAL_OPENING: Final = 0.25  # 95th percentile of each person's opening after scaling
_SCALE_RANGE: Final = (0.6, 2.0)


@dataclass(frozen=True, slots=True)
class TalkingClip:
    """One tracked clip of one person."""

    name: str
    speaker: str
    expression: F32  # f32 [frames, K]
    opening: F32  # f32 [frames], inter-ocular distances, of the landmarks
    time_s: NDArray[np.float64]  # f64 [frames], of the video
    audio: F32  # f32 [samples], mono 16 kHz, sample 0 at time 0 of the video
    late_s: float = 0.0  # A/V offset: the audio of video time t lies at t + late_s

    @property
    def lips(self) -> F32:
        """Lip opening, width and protrusion by the face model, f32 [frames, 3]."""
        rows: F32 = self.expression @ face_model().lip_rows().T
        return rows


def find_clips(data: Path) -> list[tuple[Path, str]]:
    """Video files below `data`, or its folder "video" where there is one, and the speaker of each.

    A file straight under a folder named "video", or in one named "talkers", belongs to the person
    its name begins with; any other folder is one person. Files that a manifest.json reserves for
    tests are left out.

    Raises: UsageError when there is no video.
    """
    if not data.is_dir():
        raise UsageError(f"{data} is not a folder; expected one with video clips of people talking")
    reserved = _reserved(data)
    found = []
    folder = data / "video" if (data / "video").is_dir() else data
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES):
        if path.relative_to(data).as_posix() in reserved:
            continue
        found.append((path, _speaker(path)))
    if not found:
        raise UsageError(f"{data} holds no video; expected clips of people talking")
    return found


def find_paintable(data: Path) -> list[tuple[Path, str]]:
    """Those of `find_clips` whose pixels may be trained on: a manifest.json can reserve clips for
    lip motion."""
    reserved = _reserved(data, ("tests", "lip motion"))
    return [
        (path, speaker)
        for path, speaker in find_clips(data)
        if path.relative_to(data).as_posix() not in reserved
    ]


def _speaker(path: Path) -> str:
    folder = path.parent.name
    if folder == "video":
        return path.stem.split("_")[0]
    if folder == "talkers":  # the last part numbers the sentences of the GRID speakers only
        return path.stem.rsplit("_", 1)[0] if path.stem.startswith("grid_") else path.stem
    return folder


def _reserved(data: Path, uses: tuple[str, ...] = ("tests",)) -> set[str]:
    manifest = data / "manifest.json"
    if not manifest.is_file():
        return set()
    entries = json.loads(manifest.read_text())
    return {entry["file"] for entry in entries if str(entry.get("use", "")).startswith(uses)}


def clip_name(path: Path, data: Path) -> str:
    """The name of a clip below `data`."""
    return path.relative_to(data).with_suffix("").as_posix().replace("/", "__")


def held_out(speakers: Sequence[str], people: Sequence[str]) -> list[bool]:
    """Whether each clip, given by its speaker, is held out of training: all of `people`, and every
    fifth of people with many clips."""
    held = []
    for index, speaker in enumerate(speakers):
        clips = [i for i, other in enumerate(speakers) if other == speaker]
        fifth = len(clips) >= _MANY and clips.index(index) % _HELD_EVERY == _HELD_EVERY - 1
        held.append(speaker in people or fifth)
    return held


def seen_clips(data: Path, people: Sequence[str] = HELD_OUT) -> list[tuple[Path, str]]:
    """Those of `find_clips` that are not held out."""
    found = find_clips(data)
    held = held_out([speaker for _, speaker in found], people)
    return [clip for clip, hide in zip(found, held, strict=True) if not hide]


def track_clips(data: Path, cache: Path, report: Callable[[str, float], None]) -> list[TalkingClip]:
    """Every clip below `data`, tracked or from `cache`; clips without audio are left out."""
    cache.mkdir(parents=True, exist_ok=True)
    found = find_clips(data)
    clips = []
    for index, (path, speaker) in enumerate(found):
        report(f"tracking {path.name}", index / len(found))
        try:
            clip = _tracked(path, speaker, data, cache)
        except LipstreamError as error:
            log.warning("clip left out: %s", error)
            continue
        if clip is not None:
            clips.append(clip)
    return clips


def _tracked(path: Path, speaker: str, data: Path, cache: Path) -> TalkingClip | None:
    name = clip_name(path, data)
    model = face_model()
    digest = hashlib.sha256(path.read_bytes() + model.basis.tobytes() + _TRACKING)
    kept = cache / f"{name}_{digest.hexdigest()[:16]}.npz"
    if not kept.is_file():
        save_npz(kept, _track(path))
    with np.load(kept) as saved:
        loaded = {key: saved[key] for key in saved.files}
    if len(loaded["audio"]) < _MIN_AUDIO_S * SAMPLE_RATE_HZ:
        return None
    return TalkingClip(
        name, speaker, loaded["expression"], loaded["opening"], loaded["time_s"], loaded["audio"]
    )


def _track(path: Path) -> dict[str, NDArray[np.generic]]:
    from lipstream.calibration import assets
    from lipstream.calibration.fitting.factorise import factorise, openings
    from lipstream.calibration.media.audio import read_sound
    from lipstream.calibration.media.video import open_footage
    from lipstream.calibration.tracking.rejection import reject_frames, usable
    from lipstream.calibration.tracking.tracker import track

    sound = read_sound(path)
    with open_footage(path) as footage:
        fps = footage.fps
        raw = track(footage, lambda _: None, assets.fetch())
    good = usable(raw, reject_frames(raw))
    if not good.any():
        good = raw.found
    fitted = factorise(raw.landmarks, raw.cuts, good, raw.found, fps, face_model())
    return {
        "expression": fitted.expression,
        "opening": openings(fitted),
        "time_s": np.arange(raw.frames) / float(fps),
        "audio": np.zeros(0, np.float32) if sound is None else sound,
    }


def at_frames(values: F32, look_ahead_ms: int, clip: TalkingClip, late_s: float) -> F32:
    """Values f32 [steps] of an output with a look-ahead, interpolated at the clip's frames."""
    time_s = 0.02 * (np.arange(len(values)) + 1) - look_ahead_ms / 1000
    read: F32 = np.interp(clip.time_s + late_s, time_s, values).astype(np.float32)
    return read


def correlation(a: F32, b: F32) -> float:
    """Pearson correlation; 0 if one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-12))


def best_lag(values: F32, look_ahead_ms: int, clip: TalkingClip) -> tuple[float, float]:
    """The A/V offset, s, of best correlation between `values` and the lip opening, and that."""
    scores = [
        correlation(at_frames(values, look_ahead_ms, clip, float(lag)), clip.opening)
        for lag in LAGS_S
    ]
    # A short clip can correlate by chance at a far lag: a quarter of a second has to gain 0.12.
    doubt = _DOUBT_PER_S * np.abs(LAGS_S - _USUAL_LAG_S)
    best = int(np.argmax(np.array(scores) - doubt))
    return float(LAGS_S[best]), scores[best]


def with_offsets(
    clips: Sequence[TalkingClip], openness: Callable[[F32], F32], look_ahead_ms: int
) -> list[TalkingClip]:
    """The clips with A/V offsets; `openness` maps audio to f32 [steps] at `look_ahead_ms`.

    All clips of a person with many have the median of their offsets: one camera, one microphone.
    """
    lags = [best_lag(openness(clip.audio), look_ahead_ms, clip)[0] for clip in clips]
    placed = []
    for clip, lag in zip(clips, lags, strict=True):
        of_speaker = [x for c, x in zip(clips, lags, strict=True) if c.speaker == clip.speaker]
        late_s = float(np.median(of_speaker)) if len(of_speaker) >= _MANY else lag
        placed.append(replace(clip, late_s=late_s))
    return placed


def person_scale(clips: Sequence[TalkingClip]) -> dict[str, float]:
    """Factor that scales each person's 95th percentile of opening to TYPICAL_OPENING."""
    scale = {}
    for speaker in {clip.speaker for clip in clips}:
        opening = np.concatenate([c.opening for c in clips if c.speaker == speaker])
        factor = TYPICAL_OPENING / max(float(np.percentile(opening, 95)), 1e-3)
        scale[speaker] = float(np.clip(factor, *_SCALE_RANGE))
    return scale
