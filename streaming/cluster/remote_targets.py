"""Targets by their URLs: fetched once a machine, checked, and kept by the hash of their content.

    ~/.cache/lipstream/targets/
      KEY/NAME.target/    a bundle; KEY is the hash of its target.json and of its name
      KEY.fetch           locked while it is fetched, so that two processes fetch it once
      KEY.use             locked by all that use it, changed when one begins to

target.json holds the sha256 of every other file, so that its own hash stands for the whole bundle.
It is read from the URL each time: a target that was calibrated again is fetched again. What was
used longest ago is removed when all together are larger than LIPSTREAM_CACHE_MB; what is in use
stays.

A URL comes from who runs the command, and from nobody else: no request to a server, and no bundle,
names one.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple
from urllib.parse import unquote

from lipstream.engine.errors import LipstreamError, TargetError, UsageError
from lipstream.engine.extras import require
from lipstream.engine.paths import cache_folder
from lipstream.engine.target.bundle_checks import (
    MAX_JSON_BYTES,
    check_files,
    listed_files,
    read_info,
)

# Two letters at least: "C:" is a drive. "::" chains file systems, as in simplecache::s3://...
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")
_SUFFIX: Final = ".target"
_DEFAULT_MB: Final = 8192
_BLOCK_BYTES: Final = 1 << 20
_SILENT_S: Final = 60.0  # after which a web server is given up
_ABANDONED_S: Final = 86_400.0  # after which a fetch that never ended is removed

_in_use: dict[Path, IO[bytes]] = {}  # locked for as long as this process lives


class _Source(NamedTuple):
    """Where a URL leads to."""

    url: str  # to be shown: without user, password and query
    system: Any  # an fsspec file system
    path: str  # in it


def is_url(target: str) -> bool:
    """Whether a target is elsewhere; what lies on this machine under that name goes first."""
    return _URL.match(target) is not None and not Path(target).exists()


def local_target(target: str) -> Path:
    """The folder of a target, fetched where it is given by a URL.

    Raises:
        UsageError: no fsspec, or none that knows this kind of URL.
        TargetError: it cannot be read there, or is no whole bundle.
    """
    return fetched(_source(target)) if is_url(target) else Path(target)


def local_targets(targets: str) -> Path:
    """A folder of targets, or a single one; each is fetched now.

    Raises: as `local_target`; UsageError for a URL with no target in it.
    """
    if not is_url(targets):
        return Path(targets)
    source = _source(targets)
    with _reading(source):
        if source.system.exists(_below(source, "target.json")):
            return fetched(source)
        entries = source.system.ls(source.path, detail=False)
    found = sorted({str(e).rstrip("/") for e in entries if str(e).rstrip("/").endswith(_SUFFIX)})
    if not found:
        raise UsageError(
            f"{source.url}: no NAME.target in it; expected a target or a folder of them"
        )
    view = Path(tempfile.mkdtemp(prefix="lipstream-targets-"))
    atexit.register(shutil.rmtree, view, ignore_errors=True)
    for path in found:
        bundle = fetched(_Source(f"{source.url}/{_name(path)}", source.system, path))
        (view / bundle.name).symlink_to(bundle, target_is_directory=True)
    return view


def json_sha256(target: str) -> str:
    """Of the target.json of a URL. Raises: as `local_target`."""
    return hashlib.sha256(_read_json(_source(target))).hexdigest()


def fetched(source: _Source) -> Path:
    """The bundle, from the cache where it is there; in use from now on."""
    data = _read_json(source)
    name = _name(source.path)
    name = name if name.endswith(_SUFFIX) else name + _SUFFIX
    key = hashlib.sha256(data + name.encode()).hexdigest()
    folder = cache_folder() / "targets"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{key}.fetch"):
        _use(folder / f"{key}.use")
        bundle = folder / key / name
        if not _is_whole(bundle):
            _fetch(source, data, bundle)
    _make_room(folder)
    return bundle


def _fetch(source: _Source, data: bytes, bundle: Path) -> None:
    """Into a temporary folder, which gets its name when everything is there and checked."""
    folder = bundle.parent
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name[:16]}.", dir=folder.parent))
    try:
        made = work / bundle.name
        made.mkdir()
        (made / "target.json").write_bytes(data)
        with _about(source):
            info = read_info(made / "target.json")
            sizes = listed_files(info)
        if sum(sizes.values()) > _limit_bytes():
            raise TargetError(
                f"{source.url}: {sum(sizes.values()) >> 20} MiB, more than the cache takes; "
                "set LIPSTREAM_CACHE_MB"
            )
        for name, size in sizes.items():
            with _reading(source):
                _copy(source.system, _below(source, name), made / name, size)
        with _about(source):
            check_files(made, info)
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _copy(system: Any, path: str, to: Path, size: int) -> None:
    """No more than target.json states, whatever is sent."""
    with to.open("wb") as file:
        for block in _blocks(system, path, size + 1):
            file.write(block)
    if to.stat().st_size > size:
        raise TargetError(f"{to.name}: larger than target.json says")


def _read_json(source: _Source) -> bytes:
    with _reading(source):
        path = _below(source, "target.json")
        data = b"".join(_blocks(source.system, path, MAX_JSON_BYTES + 1))
    if len(data) > MAX_JSON_BYTES:
        raise TargetError(f"{source.url}: target.json is larger than 1 MiB; not a bundle of ours")
    return data


def _blocks(system: Any, path: str, limit: int) -> Iterator[bytes]:
    """A file from its beginning, at most `limit` bytes of it."""
    # Many web servers know no ranges: 0 is one request, read as it comes.
    whole = {"block_size": 0} if _is_http(system.protocol) else {}
    with system.open(path, "rb", **whole) as file:
        while limit and (block := file.read(min(_BLOCK_BYTES, limit))):
            yield block
            limit -= len(block)


def _is_http(protocol: str | Sequence[str]) -> bool:
    names = [protocol] if isinstance(protocol, str) else protocol
    return any(name in ("http", "https") for name in names)


def _source(url: str) -> _Source:
    require("remote", "a target's URL", "fsspec")
    from fsspec.core import url_to_fs

    shown = _without_secrets(url).rstrip("/")
    options: dict[str, Any] = {}
    if _is_http(url.partition("://")[0].lower()):
        from aiohttp import ClientTimeout

        # Not of the whole file, which may be large.
        options["client_kwargs"] = {"timeout": ClientTimeout(total=None, sock_read=_SILENT_S)}
    try:
        system, path = url_to_fs(url, **options)
    except (ImportError, ValueError) as error:  # each says which package it needs
        raise UsageError(f"{shown}: {' '.join(str(error).split())}") from error
    return _Source(shown, system, str(path).rstrip("/"))


def _below(source: _Source, name: str) -> str:
    return f"{source.path}/{name}"


def _name(path: str) -> str:
    """Of the bundle's folder: the last part of its path, without what could lead elsewhere."""
    name = re.sub(r"[^\w. +=@,()-]", "_", unquote(path).rstrip("/").rpartition("/")[2])[:100]
    return name.lstrip(".") or "remote"


@contextlib.contextmanager
def _reading(source: _Source) -> Iterator[None]:
    """What any file system raises, as one line about the URL."""
    try:
        with _about(source):
            yield
    except LipstreamError:
        raise
    except Exception as error:  # the errors of file systems have no common base
        # fsspec calls whatever keeps it from opening a web address a missing file.
        cause = error.__cause__ or error
        if isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) == 404:
            name = _name(str(error)) or "a file"
            raise TargetError(f"{source.url}: no target there: {name} is missing") from error
        why = " ".join(_without_secrets(str(cause)).split()) or type(cause).__name__
        raise TargetError(f"{source.url}: cannot be read ({why[:200]})") from error


def _without_secrets(text: str) -> str:
    """Without the user, the password and the query of a URL."""
    return re.sub(r"\?\S*", "", re.sub(r"//[^/@\s]*@", "//", text))


@contextlib.contextmanager
def _about(source: _Source) -> Iterator[None]:
    try:
        yield
    except TargetError as error:
        raise TargetError(f"{source.url}: {error}") from error


def _is_whole(bundle: Path) -> bool:
    try:
        check_files(bundle, read_info(bundle / "target.json"))
    except TargetError:
        return False
    return True


# ---- the cache: locks, and its size


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        _lock(file)
        yield


def _lock(file: IO[bytes], shared: bool = False, wait: bool = True) -> bool:
    """False where another process holds it. Windows has no such locks: nothing is removed there."""
    try:
        import fcntl
    except ImportError:
        return wait
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        return False
    return True


def _use(path: Path) -> None:
    """Keep a bundle from being removed for as long as this process lives."""
    if path not in _in_use:
        file = path.open("ab")
        _lock(file, shared=True)
        _in_use[path] = file
    os.utime(path)


def _limit_bytes() -> int:
    """Raises: UsageError."""
    text = os.environ.get("LIPSTREAM_CACHE_MB", "")
    if text and not text.isdecimal():
        raise UsageError(f"LIPSTREAM_CACHE_MB is {text!r}; expected a number of megabytes")
    return (int(text) if text else _DEFAULT_MB) << 20


def _make_room(folder: Path) -> None:
    """Remove what was used longest ago, until the rest fits."""
    entries = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process removes it
            if path.name.startswith("."):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir():
                used = path.with_name(f"{path.name}.use").stat().st_mtime
                entries.append((used, path, _bytes(path)))
    total, limit = sum(size for *_, size in entries), _limit_bytes()
    for _, path, size in sorted(entries):
        if total <= limit:
            return
        if _remove(path):
            total -= size


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(entry: Path) -> bool:
    """Unless a process uses or fetches it."""
    fetch, use = (entry.with_name(f"{entry.name}.{kind}") for kind in ("fetch", "use"))
    with fetch.open("ab") as one, use.open("ab") as other:
        if use in _in_use or not _lock(one, wait=False) or not _lock(other, wait=False):
            return False
        shutil.rmtree(entry, ignore_errors=True)
    return True  # the two empty files stay: another process may hold them open
