"""Quality of synthesised mouths over a folder of clips, by the measures of `reconstruction`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from lipstream.bench.measure.reconstruction import (
    Method,
    reconstruct_by_voice,
    reconstruct_tracked,
    summary_of,
)
from lipstream.calibration.training.clips import VIDEO_SUFFIXES, find_paintable
from lipstream.calibration.training.renderer.train import kept_target
from lipstream.engine.errors import CalibrationError, UsageError
from lipstream.engine.rendering.refiner import Renderer, load_renderer
from lipstream.engine.target.bundle import Target, load_target
from lipstream.engine.types import SAMPLE_RATE_HZ

Report = Callable[[str, float], None]
LEARNED_SHARE: Final = 0.75  # of a clip, that adaptation uses; the rest is measured
FRAMES: Final = 100
VOICE_S: Final = 20  # of the sound of each clip, at most


@dataclass(frozen=True, slots=True)
class MouthsOptions:
    """What to measure."""

    backend: str = "auto"
    adapt: bool = False  # the renderer to each clip as well: a minute a clip, needs torch
    frames: int = FRAMES  # of each clip, at most, in tracked mode
    cache: Path | None = None


def measure_mouths(
    data: Path, options: MouthsOptions | None = None, report: Report | None = None
) -> tuple[dict[str, Any], dict[str, Mapping[str, Method]]]:
    """Measure the mouths of the clips below `data` that are not training data of the renderer.

    Returns: the figures, with "summary" by mode, method and measure; and the methods by clip, in
    tracked mode, with their close-ups.

    Raises:
        UsageError: `data` holds no such clip, or adapting lacks torch.
        AssetError: the face landmarker is missing.
    """
    from lipstream.calibration.assets import fetch
    from lipstream.calibration.tracking.landmarker import Landmarker
    from lipstream.engine.paths import cache_folder

    options = MouthsOptions() if options is None else options
    report = (lambda what, share: None) if report is None else report
    clips = unseen_clips(data)
    cache = cache_folder() / "mouths" if options.cache is None else options.cache
    cache.mkdir(parents=True, exist_ok=True)
    tracked: dict[str, Mapping[str, Method]] = {}
    voiced: dict[str, Mapping[str, Method]] = {}
    adapted: dict[str, Any] = {}
    with Landmarker(fetch()) as landmarker:
        for index, path in enumerate(clips):
            report(f"reconstructing {path.name}", index / len(clips))
            try:
                target = kept_target(path, cache)
            except CalibrationError:
                continue
            renderers: dict[str, Renderer | None] = {
                "warp": None,
                "renderer": load_renderer("network", options.backend, sharpen=target.sharpen),
            }
            frames, others = range(len(target.track)), dict[str, Target]()
            if options.adapt:
                frames = range(int(len(target.track) * LEARNED_SHARE), len(target.track))
                folder, adapted[path.stem] = _adapted(target, cache)
                own = load_target(folder)
                renderers["adapted"] = load_renderer(
                    "network", options.backend, sharpen=own.sharpen
                )
                others["adapted"] = own
            tracked[path.stem] = reconstruct_tracked(
                target, renderers, landmarker, _spread(frames, options.frames), others
            )
            sound = _sound(path)
            if sound is not None:
                late_s = (target.info.get("av_offset_ms") or 0) / 1000
                voiced[path.stem] = reconstruct_by_voice(
                    target, sound[: VOICE_S * SAMPLE_RATE_HZ], late_s, options.backend
                )
    if not tracked:
        raise UsageError(f"{data}: no clip with a mouth that can be tracked and synthesised")
    figures = {"tracked": summary_of(list(tracked.values()))}
    if voiced:
        figures["voice"] = summary_of(list(voiced.values()))
    result = {
        "clips": {
            name: {key: one.figures() for key, one in methods.items() if key != "real"}
            for name, methods in tracked.items()
        },
        "summary": figures,
        "adapted": adapted,
        "precision": renderers["renderer"].network.precision if renderers["renderer"] else "",
    }
    return result, tracked


def unseen_clips(data: Path) -> list[Path]:
    """Videos below `data` that are not training data of the renderer, by its manifest.json.

    Without a manifest.json, all videos.

    Raises: UsageError when there is none.
    """
    found = sorted(p for p in data.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if (data / "manifest.json").is_file():
        training = {path for path, _ in find_paintable(data)}
        found = [path for path in found if path not in training]
    if not found:
        raise UsageError(f"{data}: no video of a person outside the training data of the renderer")
    return found


def _adapted(target: Target, cache: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of the target, adapted to its first part; and the report of the adaptation."""
    from lipstream.calibration.person.relevance import AdaptOptions, adapt

    folder = cache / f"{target.folder.stem}_adapted.target"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(target.folder, folder)
    figures = adapt(folder, lambda what, share: None, AdaptOptions(used_fraction=LEARNED_SHARE))
    return folder, figures


def _sound(path: Path) -> Any:
    from lipstream.calibration.media.audio import read_sound

    return read_sound(path)


def _spread(frames: Sequence[int], count: int) -> Sequence[int]:
    """At most `count` frames, in runs of neighbours: flicker needs consecutive frames."""
    if len(frames) <= count:
        return frames
    runs = 4
    starts = np.linspace(0, len(frames) - count // runs, runs).astype(int)
    return [frames[start + k] for start in starts for k in range(count // runs)]


def mouths_summary(result: Mapping[str, Any]) -> str:
    """The figures as lines for people."""
    lines = []
    for mode, methods in result["summary"].items():
        for method, measures in methods.items():
            values = ", ".join(_value(name, one) for name, one in measures.items())
            lines.append(f"mouths, {mode}, {method}: {values}")
    return "\n".join(lines)


def _value(name: str, one: Mapping[str, float]) -> str:
    wins = f" (better in {one['wins']:.0%} of frames)" if "wins" in one else ""
    return f"{name} {one['mean']:.3f} ± {one['spread']:.3f}{wins}"
