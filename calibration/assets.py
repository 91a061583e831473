"""Model files that are not shipped: found locally or downloaded once, and always checked."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lipstream.engine.errors import AssetError
from lipstream.engine.paths import cache_folder

logger = logging.getLogger(__name__)

ASSETS_VARIABLE: Final = "LIPSTREAM_ASSETS"
_TIMEOUT_S: Final = 30
_BLOCK_BYTES: Final = 1 << 16

Report = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Asset:
    """A file pinned by its content."""

    name: str
    url: str
    sha256: str
    size_bytes: int  # a download stops here, whatever the server sends


# The model bundle that MediaPipe's own documentation names (Apache-2.0).
FACE_LANDMARKER: Final = Asset(
    name="face_landmarker.task",
    url=(
        "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/"
        "float16/1/face_landmarker.task"
    ),
    sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    size_bytes=3_758_596,
)


def find(asset: Asset = FACE_LANDMARKER) -> Path | None:
    """The asset if it is on this machine: in $LIPSTREAM_ASSETS, else in the cache.

    Raises:
        AssetError: $LIPSTREAM_ASSETS holds a file of that name which is not the pinned one.
    """
    folder = os.environ.get(ASSETS_VARIABLE)
    if folder:
        path = Path(folder) / asset.name
        if path.is_file():
            found = _sha256(path)
            if found != asset.sha256:
                raise AssetError(
                    f"{path} has sha256 {found[:12]}…, expected {asset.sha256[:12]}…; "
                    f"replace it with {asset.url}"
                )
            return path
    path = cache_folder() / asset.name
    if not path.is_file():
        return None
    if _sha256(path) != asset.sha256:
        logger.warning("cached asset is damaged, it will be fetched again: %s", path)
        return None
    return path


def fetch(asset: Asset = FACE_LANDMARKER, report: Report | None = None) -> Path:
    """The asset, downloaded into the cache unless it is on this machine already.

    report: takes what is done, and the fraction of it that is.

    Raises:
        AssetError: it is not here and cannot be downloaded, or what came is not the pinned file.
    """
    present = find(asset)
    if present is not None:
        return present
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{asset.name}.", suffix=".part", dir=folder)
    except OSError as error:
        raise AssetError(
            f"cannot write to {folder} ({error.strerror}); "
            f"set ${ASSETS_VARIABLE} to a folder that holds {asset.name}"
        ) from error
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            digest = _download(asset, file.write, report)
        if digest != asset.sha256:
            raise AssetError(
                f"{asset.url} gave a file with sha256 {digest[:12]}…, expected "
                f"{asset.sha256[:12]}…; something on the way changes downloads. {_by_hand(asset)}"
            )
        path = folder / asset.name
        part.replace(path)
    except (OSError, http.client.HTTPException) as error:
        raise AssetError(
            f"{asset.name} is not on this machine and cannot be fetched "
            f"({_reason(error)}). {_by_hand(asset)}"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    logger.info("asset fetched: %s", path)
    return path


def _download(asset: Asset, write: Callable[[bytes], object], report: Report | None) -> str:
    digest = hashlib.sha256()
    received = 0
    what = f"downloading {asset.name} ({asset.size_bytes / 1e6:.1f} MB)"
    if report is not None:
        report(what, 0.0)
    with urllib.request.urlopen(asset.url, timeout=_TIMEOUT_S) as answer:
        while block := answer.read(_BLOCK_BYTES):
            received += len(block)
            if received > asset.size_bytes:
                raise AssetError(
                    f"{asset.url} sends more than the {asset.size_bytes} bytes of the pinned "
                    f"file; something on the way changes downloads. {_by_hand(asset)}"
                )
            digest.update(block)
            write(block)
            if report is not None:
                report(what, received / asset.size_bytes)
    return digest.hexdigest()


def _by_hand(asset: Asset) -> str:
    return f"Put the file from {asset.url} into a folder and set ${ASSETS_VARIABLE} to that folder"


def _reason(error: OSError | http.client.HTTPException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AssetError(f"{path} cannot be read: {error.strerror}") from error
