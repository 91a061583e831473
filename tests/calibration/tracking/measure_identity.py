"""Prints distances of faces within one clip and between people: the table of docs/calibration.md.

    python -m tests.calibration.tracking.measure_identity CLIP [CLIP ...]

A clip whose name begins like another's up to the first "_" in the same folder, or that lies in a
folder named after one person (grid_s1), is of the same person; its distances to that one count as
neither.
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np

from lipstream.calibration.assets import fetch
from lipstream.calibration.tracking.face_identity import SAME_PERSON, describe, distance
from lipstream.calibration.tracking.landmarker import Landmarker

SAMPLES = 16  # frames of each clip, in four parts


def person_of(path: Path) -> str:
    if path.parent.name.startswith("grid_"):
        return path.parent.name
    words = path.stem.split("_")
    if words[0] == "grid":
        return "_".join(words[:3])
    return words[0] if words[0] == "obama" else path.stem


def parts_of(path: Path, landmarker: Landmarker) -> list[np.ndarray]:
    """Mean descriptions of the clip's four quarters, each f32 [4428]."""
    with av.open(str(path)) as container:
        count = sum(1 for _ in container.decode(video=0))
    wanted = set(np.linspace(0, count - 1, SAMPLES).round().astype(int).tolist())
    rows = []
    with av.open(str(path)) as container:
        for k, frame in enumerate(container.decode(video=0)):
            if k in wanted:
                rgb = np.ascontiguousarray(frame.to_ndarray(format="rgb24"))
                faces = sorted(landmarker.faces(rgb), key=lambda face: -face.box[2])
                rows += [describe(rgb, face.landmarks) for face in faces[:1]]
    return [np.mean(part, axis=0, dtype=np.float32) for part in np.array_split(rows, 4)]


def main() -> None:
    """Print one line a clip, and the margin."""
    paths = [Path(name) for name in sys.argv[1:]]
    with Landmarker(fetch()) as landmarker:
        parts = {path: parts_of(path, landmarker) for path in paths}
    within_all, between_all = [], []
    for path, mine in parts.items():
        within = max(distance(a, b) for a in mine for b in mine)
        others = [p for p in paths if person_of(p) != person_of(path)]
        between, nearest = min(
            (distance(a, b), other.stem) for other in others for a in mine for b in parts[other]
        )
        within_all.append(within)
        between_all.append(between)
        print(f"| {path.stem} | {within:.2f} | {between:.2f} ({nearest}) |")
    print(f"largest within {max(within_all):.2f}, limit {SAME_PERSON}, ", end="")
    print(f"smallest between {min(between_all):.2f}")


if __name__ == "__main__":
    main()
