"""Targets from URLs: fetched once, checked before use, kept within a size, by any file system."""

from __future__ import annotations

import functools
import http.server
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lipstream.engine.errors import TargetError, UnknownTarget, UsageError
from lipstream.engine.target.bundle import load_target
from lipstream.engine.target.bundle_checks import sha256_of
from lipstream.streaming.remote import bundle_cache
from lipstream.streaming.remote.locations import is_url
from lipstream.streaming.remote.targets import local_target, local_targets
from lipstream.streaming.server.targets import TargetRegistry

fsspec = pytest.importorskip("fsspec", reason="needs fsspec: pip install -e '.[remote]'")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own; what is in use by one test is not by the next."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache" / "lipstream" / "targets"
    let_go()


def let_go() -> None:
    """As if this process had ended."""
    while bundle_cache._in_use:
        bundle_cache._in_use.popitem()[1].close()


class _Counting(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 - of all instances, one a request

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bundles(target: Path, tmp_path: Path) -> Path:
    """A folder with `demo.target` and a second one."""
    folder = tmp_path / "bundles"
    for name in ("demo", "other one"):
        shutil.copytree(target, folder / f"{name}.target")
    return folder


@pytest.fixture
def web(bundles: Path) -> Iterator[str]:
    """The folder, served over HTTP."""
    _Counting.asked.clear()
    handler = functools.partial(_Counting, directory=str(bundles))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def files(asked: list[str]) -> list[str]:
    return [path for path in asked if not path.endswith("target.json")]


def same(one: Path, other: Path) -> bool:
    return {p.name: sha256_of(p) for p in one.iterdir()} == {
        p.name: sha256_of(p) for p in other.iterdir()
    }


def test_over_http_once(web: str, bundles: Path) -> None:
    first = local_target(f"{web}/demo.target")
    assert first.name == "demo.target"
    assert same(first, bundles / "demo.target")
    load_target(first)
    assert files(_Counting.asked)
    _Counting.asked.clear()
    assert local_target(f"{web}/demo.target/") == first
    assert files(_Counting.asked) == []


def test_a_target_that_was_calibrated_again_is_fetched_again(web: str, bundles: Path) -> None:
    first = local_target(f"{web}/demo.target")
    path = bundles / "demo.target" / "target.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sharpen": 0.25}))
    second = local_target(f"{web}/demo.target")
    assert second != first
    assert json.loads((second / "target.json").read_text())["sharpen"] == 0.25
    assert first.is_dir()  # calls that go on keep it


def test_from_memory_and_from_files(bundles: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(bundles / "demo.target"), "/store/demo.target", recursive=True)
    try:
        assert same(local_target("memory://store/demo.target"), bundles / "demo.target")
    finally:
        memory.rm("/store", recursive=True)
    assert same(local_target(f"file://{bundles}/demo.target"), bundles / "demo.target")


def test_a_folder_of_targets(web: str, bundles: Path) -> None:
    for url in (web, f"file://{bundles}"):
        registry = TargetRegistry(local_targets(url))
        assert registry.names() == ["demo", "other one"]
        assert registry.describe("other one").frames > 0
    assert TargetRegistry(local_targets(f"{web}/demo.target")).names() == ["demo"]
    (bundles / "empty").mkdir()
    with pytest.raises(UsageError, match="no NAME.target in it"):
        local_targets(f"file://{bundles}/empty")


def test_what_is_on_this_machine_is_left_where_it_is(tmp_path: Path, cache: Path) -> None:
    for name in ("a.target", "C:\\a.target", "x:y.target", str(tmp_path)):
        assert not is_url(name)
        assert local_target(name) == Path(name)
    assert not cache.exists()


def test_a_client_of_a_server_names_no_url(web: str, bundles: Path) -> None:
    registry = TargetRegistry(bundles)
    _Counting.asked.clear()
    for name in (f"{web}/demo.target", f"{web}/demo", f"file://{bundles}/demo"):
        with pytest.raises(UnknownTarget):
            registry.describe(name)
    assert _Counting.asked == []


@pytest.mark.parametrize("fault", ["changed", "short", "long", "gone", "named", "old", "text"])
def test_what_is_no_whole_bundle_is_never_kept(
    web: str, bundles: Path, cache: Path, fault: str
) -> None:
    bundle = bundles / "demo.target"
    frames, path = bundle / "frames.mjpeg", bundle / "target.json"
    info = json.loads(path.read_text())
    data = bytearray(frames.read_bytes())
    if fault == "changed":
        data[-1] ^= 1
    elif fault == "short":
        del data[-1]
    elif fault == "long":
        data += bytes(1 << 21)
    elif fault == "named":
        info["files"]["../../planted"] = {"bytes": 1, "sha256": "00"}
    elif fault == "old":
        info["schema_version"] = 2
    frames.write_bytes(data)
    path.write_text("no bundle" if fault == "text" else json.dumps(info))
    if fault == "gone":
        frames.unlink()
    expected = {
        "changed": "sha256 differs", "short": "size differs", "long": "larger than",
        "gone": "frames.mjpeg", "named": "no part of a bundle", "old": "schema_version is 2",
        "text": "not valid JSON",
    }[fault]  # fmt: skip
    with pytest.raises(TargetError, match=expected) as raised:
        local_target(f"{web}/demo.target")
    assert str(raised.value).startswith(f"{web}/demo.target: ")
    assert [p.name for p in cache.iterdir() if p.is_dir()] == []


def test_a_damaged_copy_is_fetched_again(web: str, bundles: Path) -> None:
    kept = local_target(f"{web}/demo.target")
    (kept / "frames.mjpeg").write_bytes(b"")
    assert same(local_target(f"{web}/demo.target"), bundles / "demo.target")


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("http://127.0.0.1:1/a.target", TargetError, "http://127.0.0.1:1/a.target: cannot be read"),
        ("http://me:secret@127.0.0.1:1/a.target?key=secret", TargetError, "cannot be read"),
        ("file:///none/a.target", TargetError, "no target there"),
        ("nosuch://a.target", UsageError, "nosuch"),
        ("gs://bucket/a.target", UsageError, "gcsfs"),
    ],
)
def test_what_cannot_be_read(url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        local_target(url)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_used_longest_ago_is_removed_but_not_what_is_in_use(
    bundles: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = local_target(f"file://{bundles}/demo.target")
    size_mb = -(-sum(p.stat().st_size for p in one.iterdir()) >> 20) + 1
    monkeypatch.setenv("LIPSTREAM_CACHE_MB", str(size_mb))
    other = local_target(f"file://{bundles}/other one.target")
    assert one.is_dir() and other.is_dir()  # both are in use
    let_go()
    os.utime(cache / f"{one.parent.name}.use", (1, 1))
    third = shutil.copytree(bundles / "demo.target", bundles / "third.target")
    kept = local_target(f"file://{third}")
    assert not one.exists() and not other.exists() and kept.is_dir()
    monkeypatch.setenv("LIPSTREAM_CACHE_MB", "0")
    with pytest.raises(TargetError, match="more than the cache takes"):
        local_target(f"file://{bundles}/demo.target")
    monkeypatch.setenv("LIPSTREAM_CACHE_MB", "some")
    with pytest.raises(UsageError, match="LIPSTREAM_CACHE_MB is 'some'"):
        local_target(f"file://{bundles}/demo.target")


def fetch_in_process(url: str, begin: object, answers: object) -> None:
    begin.wait()  # type: ignore[attr-defined]
    answers.put(str(local_target(url)))  # type: ignore[attr-defined]


def test_two_processes_fetch_it_once(web: str, bundles: Path) -> None:
    context = multiprocessing.get_context("spawn")
    begin, answers = context.Barrier(2), context.Queue()
    arguments = (f"{web}/demo.target", begin, answers)
    both = [context.Process(target=fetch_in_process, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    found = {answers.get(timeout=60) for _ in both}
    for process in both:
        process.join()
    assert len(found) == 1
    assert same(Path(found.pop()), bundles / "demo.target")
    names = [path.rpartition("/")[2] for path in files(_Counting.asked)]
    assert len(names) == len(set(names)) or names.count("frames.mjpeg") <= 2
