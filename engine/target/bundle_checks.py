"""Checks on the files and fields of a bundle: nothing in it is used until it has passed one."""

from __future__ import annotations

import hashlib
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.errors import TargetError

SCHEMA_VERSION: Final = 3
_REQUIRED = ("track.safetensors", "frames.mjpeg", "sources.safetensors", "jumps.safetensors")
_OPTIONAL = ("appearance.safetensors", "report.html")
MAX_JSON_BYTES: Final = 1 << 20
_MAX_TENSOR_BYTES = 1 << 31


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_info(path: Path) -> dict[str, Any]:
    """target.json as an object of this schema. Raises: TargetError."""
    try:
        if path.is_symlink() or path.stat().st_size > MAX_JSON_BYTES:
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


def whole_number(info: dict[str, Any], field: str, low: int, high: int) -> int:
    """A whole number of target.json within bounds. Raises: TargetError."""
    value = info.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise TargetError(f"target.json: {field} is {value!r}, expected {low} to {high}")
    return value


def frame_rate(info: dict[str, Any]) -> Fraction:
    """The frame rate of target.json, 5 to 120. Raises: TargetError."""
    text = info.get("fps")
    if not isinstance(text, str) or not re.fullmatch(r"\d{1,6}(/\d{1,6})?", text):
        raise TargetError(f"target.json: fps is {text!r}, expected a fraction such as '30000/1001'")
    number, _, divisor = text.partition("/")
    if int(divisor or 1) == 0 or not 5 <= Fraction(int(number), int(divisor or 1)) <= 120:
        raise TargetError(f"target.json: fps is {text!r}, expected 5 to 120")
    return Fraction(text)


def listed_files(info: dict[str, Any]) -> dict[str, int]:
    """The files of a bundle by their names, and their sizes. Raises: TargetError."""
    listed = info.get("files")
    if not isinstance(listed, dict):
        raise TargetError("target.json: files is missing")
    unknown = set(listed) - set(_REQUIRED) - set(_OPTIONAL)
    if unknown:
        raise TargetError(f"target.json: files names {sorted(unknown)[0]!r}, no part of a bundle")
    for name in _REQUIRED:
        if name not in listed:
            raise TargetError(f"target.json: files does not name {name}")
    sizes = {}
    for name, entry in listed.items():
        size = entry.get("bytes") if isinstance(entry, dict) else None
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise TargetError(f"target.json: files states no size of {name}")
        sizes[name] = size
    return sizes


def check_files(folder: Path, info: dict[str, Any]) -> None:
    """Every file is there, with the size and checksum of target.json. Raises: TargetError."""
    for name, size in listed_files(info).items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise TargetError(f"{name}: missing, or not a plain file")
        if path.stat().st_size != size:
            raise TargetError(f"{name}: size differs from target.json; the bundle is damaged")
        if info["files"][name].get("sha256") != sha256_of(path):
            raise TargetError(f"{name}: sha256 differs from target.json; the bundle is damaged")


def read_tensors(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file by name. Raises: TargetError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / name
    if path.stat().st_size > _MAX_TENSOR_BYTES:
        raise TargetError(f"{name}: larger than 2 GiB")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise TargetError(f"{name}: not a valid safetensors file ({error})") from error


def tensor(
    tensors: dict[str, NDArray[Any]],
    file: str,
    field: str,
    dtype: type[np.generic],
    shape: tuple[int | None, ...],
) -> NDArray[Any]:
    """A field of the expected type and shape (None: any length), all of it finite.

    Raises: TargetError.
    """
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


def check_range(value: NDArray[Any], file: str, field: str, low: float, high: float) -> None:
    """Every element lies within bounds. Raises: TargetError."""
    if value.size and (value.min() < low or value.max() > high):
        raise TargetError(f"{file}: {field} is outside {low:g} to {high:g}")
