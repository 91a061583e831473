"""`lipstream verify`: is this file marked as synthetic? Manifest, watermark and label, each."""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import av
import numpy as np

from lipstream.engine.errors import MediaError
from lipstream.engine.paths import libav_url
from lipstream.engine.types import F32, U8
from lipstream.engine.watermark.detect import detect
from lipstream.streaming.files.manifest import Manifest, can_read, read_manifest
from lipstream.streaming.marking.marker import as_hex
from lipstream.streaming.marking.seen import find_label

_FRAMES: Final = 1800  # looked at, at most, where the first 300 show no mark
_LABEL_FRAMES: Final = 25  # averaged
SMALLEST_PX: Final = 16  # that the detector takes
_MAX_BYTES: Final = 4 << 30
_TIMEOUT: Final = aiohttp.ClientTimeout(total=600, connect=15)


@dataclass(frozen=True, slots=True)
class Watermark:
    """What the detector says."""

    found: bool
    session: str | None  # eight hexadecimal digits; None: no mark, or one that cannot be read
    p_value: float  # at most this is the chance of such a find without a mark
    frames: int  # looked at

    def as_json(self) -> dict[str, Any]:
        """For `verify --json`."""
        return asdict(self)

    def as_text(self, manifest: Manifest | None) -> str:
        """One line."""
        if not self.found:
            return f"none found in {self.frames} frames"
        session = self.session or "found, its id cannot be read"
        stated = None if manifest is None else manifest.watermark
        fits = ""
        if stated is not None and self.session is not None:
            fits = ", as in the manifest" if stated == self.session else f", not {stated}"
        return f"{session}{fits} ({self.frames} frames; by chance: p < {_bound(self.p_value)})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found in a file."""

    name: str
    manifest: Manifest | None
    manifest_readable: bool  # False: c2pa-python is missing
    watermark: Watermark
    label: str | None

    @property
    def marked(self) -> bool:
        """A manifest that holds says so, or the watermark is there.

        A visible label alone does not count: anybody can draw two letters.
        """
        stated = self.manifest is not None and self.manifest.intact and self.manifest.synthetic
        return stated or self.watermark.found

    def as_json(self) -> dict[str, Any]:
        """One object."""
        return {
            "file": self.name,
            "marked": self.marked,
            "manifest": None if self.manifest is None else self.manifest.as_json(),
            "manifest_readable": self.manifest_readable,
            "watermark": self.watermark.as_json(),
            "label": self.label,
        }

    def as_text(self) -> str:
        """Four lines."""
        manifest = "none" if self.manifest is None else self.manifest.as_text()
        if not self.manifest_readable:
            manifest = "not looked for: c2pa-python is missing"
        label = {"corner": '"AI" in the corner', "bar": '"AI GENERATED" in a bar'}
        return "\n".join(
            (
                f"{self.name}: {'marked as synthetic' if self.marked else 'no valid mark found'}",
                f"  manifest   {manifest}",
                f"  watermark  {self.watermark.as_text(self.manifest)}",
                f"  label      {label.get(self.label or '', 'none found')}",
            )
        )


def verify(file: str) -> Verdict:
    """Look for the marks of a file on this machine or at an http(s) address.

    Raises:
        MediaError: it cannot be read, or holds no picture.
    """
    with _local(file) as path:
        readable = can_read()
        manifest = read_manifest(path) if readable else None
        watermark, label = _look(path, file)
    return Verdict(file, manifest, readable, watermark, label)


def _look(path: Path, name: str) -> tuple[Watermark, str | None]:
    """At the frames."""
    total: F32 | None = None
    count = 0

    def lumas() -> Iterator[U8]:
        nonlocal total, count
        for luma in _lumas(path, name):
            if count < _LABEL_FRAMES and (total is None or total.shape == luma.shape):
                total = luma.astype(np.float32) if total is None else total + luma
            count += 1
            yield luma

    watermark = _find_watermark(lumas())
    if total is None:
        raise MediaError(f"{name}: no picture in it can be decoded")
    return watermark, find_label(total / np.float32(min(count, _LABEL_FRAMES)))


def _find_watermark(lumas: Iterator[U8]) -> Watermark:
    first = next(lumas, None)
    if first is None:
        return Watermark(False, None, 1.0, 0)
    if min(first.shape) < SMALLEST_PX:  # nothing can be found in it
        return Watermark(False, None, 1.0, 1 + sum(1 for _ in lumas))
    found = detect(chain([first], takewhile(lambda luma: luma.shape == first.shape, lumas)))
    session = as_hex(found.session) if found.marked and found.session is not None else None
    return Watermark(found.marked, session, found.p_value, found.frames)


def _bound(p: float) -> str:
    """As a power of ten."""
    return f"1e{math.ceil(math.log10(max(p, 1e-99))):d}"


def _lumas(path: Path, name: str) -> Iterator[U8]:
    """The luma of the first frames, u8 [h, w]; a file that breaks off ends there."""
    given = 0
    try:
        with av.open(libav_url(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{name}: no picture in it; expected a video or an image")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                picture = frame.reformat(format="yuv420p")
                plane = picture.planes[0]
                rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
                yield rows[: picture.height, : picture.width].copy()
                given += 1
                if given == _FRAMES:
                    return
    except (av.FFmpegError, ValueError) as error:
        if not given:
            why = getattr(error, "strerror", None) or str(error)
            raise MediaError(
                f"{name}: cannot be read ({why}); expected a video or image"
            ) from error
    except OSError as error:
        raise MediaError(f"{name}: {error.strerror or error}") from error


@contextmanager
def _local(file: str) -> Iterator[Path]:
    """The file itself, or what an address gives."""
    if urlsplit(file).scheme not in ("http", "https"):
        path = Path(file)
        if not path.is_file():
            why = "is a folder" if path.is_dir() else "no such file"
            raise MediaError(f"{file}: {why}; expected a video, an image, or an http(s) address")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="lipstream-verify-") as folder:
        path = Path(folder) / "download"
        asyncio.run(_download(file, path))
        yield path


async def _download(address: str, path: Path) -> None:
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as http,
            http.get(address) as response,
        ):
            if response.status != 200:
                raise MediaError(f"{address}: {response.status} {response.reason}")
            size = 0
            with path.open("wb") as file:
                async for block in response.content.iter_chunked(1 << 20):
                    size += len(block)
                    if size > _MAX_BYTES:
                        raise MediaError(f"{address}: more than {_MAX_BYTES >> 30} GiB")
                    file.write(block)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise MediaError(f"{address}: {str(error) or type(error).__name__}") from error
