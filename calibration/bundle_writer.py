"""Writes a target bundle: into a temporary folder, which is renamed when it is complete."""

from __future__ import annotations

import errno
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.footage.jump_graph import JumpGraph
from lipstream.engine.errors import MediaError, UsageError
from lipstream.engine.output_paths import remedy, temporary_prefix
from lipstream.engine.paths import refuse_address
from lipstream.engine.target.appearance import Appearance
from lipstream.engine.target.bundle_checks import SCHEMA_VERSION, sha256_of
from lipstream.engine.target.consent import bind
from lipstream.engine.target.frames import FrameReader, FrameWriter
from lipstream.engine.target.similarity import MouthSimilarity
from lipstream.engine.target.sources import MouthSource
from lipstream.engine.target.style import Style
from lipstream.engine.target.track import Track
from lipstream.engine.types import I32, U8, Conduct

logger = logging.getLogger(__name__)

_FRAMES: Final = "frames.mjpeg"


@contextmanager
def bundle_folder(output: Path) -> Iterator[Path]:
    """A new folder that takes the name `output` if the block ends well, and is removed if not.

    An older bundle of that name is replaced at the end; it stays, or is put back, if anything
    fails. Errors that the block raises pass through as they are.

    Raises:
        UsageError: `output` exists and is not a bundle.
        MediaError: the folder cannot be made, or not be given its name.
    """
    refuse_address(output)
    if output.exists() and not (output / "target.json").is_file():
        raise UsageError(f"{output}: exists and is not a target bundle; choose another name")
    with write_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=temporary_prefix(output.name), dir=output.parent))
    old = work / "old"
    try:
        with write_errors(output):
            made = work / output.name
            made.mkdir()
        yield made
        with write_errors(output):
            made.chmod(0o755)
            _replace(output, made, old)
    finally:
        # The older bundle lies here still where putting it back failed too.
        if output.exists() or not old.exists():
            shutil.rmtree(work, ignore_errors=True)


def remove_leftovers(output: Path) -> None:
    """Remove what a killed process has left of a bundle; an older one that it took away is put
    back. Nothing else may be writing it.

    Raises: OSError.
    """
    prefix = temporary_prefix(output.name)
    for work in output.parent.iterdir() if output.parent.is_dir() else ():
        name = work.name
        if not (name.startswith(prefix) and re.fullmatch(r"[a-z0-9_]{8}", name[len(prefix) :])):
            continue
        if work.is_dir() and not work.is_symlink():
            old = work / "old"
            if old.exists() and not output.exists():
                old.rename(output)
            shutil.rmtree(work)


def _replace(output: Path, made: Path, old: Path) -> None:
    """Give `made` the name `output`; what had the name is moved to `old`, and back on an error."""
    if not output.exists():
        made.rename(output)
        return
    output.rename(old)
    try:
        made.rename(output)
    except BaseException:
        old.rename(output)
        raise


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raise errors of writing `path` as MediaError.

    The block must do nothing but write: other errors of the system are not about `path`.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors gives the system's error as text; what it fails at is a disk without space.
        failed = error if isinstance(error, OSError) else OSError(errno.ENOSPC, str(error))
        raise MediaError(
            f"{path}: cannot be written ({failed.strerror or failed}); {remedy(failed)}"
        ) from error


class FrameFile:
    """A bundle's frames.mjpeg, written frame by frame. Use as a context manager.

    Raises:
        MediaError: it cannot be written.
    """

    def __init__(self, folder: Path, width: int, height: int) -> None:
        """Create the file; sides in px."""
        self._path, self._size = folder / _FRAMES, (width, height)
        self._label = Path(folder.name) / _FRAMES
        with write_errors(self._label):
            self._writer = FrameWriter(self._path, width, height)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each frame begins and the last one ends, i64 [frames + 1], bytes."""
        return np.asarray(self._writer.offsets, np.int64)

    def append(self, i420: U8) -> None:
        """Encode one frame, u8 [h*3/2, w]."""
        with write_errors(self._label):
            self._writer.append(i420)

    def reader(self) -> FrameReader:
        """Of the file, once it is closed."""
        return FrameReader(self._path, self.offsets, *self._size)

    def __enter__(self) -> FrameFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        if error is not None:  # the first error counts, not the one of closing after it
            with suppress(OSError):
                self._writer.__exit__(kind, error, trace)
            return
        with write_errors(self._label):
            self._writer.__exit__(None, None, None)


def write_track(folder: Path, track: Track, style: Style, frame_offsets: NDArray[np.int64]) -> None:
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
            "frame_offsets": frame_offsets,
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
    names = ("projection", "frame_offset", "source_descriptors") if similarity else ()
    _save(
        folder / "sources.safetensors",
        {
            "frames": frames.astype(np.int32),
            "sizes": np.array([s.rgb.shape[:2] for s in sources], np.int32),
            "origins": np.array([s.origin for s in sources], np.float32),
            "zooms": np.array([s.zoom for s in sources], np.float32),
            "pixels": np.concatenate([s.rgb.reshape(-1) for s in sources]),
            **{name: getattr(similarity, name) for name in names},
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


def write_jumps(folder: Path, jumps: JumpGraph, conduct: Conduct | None = None) -> None:
    """jumps.safetensors; the target is -1 where a frame has fewer jumps than others."""
    costs = np.where(jumps.indices >= 0, jumps.cost, 0).astype(np.float32)
    tables = {"targets": jumps.indices, "costs": costs}
    if conduct is not None:
        for name in ("speaking", "nods", "blinks"):
            tables[name] = getattr(conduct, name).astype(np.uint8)
    _save(folder / "jumps.safetensors", tables)


def write_info(
    folder: Path, kind: str, size: tuple[int, int], fps: Fraction, info: dict[str, Any]
) -> None:
    """target.json; written last, because it holds the checksums of all other files."""
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
    """Record the amount of sharpening for the renderer of these weights, and renew the checksums
    of target.json."""
    info = json.loads((folder / "target.json").read_text("utf8"))
    _write_info(folder, info | {"sharpen": amount, "sharpen_for": sha256_of(weights)})


def _write_info(folder: Path, info: dict[str, Any]) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
        if path.name != "target.json"
    }
    whole = {**info, **bind(info, files), "files": files}
    path = folder / "target.json"
    with write_errors(Path(folder.name) / path.name):
        path.write_text(json.dumps(whole, indent=1) + "\n", "utf8")


def _save(path: Path, tensors: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    with write_errors(Path(path.parent.name) / path.name):
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
        path.chmod(0o644)  # safetensors makes files private
