"""The targets of a folder: their names, their descriptions, and their engines."""

from __future__ import annotations

import asyncio
import json
import logging
import weakref
from collections import OrderedDict
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from lipstream.engine.errors import TargetError, UnknownTarget, UsageError
from lipstream.engine.speech.profiles import require_live
from lipstream.engine.target.bundle_checks import MAX_JSON_BYTES, read_info
from lipstream.engine.target.consent import read_consent, require_consent
from lipstream.streaming.server.poster import draw_poster
from lipstream.streaming.session.live_engine import LiveEngine, warm_up
from lipstream.streaming.workers.pool import RemoteEngine

if TYPE_CHECKING:
    from lipstream.engine.pipeline import Engine
    from lipstream.streaming.workers.pool import Workers

logger = logging.getLogger(__name__)

_SUFFIX: Final = ".target"
_MAX_POSTERS: Final = 64  # kept; about 30 kB each

Fingerprint: TypeAlias = tuple[int, int, int]  # of target.json: inode, time of change (ns), bytes


@dataclass(frozen=True, slots=True)
class TargetDescription:
    """What target.json states; the footage is not checked until the target is loaded."""

    name: str
    kind: str  # video or photo
    width: int  # px
    height: int  # px
    fps: float
    frames: int
    duration_s: float
    consent: dict[str, str] | None = None  # who, when, for what; None: nobody can call it

    def as_json(self) -> dict[str, Any]:
        """For /api/targets."""
        return asdict(self)


class TargetDescriptions(Protocol):
    """What a page that shows targets needs."""

    def describe(self, name: str) -> TargetDescription:
        """Size, rate and length; raises UnknownTarget or TargetError."""
        ...

    def poster(self, name: str) -> bytes:
        """A JPEG of the target; raises UnknownTarget or TargetError."""
        ...


class EngineLoader(Protocol):
    """How engines are made; `EngineSetting`, or a test's own."""

    def load(self, folder: Path) -> Any:
        """The engine of a bundle; raises LipstreamError, ConsentMissing."""
        ...


@dataclass(frozen=True, slots=True)
class EngineSetting:
    """How engines are made; see `engine.pipeline.Engine`."""

    profile: str = "live"
    backend: str = "auto"
    renderer: str = "auto"

    def __post_init__(self) -> None:
        """Refuse the profile `file`; the engine checks the names."""
        require_live(self.profile)

    def load(self, folder: Path) -> Engine:
        """The engine of a bundle, for live use; raises LipstreamError, ConsentMissing."""
        from lipstream.engine.pipeline import Engine
        from lipstream.engine.target.bundle import load_consented

        target = load_consented(folder)
        return Engine(target, self.profile, self.backend, "matched", self.renderer)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """An engine that was made, for as long as somebody uses it."""

    fingerprint: Fingerprint
    engine: weakref.ref[LiveEngine]


class TargetRegistry:
    """The bundles of a folder, or a single bundle; each engine is made when it is first asked for.

    A target that was calibrated again is loaded again for the next call, and calls that go on keep
    the engine they have. The registry keeps the `keep` engines that were asked for last; any other
    lives for as long as a conversation uses it. Used on one event loop; `describe` and `poster`
    may be called from any thread.
    """

    def __init__(
        self,
        folder: Path,
        setting: EngineLoader | None = None,
        workers: Workers | None = None,
        keep: int = 4,
    ) -> None:
        """`workers`: where conversations are computed; None for this very process."""
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "no such folder"
            raise UsageError(
                f"{folder}: {what}; expected a target that `lipstream calibrate` has made, or a "
                "folder of NAME.target"
            )
        self.folder, self._setting = folder, setting or EngineSetting()
        self._single = folder.resolve() if (folder / "target.json").is_file() else None
        self._workers = workers
        self._keep = keep
        self._loaded: dict[str, _Loaded] = {}
        # In the order in which they were asked for, the last one at the end.
        self._kept: OrderedDict[str, LiveEngine] = OrderedDict()
        self._cores: weakref.WeakKeyDictionary[LiveEngine, float] = weakref.WeakKeyDictionary()
        self._loading: dict[tuple[str, Fingerprint], asyncio.Task[LiveEngine]] = {}
        self._posters: dict[str, tuple[Fingerprint, bytes]] = {}

    def names(self) -> list[str]:
        """Of every target in the folder."""
        if self._single is not None:
            return [self._single.name.removesuffix(_SUFFIX)]
        found = (p for p in self.folder.iterdir() if p.suffix == _SUFFIX and p.is_dir())
        return sorted(p.name.removesuffix(_SUFFIX) for p in found if not p.name.startswith("."))

    def describe(self, name: str) -> TargetDescription:
        """From target.json alone.

        Raises:
            UnknownTarget: no target of this name.
            TargetError: its description cannot be read.
        """
        path = self._bundle(name) / "target.json"
        try:
            if path.stat().st_size > MAX_JSON_BYTES:
                raise ValueError("larger than 1 MiB")
            info = json.loads(path.read_text("utf-8"))
            return TargetDescription(
                name,
                str(info["kind"]),
                int(info["width"]),
                int(info["height"]),
                float(Fraction(info["fps"])),
                int(info["frames"]),
                float(info["duration_s"]),
                None if (consent := read_consent(info)) is None else consent.as_json(),
            )
        except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError, TargetError) as error:
            raise TargetError(f"{name}: target.json cannot be read ({error})") from error

    def poster(self, name: str) -> bytes:
        """A JPEG of at most 640 px a side; see `poster`. Drawn once for each calibration.

        Raises:
            UnknownTarget: no target of this name.
            TargetError: no picture where one should be.
        """
        fingerprint = self._fingerprint(name)
        kept = self._posters.get(name)
        if kept is None or kept[0] != fingerprint:
            kept = fingerprint, draw_poster(self._bundle(name))
            if len(self._posters) >= _MAX_POSTERS:
                self._posters.clear()
            self._posters[name] = kept
        return kept[1]

    def require_consent(self, name: str) -> None:
        """Without loading the target.

        Raises:
            UnknownTarget, TargetError: as `describe`.
            ConsentMissing: the bundle does not record the consent of the person shown.
        """
        folder = self._bundle(name)
        require_consent(folder.resolve().name, read_info(folder / "target.json"))

    async def engine(self, name: str) -> LiveEngine:
        """Ready to speak. A load runs in a thread; other targets' calls do not wait for it.

        Raises:
            UnknownTarget: no target of this name.
            TargetError: its bundle is damaged.
        """
        try:
            fingerprint = await asyncio.to_thread(self._fingerprint, name)
        except UnknownTarget:
            self._kept.pop(name, None)
            self._loaded.pop(name, None)
            raise
        loaded = self._loaded.get(name)
        engine = loaded.engine() if loaded is not None else None
        if loaded is None or engine is None or loaded.fingerprint != fingerprint:
            engine = await self._load_once(name, fingerprint)
        self._keep_last(name, engine)
        return engine

    def cores(self, engine: LiveEngine) -> float:
        """What the warm-up of an engine found: cores that one conversation keeps busy."""
        return engine.cores if isinstance(engine, RemoteEngine) else self._cores.get(engine, 0.0)

    def _keep_last(self, name: str, engine: LiveEngine) -> None:
        self._kept[name] = engine
        self._kept.move_to_end(name)
        while len(self._kept) > self._keep:
            self._kept.popitem(last=False)

    async def _load_once(self, name: str, fingerprint: Fingerprint) -> LiveEngine:
        """Everybody who asks meanwhile gets the same engine; one who leaves does not stop it."""
        task = self._loading.get((name, fingerprint))
        if task is None:

            def ended(task: asyncio.Task[LiveEngine]) -> None:
                del self._loading[name, fingerprint]
                if not task.cancelled() and task.exception() is None:
                    engine = task.result()
                    self._loaded[name] = _Loaded(fingerprint, weakref.ref(engine))
                    self._keep_last(name, engine)

            work = self._load_in_thread(name)
            task = asyncio.get_running_loop().create_task(work, name=f"load of {name}")
            task.add_done_callback(ended)
            self._loading[name, fingerprint] = task
        return await asyncio.shield(task)

    async def _load_in_thread(self, name: str) -> LiveEngine:
        made: list[LiveEngine] = []
        # Not as the thread's result: its futures refer to each other, and a `gc.freeze` while they
        # are alive would keep them, and the engine with them, for good.
        await asyncio.to_thread(lambda: made.append(self._load(name)))
        return made.pop()

    def _bundle(self, name: str) -> Path:
        if name not in self.names():  # also keeps out names that are paths
            raise UnknownTarget(f"no target {name!r}; /api/targets lists those that are here")
        return self._single or self.folder / (name + _SUFFIX)

    def _fingerprint(self, name: str) -> Fingerprint:
        """Of target.json, which holds the checksum of every other file of the bundle."""
        path = self._bundle(name) / "target.json"
        try:
            status = path.stat()
        except OSError as error:
            raise TargetError(f"{name}: target.json: {error.strerror}") from error
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _load(self, name: str) -> LiveEngine:
        folder = self._single or self.folder / (name + _SUFFIX)
        if self._workers is not None:
            return self._workers.engine(partial(self._setting.load, folder))
        engine = self._setting.load(folder)
        found = warm_up(engine)
        logger.info("target %s ready, warmed up in %.2f s", name, found.seconds)
        self._cores[engine] = found.cores
        return engine
