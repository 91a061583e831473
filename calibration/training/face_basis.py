"""Fits the expression basis and the ARKit maps of the face model that ships, from tracked speech.

    python -m lipstream.calibration.training.face_basis DATA

rewrites them in engine/weights/face_model.safetensors, from the clips below DATA that are not held
out (`clips.HELD_OUT`). It keeps lip motion alone, no pixels and no audio, and is deterministic. The
mean face stays: it is the mean of seven people at rest, on MediaPipe's mesh.

Source: principal components of lower-face motion without pose and identity, ours (10 components
hold 98.9 % of the variance); the mesh is MediaPipe's canonical face (Apache-2.0).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.training.arkit_map import with_arkit
from lipstream.calibration.training.lip_motion import TrackedClip, lip_motion
from lipstream.engine.face.arkit import ARKIT_NAMES, MEDIAPIPE_NAMES, SPOKEN
from lipstream.engine.face.model import VERTICES, FaceModel, face_model
from lipstream.engine.types import F32

COEFFICIENTS = 20  # error on the lips of held-out people: 0.7 % of the inter-ocular distance
_FROM_ARKIT_RIDGE = 1e-3  # in squares of a weight, whose range is 0 to 1


def fit_model(clips: list[TrackedClip], model: FaceModel, size: int) -> FaceModel:
    """The face model with `size` coefficients fitted to clips.

    Mean face, triangles, rigid vertices and weights stay those of `model`: textures and crops of
    the shipped renderer are laid out on them.
    """
    motions, shapes, people = _motions(clips, model.mean, model.rigid)
    basis, spread = _principal(motions, model.weight, people, size)
    model = replace(model, basis=basis, spread=spread)
    expression = model.encode(motions)
    return with_arkit(replace(model, from_arkit=_from_arkit(shapes, expression, people)), clips)


def _motions(
    clips: list[TrackedClip], mean: F32, rigid: NDArray[np.int64]
) -> tuple[F32, F32, list[str]]:
    motions, shapes, people = [], [], []
    for clip in clips:
        motions.append(lip_motion(clip.landmarks, mean, rigid))
        shapes.append(clip.blendshapes)
        people.extend([clip.speaker] * len(motions[-1]))
    return np.concatenate(motions), np.concatenate(shapes).astype(np.float32), people


def _principal(motions: F32, weight: F32, people: list[str], size: int) -> tuple[F32, F32]:
    """Weighted principal components; each person weighs the same, however long their footage."""
    _, person, counts = np.unique(people, return_inverse=True, return_counts=True)
    row = (1.0 / np.sqrt(counts[person])).astype(np.float32)
    flat = (motions * weight[:, None]).reshape(len(motions), -1)
    covariance = (flat * row[:, None]).T @ (flat * row[:, None]) / len(counts)
    values, vectors = np.linalg.eigh(covariance)
    top = vectors[:, ::-1][:, :size].T
    # Where the weight is 0 a component is undefined, and is set to 0.
    basis = top.reshape(size, VERTICES, 3) / np.maximum(weight, 1e-3)[None, :, None]
    basis[:, weight <= 1e-3] = 0
    spread = np.sqrt(values[::-1][:size])
    # The sign of an eigenvector is arbitrary: positive coefficients open the mouth.
    sign = np.sign(basis[:, 14, 1] - basis[:, 13, 1])
    basis *= sign[:, None, None]
    return basis.astype(np.float32), spread.astype(np.float32)


def _from_arkit(shapes: F32, expression: F32, people: list[str]) -> F32:
    """Ridge regression from MediaPipe's weights of jaw and mouth, f32 [K, 52 + 1].

    Each person counts alike. One penalty holds for all weights, whatever their variance: a shape
    that the people of the fit hardly show, as a broad smile, keeps a small coefficient.
    """
    _, person, counts = np.unique(people, return_inverse=True, return_counts=True)
    row = 1.0 / (len(counts) * counts[person])
    used = [MEDIAPIPE_NAMES.index(ARKIT_NAMES[k]) for k in SPOKEN]
    full = np.concatenate([shapes[:, used], np.ones((len(shapes), 1))], 1).astype(np.float64)
    penalty = _FROM_ARKIT_RIDGE * np.diag(np.append(np.ones(len(used)), 0.0))
    square, right = (full.T * row) @ full + penalty, (full.T * row) @ expression
    fitted = np.zeros((expression.shape[1], len(MEDIAPIPE_NAMES) + 1), np.float32)
    fitted[:, [*used, -1]] = np.linalg.solve(square, right).T
    return fitted


def clips_of(data: Path) -> list[TrackedClip]:
    """Track every clip that the model is fitted to."""
    from lipstream.calibration import assets
    from lipstream.calibration.media.video import open_footage
    from lipstream.calibration.tracking.tracker import track
    from lipstream.calibration.training.clips import seen_clips

    clips = []
    for path, speaker in seen_clips(data):
        with open_footage(path) as footage:
            raw = track(footage, lambda _: None, assets.fetch())
        clips.append(TrackedClip(speaker, raw.landmarks[raw.found], raw.blendshapes[raw.found]))
    return clips


def save(model: FaceModel, path: Path) -> None:
    """Write the model; the basis and the ARKit maps in half precision."""
    from safetensors.numpy import save_file

    half = ("basis", "arkit", "from_arkit")
    whole = ("mean", "spread", "weight")
    small = ("triangles", "rigid")
    tensors: dict[str, NDArray[np.generic]] = {}
    tensors |= {name: getattr(model, name).astype(np.float16) for name in half}
    tensors |= {name: getattr(model, name).astype(np.float32) for name in whole}
    tensors |= {name: getattr(model, name).astype(np.int16) for name in small}
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
    path.chmod(0o644)


def main(data: Path) -> None:
    """Fit the face model and write it where the engine reads it."""
    from importlib.resources import files

    model = fit_model(clips_of(data), face_model(), size=COEFFICIENTS)
    save(model, Path(str(files("lipstream.engine.weights") / "face_model.safetensors")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
