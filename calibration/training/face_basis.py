"""Fits the face model that ships: expression basis, mean face and ARKit maps, from tracked speech.

    python -m lipstream.calibration.training.face_basis DATA

makes engine/weights/face_model.safetensors from the clips under DATA/video/grid_s1 and
DATA/video/talkers. It keeps lip motion alone, no pixels and no audio, and is deterministic. Other
people's clips in DATA are left for tests.

Source: principal components of lower-face motion without pose and identity, ours (10 components
hold 98.9 % of the variance); the mesh is MediaPipe's canonical face (Apache-2.0), read from the
landmarker asset.
"""

from __future__ import annotations

import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.fitting.canonical import neutral_face, to_canonical_units
from lipstream.engine.face.arkit import ARKIT_NAMES, MEDIAPIPE_NAMES
from lipstream.engine.face.model import VERTICES, FaceModel, fit_pose
from lipstream.engine.types import F32, I32

COEFFICIENTS = 20  # error on the lips of held-out people: 0.5 % of the inter-ocular distance


@dataclass(frozen=True, slots=True)
class TrackedClip:
    """The tracked frames of one clip of one person."""

    speaker: str
    landmarks: F32  # f32 [frames, 478, 3], px
    blendshapes: F32  # f32 [frames, 52]


def canonical_mesh(asset: Path) -> tuple[F32, I32]:
    """Vertices f32 [468, 3] (unit: inter-ocular distance, y down) and triangles i32 [898, 3]."""
    raw = zipfile.ZipFile(asset).read("geometry_pipeline_metadata_landmarks.binarypb")
    mesh = next(payload for number, payload in _fields(raw) if number == 1)
    vertices: list[float] = []
    indices: list[int] = []
    for number, payload in _fields(mesh):
        if number == 3:
            vertices.extend(np.frombuffer(payload, "<f4").tolist())
        elif number == 4:
            indices.extend(_varints(payload))
    position = np.asarray(vertices, np.float32).reshape(VERTICES, 5)[:, :3]
    position = position * np.array([1, -1, -1], np.float32)
    return to_canonical_units(position), np.asarray(indices, np.int32).reshape(-1, 3)


def mouth_weight(mean: F32) -> F32:
    """Weight of each vertex, f32 [468]: 1 on the lips, less with distance, 0 above the nose."""
    mouth = mean[[13, 14]].mean(0)
    distance = np.linalg.norm((mean - mouth)[:, :2] * np.array([1.0, 0.9]), axis=1)
    near = np.clip(1.25 - distance / 0.85, 0.15, 1.0)
    nose = mean[2, 1]
    below = np.clip((mean[:, 1] - nose + 0.25) / 0.25, 0.0, 1.0)
    return (near * below).astype(np.float32)


def fit_model(clips: list[TrackedClip], asset: Path, size: int) -> FaceModel:
    """Fit the universal face model with `size` coefficients."""
    from lipstream.calibration.training.arkit_map import with_arkit

    canonical, triangles = canonical_mesh(asset)
    mean, rigid = _mean_face(clips, canonical)
    weight = mouth_weight(mean)
    motions, shapes, people = _motions(clips, mean, rigid)
    basis, spread = _principal(motions, weight, people, size)
    model = FaceModel(
        mean, basis, spread, triangles, rigid, weight,
        np.zeros((len(ARKIT_NAMES), size + 1), np.float32),
        np.zeros((size, len(MEDIAPIPE_NAMES) + 1), np.float32),
    )  # fmt: skip
    expression = model.encode(motions)
    return with_arkit(replace(model, from_arkit=_ridge(shapes, expression)), clips)


def _mean_face(clips: list[TrackedClip], canonical: F32) -> tuple[F32, NDArray[np.int64]]:
    """Mean neutral face over people, and the vertices that do not move within any clip."""
    nose_base = canonical[2, 1]
    rigid = np.flatnonzero(canonical[:, 1] < nose_base - 0.1)
    mean = canonical
    for _ in range(3):
        by_person: dict[str, list[F32]] = {}
        stray = np.zeros(VERTICES)
        for clip in clips:
            free = fit_pose(clip.landmarks, mean, rigid).remove(clip.landmarks[:, :VERTICES])
            by_person.setdefault(clip.speaker, []).append(neutral_face(free))
            stray += free.std(0)[:, :2].sum(1) / len(clips)
        people = [np.mean(v, axis=0) for v in by_person.values()]
        mean = to_canonical_units(np.mean(people, axis=0).astype(np.float32))
        above = np.flatnonzero(mean[:, 1] < mean[2, 1] - 0.05)
        rigid = above[stray[above] <= np.percentile(stray[above], 55)]
    return mean, rigid


def _motions(
    clips: list[TrackedClip], mean: F32, rigid: NDArray[np.int64]
) -> tuple[F32, F32, list[str]]:
    motions, shapes, people = [], [], []
    for clip in clips:
        motions.append(lip_motion(clip.landmarks, mean, rigid))
        shapes.append(clip.blendshapes)
        people.extend([clip.speaker] * len(motions[-1]))
    return np.concatenate(motions), np.concatenate(shapes).astype(np.float32), people


def lip_motion(landmarks: F32, mean: F32, rigid: NDArray[np.int64]) -> F32:
    """Motion of the lower face in one clip, f32 [frames, 468, 3]; landmarks f32 [frames, ≥468, 3].

    The pose is removed, and the person's own neutral face taken off.
    """
    neutral = mean
    for _ in range(2):  # better geometry gives a better pose
        free = fit_pose(landmarks, neutral, rigid).remove(landmarks[:, :VERTICES])
        neutral = neutral_face(free)
    lower = np.clip((mean[:, 1] - mean[2, 1] + 0.35) / 0.25, 0, 1)
    motion: F32 = (free - neutral) * lower[None, :, None]
    return motion


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


def _ridge(x: F32, y: F32, strength: float = 1e-3) -> F32:
    """Ridge map y ≈ [x, 1] · Aᵀ, f32 [outputs, inputs + 1]."""
    full = np.concatenate([x, np.ones((len(x), 1), np.float32)], 1).astype(np.float64)
    penalty = strength * len(x) * np.diag(np.append(full[:, :-1].var(0) + 1e-9, 0.0))
    return np.linalg.solve(full.T @ full + penalty, full.T @ y).T.astype(np.float32)


def _varints(raw: bytes) -> list[int]:
    values, value, shift = [], 0, 0
    for byte in raw:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            values.append(value)
            value, shift = 0, 0
    return values


def _fields(raw: bytes) -> list[tuple[int, bytes]]:
    """Top-level fields of a protocol-buffer message as (number, payload)."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    while at < len(raw):
        key = varint()
        number, wire = key >> 3, key & 7
        if wire == 2:
            length = varint()
            found.append((number, raw[at : at + length]))
            at += length
        elif wire == 0:
            start = at
            varint()
            found.append((number, raw[start:at]))
        else:
            width = 4 if wire == 5 else 8
            found.append((number, raw[at : at + width]))
            at += width
    return found


def clips_of(data: Path) -> list[TrackedClip]:
    """Track every clip that the model is fitted to."""
    from lipstream.calibration import assets
    from lipstream.calibration.media.video import open_footage
    from lipstream.calibration.tracking.tracker import track

    clips = []
    for folder in ("grid_s1", "talkers"):
        for path in sorted((data / "video" / folder).iterdir()):
            with open_footage(path) as footage:
                raw = track(footage, lambda _: None, assets.fetch())
            landmarks, shapes = raw.landmarks[raw.found], raw.blendshapes[raw.found]
            clips.append(TrackedClip(speaker_of(path), landmarks, shapes))
    return clips


def speaker_of(path: Path) -> str:
    """Who speaks in a clip of grid_s1 or of talkers."""
    if path.parent.name == "grid_s1":
        return path.parent.name
    # grid_NAME_LETTER_sentence: two people
    return path.stem.rsplit("_", 1)[0] if path.stem.startswith("grid_") else path.stem


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

    from lipstream.calibration import assets

    model = fit_model(clips_of(data), assets.fetch(), size=COEFFICIENTS)
    save(model, Path(str(files("lipstream.engine.weights") / "face_model.safetensors")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
