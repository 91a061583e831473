"""The target bundle: what calibration leaves and every session reads.

    NAME.target/
      target.json            schema, size, rate, provenance, consent, sha256 of every other file
      track.safetensors      geometry, pose, expression, landmarks, quality of every frame
      frames.mjpeg           the footage, with random access to its frames
      sources.safetensors    crops of the mouth sources, and features to compare them by
      appearance.safetensors a model of mouth textures, optional
      jumps.safetensors      the best cuts from each frame, and their costs
      report.html            the calibration report, optional

Loading runs no code and trusts no number: names, sizes, checksums, shapes, ranges and offsets are
checked before any is used (`bundle_checks`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import AssetError, TargetError
from lipstream.engine.face.model import VERTICES, Pose, face_model
from lipstream.engine.networks.registry import shipped
from lipstream.engine.paths import refuse_address
from lipstream.engine.target.appearance import TEXTURE_SHAPE, Appearance
from lipstream.engine.target.bundle_checks import (
    check_files,
    check_range,
    frame_rate,
    read_info,
    read_tensors,
    sha256_of,
    tensor,
    whole_number,
)
from lipstream.engine.target.consent import Consent, read_consent, require_consent
from lipstream.engine.target.frames import FrameReader
from lipstream.engine.target.observed_mouth import with_observed
from lipstream.engine.target.oral_cavity import Mouth, upper_grid
from lipstream.engine.target.similarity import MouthSimilarity, by_shape
from lipstream.engine.target.sources import MouthSource, MouthSources
from lipstream.engine.target.style import SHARPEN, SHARPEN_ALONE, Style
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, I32, U8, Conduct

MAX_FRAMES: Final = 100_000
MAX_SIDE_PX: Final = 4096
MAX_SOURCES: Final = 512
_MAX_FEATURES: Final = 64
_MAX_LEARNED: Final = 4096
_MAX_COMPONENTS: Final = 64


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
    similarity: MouthSimilarity | None  # None where the footage was too short to learn it
    appearance: Appearance | None  # of mouth textures; None likewise
    jumps: tuple[I32, F32]  # targets i32 [N, M] and costs f32 [N, M]
    conduct: Conduct | None  # of a photo's loop; None for footage
    sharpen: float  # strength of the unsharp mask on the refined mouth
    info: dict[str, Any]  # target.json as read
    consent: Consent | None = None  # None: no live use, see `consent.require_consent`


def load_target(folder: str | Path) -> Target:
    """Read and check a bundle.

    Raises:
        TargetError: it is not a bundle, or a file or field of it is missing, damaged or absurd;
            the message names which.
    """
    folder = Path(folder)
    if not folder.is_dir():
        refuse_address(folder)
        raise TargetError(
            f"{folder}: not a target bundle (a folder named NAME.target); "
            "make one with `lipstream calibrate VIDEO -o NAME.target`"
        )
    try:
        return _read(folder)
    except TargetError as error:
        # The name and not the path: this text also reaches the clients of a server.
        raise TargetError(f"{folder.resolve().name}: {error}") from error


def load_consented(folder: str | Path) -> Target:
    """`load_target` for live use.

    Raises:
        ConsentMissing: the bundle does not record the consent of the person shown.
        TargetError: as `load_target`.
    """
    target = load_target(folder)
    require_consent(target.folder.resolve().name, target.info)
    return target


def _read(folder: Path) -> Target:
    info = read_info(folder / "target.json")
    width, height = (
        whole_number(info, "width", 16, MAX_SIDE_PX),
        whole_number(info, "height", 16, MAX_SIDE_PX),
    )
    if width % 2 or height % 2:
        raise TargetError(f"target.json: size {width}x{height} must be even")
    fps = frame_rate(info)
    check_files(folder, info)
    track, offsets, style = _read_track(folder, width, height)
    frames_path = folder / "frames.mjpeg"
    if offsets[-1] != frames_path.stat().st_size:
        raise TargetError("track.safetensors: frame_offsets do not end where frames.mjpeg ends")
    sources, source_frames, similarity = _read_sources(folder, track)
    mouth = style.mouth
    mouth = with_observed(mouth, sources, upper_grid(mouth, face_model()))
    appearance = _read_appearance(folder, info, similarity, len(sources))
    kind = info.get("kind")
    if kind not in ("video", "photo"):
        raise TargetError(f"target.json: kind is {kind!r}, expected 'video' or 'photo'")
    # Lips of a photo open wider than it shows them: in footage, the corners are those of a source.
    style = replace(style, mouth=replace(mouth, corners=float(kind == "photo")))
    return Target(
        folder, kind, width, height, fps, track, style,
        FrameReader(frames_path, offsets, width, height),
        sources, source_frames, similarity, appearance, _read_jumps(folder, len(track)),
        _read_conduct(folder, len(track)),
        _sharpen(info, SHARPEN if appearance else SHARPEN_ALONE), info, read_consent(info),
    )  # fmt: skip


def mouth_sources(target: Target) -> MouthSources:
    """What the source selector chooses from."""
    track, kept, model = target.track, target.source_frames, face_model()
    similarity = target.similarity or by_shape(
        track.expression, track.pose.angles_deg(), kept, model
    )
    opening = model.lip_rows()[0]
    return MouthSources(kept, track.expression[kept], similarity, target.appearance, opening)


def _sharpen(info: dict[str, Any], usual: float) -> float:
    """What calibration measured with the shipped renderer; else `usual`.

    Photos have no measurement, and one made with other weights does not apply.
    """
    value = info.get("sharpen", usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 4:
        raise TargetError(f"target.json: sharpen is {value!r}, expected 0 to 4")
    return float(value) if info.get("sharpen_for") == _shipped_weights() else usual


@cache
def _shipped_weights() -> str:
    """sha256 of the shipped renderer; "" for a package without it."""
    try:
        return sha256_of(shipped("renderer").safetensors)
    except AssetError:
        return ""


def _read_track(folder: Path, width: int, height: int) -> tuple[Track, NDArray[np.int64], Style]:
    file = "track.safetensors"
    data = read_tensors(folder, file)
    size = face_model().size
    landmarks = tensor(data, file, "landmarks", np.float32, (None, VERTICES, 3))
    frames = len(landmarks)
    if not 1 <= frames <= MAX_FRAMES:
        raise TargetError(f"{file}: {frames} frames, expected 1 to {MAX_FRAMES}")
    far = 8.0 * max(width, height)
    check_range(landmarks, file, "landmarks", -far, far)
    scale = tensor(data, file, "scale", np.float32, (frames,))
    check_range(scale, file, "scale", 1.0, far)
    rotation = tensor(data, file, "rotation", np.float32, (frames, 3, 3))
    check_range(rotation, file, "rotation", -1.001, 1.001)
    translation = tensor(data, file, "translation", np.float32, (frames, 3))
    check_range(translation, file, "translation", -far, far)
    expression = tensor(data, file, "expression", np.float32, (frames, size))
    check_range(expression, file, "expression", -100, 100)
    geometry = tensor(data, file, "geometry", np.float32, (VERTICES, 3))
    check_range(geometry, file, "geometry", -10, 10)
    usable = tensor(data, file, "usable", np.uint8, (frames,)) > 0
    if not usable.any():
        raise TargetError(f"{file}: usable names no frame")
    paintable = tensor(data, file, "paintable", np.uint8, (frames,)) > 0
    speed = tensor(data, file, "head_speed", np.float32, (frames,))
    check_range(speed, file, "head_speed", 0, 1e5)
    offsets = tensor(data, file, "frame_offsets", np.int64, (frames + 1,))
    if offsets[0] != 0 or (np.diff(offsets) <= 0).any():
        raise TargetError(f"{file}: frame_offsets must begin at 0 and grow")
    rest = tensor(data, file, "rest", np.float32, (size,))
    check_range(rest, file, "rest", -20, 20)
    gain = tensor(data, file, "gain", np.float32, (1,))
    check_range(gain, file, "gain", 0.1, 10)
    speaking = tensor(data, file, "speaking", np.float32, (size,))
    check_range(speaking, file, "speaking", -20, 20)
    mouth = tensor(data, file, "mouth", np.float32, (5,))
    check_range(mouth, file, "mouth", -10, 10)
    for array in (
        landmarks, scale, rotation, translation, expression, geometry, usable, paintable, speed,
        rest, speaking, mouth,
    ):  # fmt: skip
        array.setflags(write=False)
    pose = Pose(scale, rotation, translation)
    track = Track(landmarks, pose, expression, geometry, usable, paintable, speed)
    teeth = Mouth(float(mouth[0]), float(mouth[1]), mouth[2:])
    return track, offsets, Style(rest, float(gain[0]), speaking, teeth)


def _read_sources(
    folder: Path, track: Track
) -> tuple[tuple[MouthSource, ...], I32, MouthSimilarity | None]:
    file = "sources.safetensors"
    data = read_tensors(folder, file)
    frames = tensor(data, file, "frames", np.int32, (None,))
    count = len(frames)
    if not 1 <= count <= MAX_SOURCES:
        raise TargetError(f"{file}: {count} sources, expected 1 to {MAX_SOURCES}")
    check_range(frames, file, "frames", 0, len(track) - 1)
    sizes = tensor(data, file, "sizes", np.int32, (count, 2))
    check_range(sizes, file, "sizes", 4, MAX_SIDE_PX)
    origins = tensor(data, file, "origins", np.float32, (count, 2))
    check_range(origins, file, "origins", -MAX_SIDE_PX, MAX_SIDE_PX)
    zooms = tensor(data, file, "zooms", np.float32, (count,))
    check_range(zooms, file, "zooms", 0.01, 1.0)
    pixels: U8 = tensor(data, file, "pixels", np.uint8, (None,))
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
    """None in bundles of photos and of short footage."""
    if "projection" not in data:
        return None
    size = track.expression.shape[1]
    projection = tensor(data, file, "projection", np.float32, (None, size))
    frame_offset = tensor(data, file, "frame_offset", np.float32, (len(track), len(projection)))
    descriptors = tensor(data, file, "source_descriptors", np.float32, (sources, None))
    for field, value in (
        ("projection", projection),
        ("frame_offset", frame_offset),
        ("source_descriptors", descriptors),
    ):
        check_range(value, file, field, -1e4, 1e4)
    if max(len(projection), descriptors.shape[1]) > _MAX_FEATURES:
        raise TargetError(f"{file}: more than {_MAX_FEATURES} features of a mouth")
    return MouthSimilarity(projection, frame_offset, descriptors)


def _read_appearance(
    folder: Path, info: dict[str, Any], similarity: MouthSimilarity | None, sources: int
) -> Appearance | None:
    """None in bundles of photos and of short footage."""
    file = "appearance.safetensors"
    if file not in info["files"] or similarity is None:
        return None
    data = read_tensors(folder, file)
    relevance = tensor(data, file, "relevance", np.float32, (len(similarity.projection),))
    check_range(relevance, file, "relevance", 0, 1e4)
    features = tensor(data, file, "features", np.float32, (len(similarity.projection), None))
    frames = features.shape[1]
    weights = tensor(data, file, "weights", np.float32, (frames, None))
    count = weights.shape[1]
    if not (1 <= frames <= _MAX_LEARNED and count <= _MAX_COMPONENTS):
        raise TargetError(
            f"{file}: {count} components of {frames} frames, expected at most "
            f"{_MAX_COMPONENTS} of 1 to {_MAX_LEARNED}"
        )
    length_scale = tensor(data, file, "length_scale", np.float32, (count,))
    check_range(length_scale, file, "length_scale", 1e-6, 1e6)
    textures = tensor(data, file, "textures", np.float16, (1 + count, *TEXTURE_SHAPE, 3)).astype(
        np.float32
    )
    coefficients = tensor(data, file, "sources", np.float32, (sources, count))
    for field, value in (
        ("features", features), ("weights", weights), ("textures", textures),
        ("sources", coefficients),
    ):  # fmt: skip
        check_range(value, file, field, -1e6, 1e6)
    distance = tensor(data, file, "reference_distance", np.float32, (1,))
    check_range(distance, file, "reference_distance", 1e-6, 1e6)
    return Appearance(
        relevance, features, length_scale, weights, textures, coefficients, float(distance[0])
    )


def _read_jumps(folder: Path, frames: int) -> tuple[I32, F32]:
    file = "jumps.safetensors"
    data = read_tensors(folder, file)
    targets = tensor(data, file, "targets", np.int32, (frames, None))
    if targets.shape[1] > 256:
        raise TargetError(f"{file}: {targets.shape[1]} jumps a frame, expected at most 256")
    check_range(targets, file, "targets", -1, frames - 1)
    costs = tensor(data, file, "costs", np.float32, targets.shape)
    check_range(costs, file, "costs", 0, 1e9)
    targets.setflags(write=False)
    costs.setflags(write=False)
    return targets, costs


def _read_conduct(folder: Path, frames: int) -> Conduct | None:
    file = "jumps.safetensors"
    data = read_tensors(folder, file)
    if "speaking" not in data:
        return None
    names = ("speaking", "nods", "blinks")
    return Conduct(*(tensor(data, file, name, np.uint8, (frames,)) > 0 for name in names))
