"""Fits the map from expressions to ARKit's weights that ships, to MediaPipe's weights of real lips.

    python -m lipstream.calibration.training.arkit_map DATA

rewrites the tensor `arkit` of engine/weights/face_model.safetensors, and no other, from every third
frame of the clips in DATA/video/talkers and of every fifth in DATA/video/grid_s1. It keeps lip
motion alone and is deterministic.

A weight is  clip(a · expression - threshold, 0, 1), its threshold 0 or more: a face at rest has
weights of 0, whatever MediaPipe sees in a person's resting face. Most shapes are absent from most
frames, and a plain regression flattens what it seldom sees. So frames without the shape count only
where the map claims it, as in a censored regression, and frames that show it count several times.
Funnel and pucker, the rounded lips, are maps of three measures alone: opening, width and protrusion
of the lips. They so hold for more people than maps of all coefficients, and for encoded lips, which
round less than filmed ones. Source: ours (docs/experiments/029-arkit-weights.md); censoring after
Tobin (1958).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.training.face_basis import TrackedClip, lip_motion, save, speaker_of
from lipstream.engine.errors import UsageError
from lipstream.engine.face.arkit import ARKIT_NAMES, MEDIAPIPE_NAMES, SPOKEN
from lipstream.engine.face.model import FaceModel, face_model
from lipstream.engine.types import F32, U8

F64 = NDArray[np.float64]

_EVERY_FRAME: Final = 3
_EVERY_CLIP: Final = {"grid_s1": 5, "talkers": 1}  # 80 clips of one man, and a few of each other
_WIDEST_PX: Final = 640
_SPOKEN_IN_MEDIAPIPE: Final = [MEDIAPIPE_NAMES.index(ARKIT_NAMES[k]) for k in SPOKEN]
_RESTING: Final = 0.1  # of the frames, those with the least expression
_SHOWN: Final = 0.01  # weight from which a frame shows a shape
# Added to the weight of a frame that shows a shape as much as the 99th percentile of frames do.
_EMPHASIS: Final = 2.0
_ROUNDED_EMPHASIS: Final = 5.0
_ROUNDED: Final = ("mouthFunnel", "mouthPucker")
_RIDGE: Final = 0.01
_ROUNDS: Final = 40


class Samples(NamedTuple):
    """Frames of one person."""

    expression: F32  # f32 [frames, K]
    weights: F32  # f32 [frames, 27], MediaPipe's of jaw and mouth over those at rest, 0 or more


def samples_of(clips: Sequence[TrackedClip], model: FaceModel) -> dict[str, Samples]:
    """The frames of each person."""
    found: dict[str, tuple[list[F32], list[F32]]] = {}
    for clip in clips:
        expressions, shapes = found.setdefault(clip.speaker, ([], []))
        expressions.append(model.encode(lip_motion(clip.landmarks, model.mean, model.rigid)))
        shapes.append(clip.blendshapes[:, _SPOKEN_IN_MEDIAPIPE])
    people = {}
    for speaker, (expressions, shapes) in found.items():
        expression, seen = np.concatenate(expressions), np.concatenate(shapes)
        size = np.linalg.norm(expression / model.spread, axis=1)
        resting = np.argsort(size, kind="stable")[: max(3, int(_RESTING * len(size)))]
        people[speaker] = Samples(expression, np.maximum(seen - np.median(seen[resting], 0), 0))
    return people


def fit_arkit(people: Mapping[str, Samples], model: FaceModel) -> F32:
    """The map f32 [52, K+1], its last column the thresholds, negative; each person counts alike."""
    x = np.concatenate([one.expression for one in people.values()]).astype(np.float64)
    y = np.concatenate([one.weights for one in people.values()]).astype(np.float64)
    counts = [len(one.weights) for one in people.values()]
    row = np.repeat(1 / np.array(counts), counts)
    spread, measures = model.spread.astype(np.float64), model.lip_rows().astype(np.float64)
    fitted = np.zeros((len(ARKIT_NAMES), model.size + 1))
    for column, shape in enumerate(SPOKEN):
        wanted = y[:, column]
        if wanted.max() <= _SHOWN:  # nobody shows it
            continue
        shown = row * wanted / (np.percentile(wanted, 99) + 1e-3)
        if ARKIT_NAMES[shape] in _ROUNDED:
            weight = row + _ROUNDED_EMPHASIS * shown
            size = np.linalg.norm(measures * spread, axis=1)
            solution = _censored(x @ measures.T, wanted, weight, size)
            fitted[shape] = np.append(solution[:-1] @ measures, solution[-1])
        else:
            fitted[shape] = _censored(x, wanted, row + _EMPHASIS * shown, spread)
    return fitted.astype(np.float32)


def _censored(x: F64, y: F64, weight: F64, spread: F64) -> F64:
    """Map f64 [inputs + 1] to y f64 [rows], where what is below 0 shows as 0."""
    solution = _solve(x, y, weight, spread)
    for _ in range(_ROUNDS):
        counts = (y > _SHOWN) | (x @ solution[:-1] + solution[-1] > 0)
        again = _solve(x[counts], y[counts], weight[counts], spread)
        solution = 0.5 * solution + 0.5 * again
    return solution


def _solve(x: F64, y: F64, weight: F64, spread: F64) -> F64:
    """Ridge regression with a constant of at most 0, f64 [inputs + 1]."""
    full = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    penalty = _RIDGE * weight.sum() * np.append(spread**2, 0.0)
    weighted = full * weight[:, None]
    square, right = weighted.T @ full + np.diag(penalty), weighted.T @ y
    solution: F64 = np.linalg.solve(square, right)
    if solution[-1] > 0:
        solution = np.append(np.linalg.solve(square[:-1, :-1], right[:-1]), 0.0)
    return solution


def with_arkit(model: FaceModel, clips: Sequence[TrackedClip]) -> FaceModel:
    """The model with the map that these clips give."""
    return replace(model, arkit=fit_arkit(samples_of(clips, model), model))


def sampled_clips(data: Path) -> list[TrackedClip]:
    """Every third frame of the clips that the map is fitted to. Raises: UsageError without any."""
    from lipstream.calibration import assets
    from lipstream.calibration.tracking.landmarker import Landmarker

    clips = []
    with Landmarker(assets.fetch()) as landmarker:
        for folder, every in _EVERY_CLIP.items():
            for path in sorted((data / "video" / folder).glob("*"))[::every]:
                seen = [landmarker.faces(picture) for picture in _pictures(path)]
                largest = [max(faces, key=lambda face: face.box[2]) for faces in seen if faces]
                if largest:
                    landmarks = np.stack([face.landmarks for face in largest])
                    shapes = np.stack([face.blendshapes for face in largest])
                    clips.append(TrackedClip(speaker_of(path), landmarks, shapes))
    if not clips:
        raise UsageError(f"{data}: no clips in video/grid_s1 and video/talkers; expected some")
    return clips


def _pictures(path: Path) -> Iterator[U8]:
    """Every third frame, u8 [h, w, 3] RGB, at most 640 px wide."""
    import av

    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % _EVERY_FRAME:
                continue
            if frame.width > _WIDEST_PX:
                height = frame.height * _WIDEST_PX // frame.width // 2 * 2
                frame = frame.reformat(width=_WIDEST_PX, height=height)
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def main(data: Path) -> None:
    """Fit the map and write it into the face model that the engine reads."""
    from importlib.resources import files

    path = Path(str(files("lipstream.engine.weights") / "face_model.safetensors"))
    save(with_arkit(face_model(), sampled_clips(data)), path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
