"""The targets of a folder: their names, what they look like, and their engines."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from lipstream.engine.errors import LipstreamError, UsageError
from lipstream.streaming.session.live_engine import LiveEngine, warm_up

if TYPE_CHECKING:
    from lipstream.engine.pipeline import Engine
    from lipstream.streaming.workers.pool import Workers

logger = logging.getLogger(__name__)

_SUFFIX: Final = ".target"
_MAX_JSON_BYTES: Final = 1 << 20
_MAX_POSTER_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class About:
    """What a target's own description says; not checked against its footage until it is loaded."""

    name: str
    kind: str  # video or photo
    width: int  # px
    height: int  # px
    fps: float
    frames: int
    duration_s: float

    def as_json(self) -> dict[str, Any]:
        """For /api/targets."""
        return asdict(self)


class Gallery(Protocol):
    """What a page that shows targets asks for."""

    def about(self, name: str) -> About:
        """Size, rate and length; raises UsageError or TargetError."""
        ...

    def poster(self, name: str) -> bytes:
        """A JPEG of the target; raises UsageError or TargetError."""
        ...


@dataclass(frozen=True, slots=True)
class EngineSetting:
    """How targets are made to speak; see `engine.pipeline.Engine`."""

    profile: str = "live"
    backend: str = "auto"
    renderer: str = "auto"

    def load(self, folder: Path) -> Engine:
        """The engine of a bundle; raises LipstreamError."""
        from lipstream.engine.pipeline import Engine
        from lipstream.engine.target.bundle import load_target

        return Engine(load_target(folder), self.profile, self.backend, "matched", self.renderer)


class TargetRegistry:
    """The bundles of a folder; each engine is made and warmed once, when it is first asked for."""

    def __init__(
        self, folder: Path, setting: EngineSetting | None = None, workers: Workers | None = None
    ) -> None:
        """`workers`: where conversations are computed; None for this very process."""
        if not folder.is_dir():
            raise UsageError(f"{folder}: not a folder; expected one with NAME.target bundles in it")
        self.folder, self._setting = folder, setting or EngineSetting()
        self._workers = workers
        self._engines: dict[str, LiveEngine] = {}
        self._lock = asyncio.Lock()

    def names(self) -> list[str]:
        """Of every target in the folder."""
        found = (p for p in self.folder.iterdir() if p.suffix == _SUFFIX and p.is_dir())
        return sorted(p.name.removesuffix(_SUFFIX) for p in found if not p.name.startswith("."))

    def about(self, name: str) -> About:
        """From target.json alone.

        Raises:
            UsageError: no target of this name.
            LipstreamError: its description cannot be read.
        """
        path = self._bundle(name) / "target.json"
        try:
            if path.stat().st_size > _MAX_JSON_BYTES:
                raise ValueError("larger than 1 MiB")
            info = json.loads(path.read_text("utf-8"))
            return About(
                name,
                str(info["kind"]),
                int(info["width"]),
                int(info["height"]),
                float(Fraction(info["fps"])),
                int(info["frames"]),
                float(info["duration_s"]),
            )
        except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError) as error:
            raise LipstreamError(f"{name}: target.json cannot be read ({error})") from error

    def poster(self, name: str) -> bytes:
        """The first frame of the footage, a JPEG as it lies there.

        Raises:
            UsageError: no target of this name.
            LipstreamError: no picture where one should be.
        """
        path = self._bundle(name) / "frames.mjpeg"
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_POSTER_BYTES)
        except OSError as error:
            raise LipstreamError(f"{name}: frames.mjpeg: {error.strerror}") from error
        # In a JPEG's coded data 0xFF is followed by 0 or a restart marker, never by 0xD9.
        end = data.find(b"\xff\xd9") + 2
        if not data.startswith(b"\xff\xd8") or end < 2:
            raise LipstreamError(f"{name}: frames.mjpeg does not begin with a picture")
        return data[:end]

    async def engine(self, name: str) -> LiveEngine:
        """Ready to speak.

        Raises:
            UsageError: no target of this name.
            TargetError: its bundle is damaged.
        """
        if name in self._engines:
            return self._engines[name]
        async with self._lock:
            if name not in self._engines:
                self._bundle(name)
                self._engines[name] = await asyncio.to_thread(self._load, name)
            return self._engines[name]

    def _bundle(self, name: str) -> Path:
        if name not in self.names():  # also keeps paths out of it
            raise UsageError(f"no target {name!r}; /api/targets lists those that are here")
        return self.folder / (name + _SUFFIX)

    def _load(self, name: str) -> LiveEngine:
        folder = self.folder / (name + _SUFFIX)
        if self._workers is not None:
            return self._workers.engine(partial(self._setting.load, folder))
        engine = self._setting.load(folder)
        logger.info("target %s ready, warmed up in %.2f s", name, warm_up(engine))
        return engine
