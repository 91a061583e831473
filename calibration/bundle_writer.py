"""Writes a target bundle: to a temporary folder first, renamed when it is whole."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lipstream.calibration.footage.jump_graph import JumpGraph
from lipstream.engine.errors import MediaError, UsageError
from lipstream.engine.target.appearance import Appearance
from lipstream.engine.target.bundle_checks import SCHEMA_VERSION, sha256_of
from lipstream.engine.target.similarity import MouthSimilarity
from lipstream.engine.target.sources import MouthSource
from lipstream.engine.target.style import Style
from lipstream.engine.target.track import Track
from lipstream.engine.types import I32


@contextmanager
def bundle_folder(output: Path) -> Iterator[Path]:
    """A new folder beside `output` that takes its name if the block ends well, and is gone if not.

    Raises:
        UsageError: `output` exists and is not a bundle.
        MediaError: the folder cannot be written.
    """
    if output.exists() and not (output / "target.json").is_file():
        raise UsageError(f"{output}: exists and is not a target bundle; choose another name")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise MediaError(
            f"{output}: cannot be written ({error.strerror}); choose a folder you may write to"
        ) from error
    try:
        yield made
        made.chmod(0o755)
        if output.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
            output.rename(old / output.name)
            made.rename(output)
            shutil.rmtree(old)
        else:
            made.rename(output)
    except OSError as error:
        raise MediaError(f"{output}: cannot be written ({error.strerror or error})") from error
    finally:
        if made.exists():
            shutil.rmtree(made, ignore_errors=True)


def write_track(folder: Path, track: Track, style: Style, frame_offsets: list[int]) -> None:
    """track.safetensors."""
    mouth = style.mouth
    _save(
        folder / "track.safetensors",
        {
            "landmarks": track.landmarks.astype(np.float32),
            "scale": track.pose.scale,
            "rotation": track.pose.rotation,
            "translation": track.pose.translation,
            "expression": track.expression,
            "geometry": track.geometry,
            "usable": track.usable.astype(np.uint8),
            "paintable": track.paintable.astype(np.uint8),
            "head_speed": track.head_speed,
            "frame_offsets": np.asarray(frame_offsets, np.int64),
            "rest": style.rest,
            "gain": np.array([style.gain], np.float32),
            "speaking": style.speaking,
            "mouth": np.array([mouth.upper_edge, mouth.lower_edge, *mouth.light], np.float32),
        },
    )


def write_sources(
    folder: Path, frames: I32, sources: list[MouthSource], similarity: MouthSimilarity | None
) -> None:
    """sources.safetensors: crops of any size, one after another."""
    features = (
        {
            name: getattr(similarity, name)
            for name in ("projection", "frame_offset", "source_descriptors")
        }
        if similarity
        else {}
    )
    _save(
        folder / "sources.safetensors",
        {
            "frames": frames.astype(np.int32),
            "sizes": np.array([s.rgb.shape[:2] for s in sources], np.int32),
            "origins": np.array([s.origin for s in sources], np.float32),
            "zooms": np.array([s.zoom for s in sources], np.float32),
            "pixels": np.concatenate([s.rgb.reshape(-1) for s in sources]),
            **features,
        },
    )


def write_appearance(folder: Path, appearance: Appearance) -> None:
    """appearance.safetensors."""
    _save(
        folder / "appearance.safetensors",
        {
            "relevance": appearance.relevance,
            "features": appearance.features,
            "length_scale": appearance.length_scale,
            "weights": appearance.weights,
            "textures": appearance.textures.astype(np.float16),
            "sources": appearance.sources,
            "reference_distance": np.array([appearance.reference_distance], np.float32),
        },
    )


def write_jumps(folder: Path, jumps: JumpGraph) -> None:
    """jumps.safetensors; where a frame has fewer jumps than others, the target is -1."""
    costs = np.where(jumps.indices >= 0, jumps.cost, 0).astype(np.float32)
    _save(folder / "jumps.safetensors", {"targets": jumps.indices, "costs": costs})


def write_info(
    folder: Path, kind: str, size: tuple[int, int], fps: Fraction, info: dict[str, Any]
) -> None:
    """target.json, last: it holds the sums of all other files."""
    whole = {
        **info,
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "width": size[0],
        "height": size[1],
        "fps": str(fps),
    }
    _write_info(folder, whole)


def note_sharpen(folder: Path, amount: float, weights: Path) -> None:
    """Note how much the renderer of these weights has to sharpen for the person, and bring
    target.json's sums up to date."""
    info = json.loads((folder / "target.json").read_text("utf8"))
    _write_info(folder, info | {"sharpen": amount, "sharpen_for": sha256_of(weights)})


def _write_info(folder: Path, info: dict[str, Any]) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
        if path.name != "target.json"
    }
    whole = {**info, "files": files}
    (folder / "target.json").write_text(json.dumps(whole, indent=1) + "\n", "utf8")


def _save(path: Path, tensors: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
    path.chmod(0o644)  # safetensors writes for the owner alone
