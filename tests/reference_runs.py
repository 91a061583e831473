"""Five reference runs: frames that must stay byte for byte the same, and the time of their stages.

    python tests/reference_runs.py run FOLDER --data DATA     calibrate, run, write FOLDER/runs.json
    python tests/reference_runs.py compare FOLDER FOLDER      frames equal? stage times as ratios

A change that should not alter the picture is compared with the commit before it: `run` in a
checkout of each, each into a folder of its own, then `compare`. Targets are calibrated by the
checkout that is measured and kept in FOLDER, so a second `run` only measures. DATA holds the real
clips (a folder `video` with `grid_s1`, `talkers` and `obama_*.mp4`). Times are medians of the
stages' own times; two checkouts are compared fairly only when they run in turn on one machine, so
`run` adds to what FOLDER already holds.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

import lipstream

SPEECH_S = 6.0
RUNS: dict[str, dict[str, Any]] = {
    "photo_live": {"footage": "demo", "profile": "live"},
    "footage_matched_live": {"footage": "talkers/may_5s_512.mp4", "profile": "live"},
    "footage_sequential_studio_384": {
        "footage": "obama_yemen_red_tie.mp4",
        "profile": "studio",
        "background": "sequential",
        "crop_resolution": 384,
    },
    "footage_low_warp_only": {
        "footage": "talkers/latentsync_demo3.mp4",
        "profile": "low",
        "renderer": "none",
    },
    "short_footage_native": {
        "footage": "grid_s1/bbaf4p.mpg",
        "profile": "live",
        "backend": "native",
    },
}
CHUNK_SAMPLES = 1_237  # no multiple of a step: the cutting must not matter


def target_of(folder: Path, footage: str, data: Path) -> Path:
    """The calibrated target, made once."""
    bundle = folder / f"{Path(footage).stem}.target"
    if bundle.is_dir():
        return bundle
    if footage == "demo":
        from lipstream.calibration.demo import build_demo_target

        made = build_demo_target(folder)
        return made if made == bundle else made.rename(bundle)
    from lipstream.cli import run

    code = run(["calibrate", str(data / "video" / footage), "-o", str(bundle)])
    if code:
        raise SystemExit(f"calibrating {footage} ended with {code}")
    return bundle


def speech(folder: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The demo's speech, f32 mono 16 kHz."""
    from lipstream.calibration.demo import demo_speech

    with_reader = _module("streaming.files.audio_file", "streaming.files.audio_file")
    sound = demo_speech(folder)
    samples = with_reader.read_speech(sound)
    return np.asarray(samples[: int(SPEECH_S * 16_000)], np.float32)


def measure(folder: Path, data: Path, repeats: int) -> dict[str, Any]:
    """Hashes and stage times of every run."""
    profiling = _module("engine.profiling", "engine.profiling")
    found: dict[str, Any] = {}
    for name, options in RUNS.items():
        options = dict(options)
        target = lipstream.load_target(target_of(folder, options.pop("footage"), data))
        engine = lipstream.Engine(target, **options)
        sound, hashes, times = speech(folder), set(), {}
        for _ in range(repeats):
            digest, session = hashlib.sha256(), engine.session()
            frames = 0
            with profiling.recording(profiling.Recorder()) as recorder:
                for start in range(0, len(sound), CHUNK_SAMPLES):
                    for frame in session.push(sound[start : start + CHUNK_SAMPLES]):
                        digest.update(frame.i420.tobytes())
                        frames += 1
                for frame in session.flush():
                    digest.update(frame.i420.tobytes())
                    frames += 1
            for span in recorder.take():
                label = span.stage if hasattr(span, "stage") else span.name
                times.setdefault(label, []).append(span.own_ns / 1e6)
            hashes.add(digest.hexdigest())
        if len(hashes) != 1:
            raise SystemExit(f"{name}: the same run gave different frames")
        found[name] = {
            "frames": frames,
            "sha256": hashes.pop(),
            "ms_per_frame": {k: sum(v) / (frames * repeats) for k, v in times.items()},
        }
        sys.stdout.write(f"{name} {frames} frames {found[name]['sha256'][:16]}\n")
    return found


def compare(before: Path, after: Path) -> int:
    """Print both; 1 if a frame differs."""
    old, new = (json.loads((folder / "runs.json").read_text()) for folder in (before, after))
    different = [n for n in RUNS if {r[n]["sha256"] for r in old} != {r[n]["sha256"] for r in new}]
    for name in RUNS:
        state = "DIFFERENT" if name in different else "the same"
        sys.stdout.write(f"{name}: {old[0][name]['frames']} frames, {state}\n")
        for stage in sorted(old[0][name]["ms_per_frame"]):
            a, b = (
                statistics.median(r[name]["ms_per_frame"].get(stage, float("nan")) for r in runs)
                for runs in (old, new)
            )
            sys.stdout.write(f"    {stage:12} {a:8.3f} ms -> {b:8.3f} ms  x {b / a:.3f}\n")
    return 1 if different else 0


def _module(*names: str) -> Any:
    """The first of these modules of lipstream that there is: older checkouts have other names."""
    for name in names:
        try:
            return importlib.import_module(f"lipstream.{name}")
        except ModuleNotFoundError:
            continue
    raise SystemExit(f"none of {names} in this checkout")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("folder", type=Path)
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--repeats", type=int, default=1)
    both = commands.add_parser("compare")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "compare":
        return compare(options.before, options.after)
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "runs.json"
    kept = json.loads(path.read_text()) if path.is_file() else []
    kept.append(measure(options.folder, options.data, options.repeats))
    path.write_text(json.dumps(kept, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
