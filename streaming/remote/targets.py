"""Targets by their URLs: fetched once a machine, checked, and kept by the hash of their content.

    ~/.cache/lipstream/targets/
      KEY/NAME.target/    a bundle; KEY is the hash of its target.json and of its name
      KEY.fetch           locked while it is fetched, so that two processes fetch it once
      KEY.use             locked by all that use it, changed when one begins to

target.json holds the sha256 of every other file, so that its own hash stands for the whole bundle.
It is read from the URL each time: a target that was calibrated again is fetched again. What was
used longest ago is removed when all together are larger than LIPSTREAM_CACHE_MB; what is in use
stays.
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from lipstream.engine.errors import TargetError, UsageError
from lipstream.engine.paths import cache_folder
from lipstream.engine.target.bundle_checks import (
    MAX_JSON_BYTES,
    check_files,
    listed_files,
    read_info,
)
from lipstream.streaming.remote.bundle_cache import limit_bytes, locked, make_room, use
from lipstream.streaming.remote.locations import (
    Location,
    about,
    blocks,
    is_url,
    locate,
    reading,
    safe_name,
)

_SUFFIX: Final = ".target"


def local_target(target: str) -> Path:
    """The folder of a target, fetched where it is given by a URL.

    Raises:
        UsageError: no fsspec, or none that knows this kind of URL.
        TargetError: it cannot be read there, or is no whole bundle.
    """
    return fetched(locate(target)) if is_url(target) else Path(target)


def local_targets(targets: str) -> Path:
    """A folder of targets, or a single one; each is fetched now.

    Raises: as `local_target`; UsageError for a URL with no target in it.
    """
    if not is_url(targets):
        return Path(targets)
    location = locate(targets)
    with reading(location):
        single = location.system.exists(location.below("target.json"))
        entries = [] if single else location.system.ls(location.path, detail=False)
    if single:
        return fetched(location)
    found = sorted({str(e).rstrip("/") for e in entries if str(e).rstrip("/").endswith(_SUFFIX)})
    if not found:
        raise UsageError(
            f"{location.url}: no NAME.target in it; expected a target or a folder of them"
        )
    view = Path(tempfile.mkdtemp(prefix="lipstream-targets-"))
    atexit.register(shutil.rmtree, view, ignore_errors=True)
    for path in found:
        bundle = fetched(Location(f"{location.url}/{safe_name(path)}", location.system, path))
        (view / bundle.name).symlink_to(bundle, target_is_directory=True)
    return view


def json_sha256(target: str) -> str:
    """Of the target.json of a URL. Raises: as `local_target`."""
    return hashlib.sha256(_read_json(locate(target))).hexdigest()


def fetched(location: Location) -> Path:
    """The bundle, from the cache where it is there; in use from now on."""
    data = _read_json(location)
    name = safe_name(location.path)
    name = name if name.endswith(_SUFFIX) else name + _SUFFIX
    key = hashlib.sha256(data + name.encode()).hexdigest()
    folder = cache_folder() / "targets"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f"{key}.fetch"):
        use(folder / f"{key}.use")
        bundle = folder / key / name
        if not _is_whole(bundle):
            _fetch(location, data, bundle)
    make_room(folder)
    return bundle


def _fetch(location: Location, data: bytes, bundle: Path) -> None:
    """Into a temporary folder, which gets its name when everything is there and checked."""
    folder = bundle.parent
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name[:16]}.", dir=folder.parent))
    try:
        made = work / bundle.name
        made.mkdir()
        (made / "target.json").write_bytes(data)
        with about(location):
            info = read_info(made / "target.json")
            sizes = listed_files(info)
        if sum(sizes.values()) > limit_bytes():
            raise TargetError(
                f"{location.url}: {sum(sizes.values()) >> 20} MiB, more than the cache takes; "
                "set LIPSTREAM_CACHE_MB"
            )
        for name, size in sizes.items():
            with reading(location):
                _copy(location.system, location.below(name), made / name, size)
        with about(location):
            check_files(made, info)
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _copy(system: Any, path: str, to: Path, size: int) -> None:
    """No more than target.json states, whatever is sent."""
    with to.open("wb") as file:
        for block in blocks(system, path, size + 1):
            file.write(block)
    if to.stat().st_size > size:
        raise TargetError(f"{to.name}: larger than target.json says")


def _read_json(location: Location) -> bytes:
    with reading(location):
        path = location.below("target.json")
        data = b"".join(blocks(location.system, path, MAX_JSON_BYTES + 1))
    if len(data) > MAX_JSON_BYTES:
        raise TargetError(f"{location.url}: target.json is larger than 1 MiB; not a bundle of ours")
    return data


def _is_whole(bundle: Path) -> bool:
    try:
        check_files(bundle, read_info(bundle / "target.json"))
    except TargetError:
        return False
    return True
