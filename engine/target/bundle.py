"""The target bundle: what calibration leaves and every session reads.

    NAME.target/
      target.json            schema, size, rate, provenance, consent, sha256 of every other file
      track.safetensors      geometry, pose, expression, landmarks, quality of every frame
      frames.mjpeg           the footage, any frame at once
      sources.safetensors    mouth source crops, and which of them look alike
      appearance.safetensors what the mouth looks like, by what is known of a frame
      jumps.safetensors      the best places to cut from each frame
      report.html            for people

Loading runs no code and trusts no number: names, sizes, checksums, shapes, ranges and offsets are
checked before any is used.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import TargetError
from lipstream.engine.face.model import VERTICES, Pose, face_model
from lipstream.engine.rendering.refiner import SHARPEN, SHARPEN_ALONE, shipped_model
from lipstream.engine.retrieval.source_selector import MouthSources
from lipstream.engine.target.appearance import TEXTURE_SHAPE, Appearance
from lipstream.engine.target.frames import FrameReader
from lipstream.engine.target.oral_cavity import Mouth
from lipstream.engine.target.similarity import MouthSimilarity, by_shape
from lipstream.engine.target.sources import MouthSource
from lipstream.engine.target.style import Style
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, I32, U8

SCHEMA_VERSION: Final = 2
MAX_FRAMES: Final = 100_000
MAX_SIDE_PX: Final = 4096
MAX_SOURCES: Final = 512
_MAX_FEATURES: Final = 64
_MAX_LEARNED: Final = 4096
_MAX_COMPONENTS: Final = 64
_REQUIRED = ("track.safetensors", "frames.mjpeg", "sources.safetensors", "jumps.safetensors")
_OPTIONAL = ("appearance.safetensors", "report.html")
_MAX_JSON_BYTES = 1 << 20
_MAX_TENSOR_BYTES = 1 << 31


@dataclass(frozen=True, slots=True)
class Target:
    """A calibrated person, validated and ready."""

    folder: Path
    kind: str  # "video" or "photo"
    width: int  # px
    height: int  # px
    fps: Fraction
    track: Track
    style: Style
    frames: FrameReader
    sources: tuple[MouthSource, ...]
    source_frames: I32  # i32 [S], the track frame each source was cut from
    similarity: MouthSimilarity | None  # which mouths look alike; None where it was not measured
    appearance: Appearance | None  # what mouths look like; None where it was not learned
    jumps: tuple[I32, F32]  # targets i32 [N, M] and costs f32 [N, M]
    sharpen: float  # how much the renderer sharpens for this person
    info: dict[str, Any]  # target.json as read


def load_target(folder: str | Path) -> Target:
    """Read and check a bundle.

    Raises:
        TargetError: it is not a bundle, or a file or field of it is missing, damaged or absurd;
            the message names which.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TargetError(
            f"{folder}: not a target bundle (a folder named NAME.target); "
            "make one with `lipstream calibrate VIDEO -o NAME.target`"
        )
    info = _read_info(folder / "target.json")
    width, height = _whole(info, "width", 16, MAX_SIDE_PX), _whole(info, "height", 16, MAX_SIDE_PX)
    if width % 2 or height % 2:
        raise TargetError(f"target.json: size {width}x{height} must be even")
    fps = _rate(info)
    _check_files(folder, info)
    track, offsets, style = _read_track(folder, width, height)
    frames_path = folder / "frames.mjpeg"
    if offsets[-1] != frames_path.stat().st_size:
        raise TargetError("track.safetensors: frame_offsets do not end where frames.mjpeg ends")
    sources, source_frames, similarity = _read_sources(folder, track)
    appearance = _read_appearance(folder, info, similarity, len(sources))
    kind = info.get("kind")
    if kind not in ("video", "photo"):
        raise TargetError(f"target.json: kind is {kind!r}, expected 'video' or 'photo'")
    return Target(
        folder, kind, width, height, fps, track, style,
        FrameReader(frames_path, offsets, width, height),
        sources, source_frames, similarity, appearance, _read_jumps(folder, len(track)),
        _sharpen(info, SHARPEN if appearance else SHARPEN_ALONE), info,
    )  # fmt: skip


def mouth_sources(target: Target) -> MouthSources:
    """What the source search chooses from."""
    track, kept, model = target.track, target.source_frames, face_model()
    similarity = target.similarity or by_shape(
        track.expression, track.pose.angles_deg(), kept, model
    )
    opens = model.lip_rows()[0]
    return MouthSources(kept, track.expression[kept], similarity, target.appearance, opens)


def _sharpen(info: dict[str, Any], usual: float) -> float:
    """As calibration found it for the weights that ship; photos have none, and what was found for
    other weights says nothing of these."""
    value = info.get("sharpen", usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 4:
        raise TargetError(f"target.json: sharpen is {value!r}, expected 0 to 4")
    return float(value) if info.get("sharpen_for") == _shipped_weights() else usual


@cache
def _shipped_weights() -> str:
    """sha256 of the universal renderer; of a package without it, none."""
    path = shipped_model().safetensors
    return sha256_of(path) if path.is_file() else ""


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_info(path: Path) -> dict[str, Any]:
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_JSON_BYTES:
            raise TargetError(f"{path.name}: a link, or larger than 1 MiB; not a bundle of ours")
        info = json.loads(path.read_text("utf8"))
    except OSError as error:
        raise TargetError(f"{path.name}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise TargetError(f"{path.name}: not valid JSON; the bundle is damaged") from error
    if not isinstance(info, dict):
        raise TargetError(f"{path.name}: holds a {type(info).__name__}, expected an object")
    version = info.get("schema_version")
    if version != SCHEMA_VERSION:
        raise TargetError(
            f"{path.name}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}; "
            "calibrate the footage again"
        )
    return info


def _whole(info: dict[str, Any], field: str, low: int, high: int) -> int:
    value = info.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise TargetError(f"target.json: {field} is {value!r}, expected {low} to {high}")
    return value


def _rate(info: dict[str, Any]) -> Fraction:
    text = info.get("fps")
    if not isinstance(text, str) or not re.fullmatch(r"\d{1,6}(/\d{1,6})?", text):
        raise TargetError(f"target.json: fps is {text!r}, expected a fraction such as '30000/1001'")
    number, _, divisor = text.partition("/")
    if int(divisor or 1) == 0 or not 5 <= Fraction(int(number), int(divisor or 1)) <= 120:
        raise TargetError(f"target.json: fps is {text!r}, expected 5 to 120")
    return Fraction(text)


def _check_files(folder: Path, info: dict[str, Any]) -> None:
    listed = info.get("files")
    if not isinstance(listed, dict):
        raise TargetError("target.json: files is missing")
    unknown = set(listed) - set(_REQUIRED) - set(_OPTIONAL)
    if unknown:
        raise TargetError(f"target.json: files names {sorted(unknown)[0]!r}, no part of a bundle")
    for name in _REQUIRED:
        if name not in listed:
            raise TargetError(f"target.json: files does not name {name}")
    for name, entry in listed.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise TargetError(f"{name}: missing, or not a plain file")
        if not isinstance(entry, dict) or entry.get("bytes") != path.stat().st_size:
            raise TargetError(f"{name}: size differs from target.json; the bundle is damaged")
        if entry.get("sha256") != sha256_of(path):
            raise TargetError(f"{name}: sha256 differs from target.json; the bundle is damaged")


def _tensors(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / name
    if path.stat().st_size > _MAX_TENSOR_BYTES:
        raise TargetError(f"{name}: larger than 2 GiB")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise TargetError(f"{name}: not a valid safetensors file ({error})") from error


def _take(
    tensors: dict[str, NDArray[Any]],
    file: str,
    field: str,
    dtype: type[np.generic],
    shape: tuple[int | None, ...],
) -> NDArray[Any]:
    value = tensors.get(field)
    if value is None:
        raise TargetError(f"{file}: {field} is missing")
    fits = len(value.shape) == len(shape) and all(
        want is None or want == got for want, got in zip(shape, value.shape, strict=True)
    )
    if value.dtype != dtype or not fits:
        raise TargetError(
            f"{file}: {field} is {value.dtype} {value.shape}, expected {np.dtype(dtype)} {shape}"
        )
    if np.issubdtype(dtype, np.floating) and not np.isfinite(value).all():
        raise TargetError(f"{file}: {field} holds a NaN or an infinity")
    return value


def _bounded(value: NDArray[Any], file: str, field: str, low: float, high: float) -> None:
    if value.size and (value.min() < low or value.max() > high):
        raise TargetError(f"{file}: {field} is outside {low:g} to {high:g}")


def _read_track(folder: Path, width: int, height: int) -> tuple[Track, NDArray[np.int64], Style]:
    file = "track.safetensors"
    data = _tensors(folder, file)
    size = face_model().size
    landmarks = _take(data, file, "landmarks", np.float32, (None, VERTICES, 3))
    frames = len(landmarks)
    if not 1 <= frames <= MAX_FRAMES:
        raise TargetError(f"{file}: {frames} frames, expected 1 to {MAX_FRAMES}")
    far = 8.0 * max(width, height)
    _bounded(landmarks, file, "landmarks", -far, far)
    scale = _take(data, file, "scale", np.float32, (frames,))
    _bounded(scale, file, "scale", 1.0, far)
    rotation = _take(data, file, "rotation", np.float32, (frames, 3, 3))
    _bounded(rotation, file, "rotation", -1.001, 1.001)
    translation = _take(data, file, "translation", np.float32, (frames, 3))
    _bounded(translation, file, "translation", -far, far)
    expression = _take(data, file, "expression", np.float32, (frames, size))
    _bounded(expression, file, "expression", -100, 100)
    geometry = _take(data, file, "geometry", np.float32, (VERTICES, 3))
    _bounded(geometry, file, "geometry", -10, 10)
    usable = _take(data, file, "usable", np.uint8, (frames,)) > 0
    if not usable.any():
        raise TargetError(f"{file}: usable names no frame")
    paintable = _take(data, file, "paintable", np.uint8, (frames,)) > 0
    speed = _take(data, file, "head_speed", np.float32, (frames,))
    _bounded(speed, file, "head_speed", 0, 1e5)
    offsets = _take(data, file, "frame_offsets", np.int64, (frames + 1,))
    if offsets[0] != 0 or (np.diff(offsets) <= 0).any():
        raise TargetError(f"{file}: frame_offsets must begin at 0 and grow")
    rest = _take(data, file, "rest", np.float32, (size,))
    _bounded(rest, file, "rest", -20, 20)
    gain = _take(data, file, "gain", np.float32, (1,))
    _bounded(gain, file, "gain", 0.1, 10)
    speaking = _take(data, file, "speaking", np.float32, (size,))
    _bounded(speaking, file, "speaking", -20, 20)
    mouth = _take(data, file, "mouth", np.float32, (5,))
    _bounded(mouth, file, "mouth", -10, 10)
    pose = Pose(scale, rotation, translation)
    track = Track(landmarks, pose, expression, geometry, usable, paintable, speed)
    teeth = Mouth(float(mouth[0]), float(mouth[1]), mouth[2:])
    return track, offsets, Style(rest, float(gain[0]), speaking, teeth)


def _read_sources(
    folder: Path, track: Track
) -> tuple[tuple[MouthSource, ...], I32, MouthSimilarity | None]:
    file = "sources.safetensors"
    data = _tensors(folder, file)
    frames = _take(data, file, "frames", np.int32, (None,))
    count = len(frames)
    if not 1 <= count <= MAX_SOURCES:
        raise TargetError(f"{file}: {count} sources, expected 1 to {MAX_SOURCES}")
    _bounded(frames, file, "frames", 0, len(track) - 1)
    sizes = _take(data, file, "sizes", np.int32, (count, 2))
    _bounded(sizes, file, "sizes", 4, MAX_SIDE_PX)
    origins = _take(data, file, "origins", np.float32, (count, 2))
    _bounded(origins, file, "origins", -MAX_SIDE_PX, MAX_SIDE_PX)
    zooms = _take(data, file, "zooms", np.float32, (count,))
    _bounded(zooms, file, "zooms", 0.01, 1.0)
    pixels: U8 = _take(data, file, "pixels", np.uint8, (None,))
    lengths = sizes[:, 0].astype(np.int64) * sizes[:, 1] * 3
    if int(lengths.sum()) != len(pixels):
        raise TargetError(f"{file}: pixels do not fill the stated sizes")
    ends = np.cumsum(lengths)
    found = []
    for i in range(count):
        crop = pixels[ends[i] - lengths[i] : ends[i]].reshape(int(sizes[i, 0]), int(sizes[i, 1]), 3)
        origin = (float(origins[i, 0]), float(origins[i, 1]))
        found.append(MouthSource(crop, origin, float(zooms[i]), track.placement(int(frames[i]))))
    return tuple(found), frames, _similarity(data, file, count, track)


def _similarity(
    data: dict[str, NDArray[Any]], file: str, sources: int, track: Track
) -> MouthSimilarity | None:
    """None in bundles of photos, of short footage, and of before it was measured."""
    if "projection" not in data:
        return None
    size = track.expression.shape[1]
    projection = _take(data, file, "projection", np.float32, (None, size))
    frame_offset = _take(data, file, "frame_offset", np.float32, (len(track), len(projection)))
    descriptors = _take(data, file, "source_descriptors", np.float32, (sources, None))
    for field, value in (
        ("projection", projection),
        ("frame_offset", frame_offset),
        ("source_descriptors", descriptors),
    ):
        _bounded(value, file, field, -1e4, 1e4)
    if max(len(projection), descriptors.shape[1]) > _MAX_FEATURES:
        raise TargetError(f"{file}: more than {_MAX_FEATURES} features of a mouth")
    return MouthSimilarity(projection, frame_offset, descriptors)


def _read_appearance(
    folder: Path, info: dict[str, Any], similarity: MouthSimilarity | None, sources: int
) -> Appearance | None:
    """None in bundles of photos, of short footage, and of before it was learned as it is now."""
    file = "appearance.safetensors"
    if file not in info["files"] or similarity is None:
        return None
    data = _tensors(folder, file)
    relevance = _take(data, file, "relevance", np.float32, (len(similarity.projection),))
    _bounded(relevance, file, "relevance", 0, 1e4)
    features = _take(data, file, "features", np.float32, (len(similarity.projection), None))
    frames = features.shape[1]
    weights = _take(data, file, "weights", np.float32, (frames, None))
    count = weights.shape[1]
    if not (1 <= frames <= _MAX_LEARNED and count <= _MAX_COMPONENTS):
        raise TargetError(
            f"{file}: {count} components of {frames} frames, expected at most "
            f"{_MAX_COMPONENTS} of 1 to {_MAX_LEARNED}"
        )
    length_scale = _take(data, file, "length_scale", np.float32, (count,))
    _bounded(length_scale, file, "length_scale", 1e-6, 1e6)
    textures = _take(data, file, "textures", np.float16, (1 + count, *TEXTURE_SHAPE, 3)).astype(
        np.float32
    )
    coefficients = _take(data, file, "sources", np.float32, (sources, count))
    for field, value in (
        ("features", features), ("weights", weights), ("textures", textures),
        ("sources", coefficients),
    ):  # fmt: skip
        _bounded(value, file, field, -1e6, 1e6)
    distance = _take(data, file, "reference_distance", np.float32, (1,))
    _bounded(distance, file, "reference_distance", 1e-6, 1e6)
    return Appearance(
        relevance, features, length_scale, weights, textures, coefficients, float(distance[0])
    )


def _read_jumps(folder: Path, frames: int) -> tuple[I32, F32]:
    file = "jumps.safetensors"
    data = _tensors(folder, file)
    targets = _take(data, file, "targets", np.int32, (frames, None))
    if targets.shape[1] > 256:
        raise TargetError(f"{file}: {targets.shape[1]} jumps a frame, expected at most 256")
    _bounded(targets, file, "targets", -1, frames - 1)
    costs = _take(data, file, "costs", np.float32, targets.shape)
    _bounded(costs, file, "costs", 0, 1e9)
    return targets, costs
