"""Assets: search order, checksums, and no partial files."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lipstream.calibration.assets import FACE_LANDMARKER, Asset, fetch, find
from lipstream.engine.errors import AssetError

CONTENT = b"a model" * 1000


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Asset]:
    """An asset on a server of this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "model.task").write_bytes(CONTENT)
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{httpd.server_address[1]}/model.task"
        digest = hashlib.sha256(CONTENT).hexdigest()
        yield Asset("model.task", url, digest, len(CONTENT))
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LIPSTREAM_ASSETS", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "lipstream"


def test_fetched_once_then_found(server: Asset, cache: Path) -> None:
    assert find(server) is None
    path = fetch(server)
    assert path == cache / "model.task"
    assert path.read_bytes() == CONTENT
    unreachable = dataclasses.replace(server, url="http://127.0.0.1:9/none")
    assert fetch(unreachable) == path


def test_own_folder_comes_first(
    server: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(server)
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("LIPSTREAM_ASSETS", str(own))
    assert find(server) != own / "model.task"
    (own / "model.task").write_bytes(CONTENT)
    assert find(server) == own / "model.task"
    (own / "model.task").write_bytes(CONTENT[:-1])
    with pytest.raises(AssetError, match="expected"):
        find(server)


def test_damaged_cache_is_replaced(server: Asset, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "model.task").write_bytes(b"half of it")
    assert fetch(server).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sha256": "0" * 64}, "expected 000000000000"),
        ({"size_bytes": 100}, "sends more than the 100 bytes"),
        ({"url": "http://127.0.0.1:9/model.task"}, "cannot be fetched"),
    ],
)
def test_a_file_other_than_the_pinned_one_is_refused(
    server: Asset, cache: Path, change: dict[str, str], says: str
) -> None:
    asset = dataclasses.replace(server, **change)  # type: ignore[arg-type]
    with pytest.raises(AssetError, match=says) as caught:
        fetch(asset)
    assert "LIPSTREAM_ASSETS" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_missing_on_the_server(server: Asset) -> None:
    with pytest.raises(AssetError, match="HTTP 404"):
        fetch(dataclasses.replace(server, url=server.url + "x"))


def test_the_pin_is_what_the_documentation_names() -> None:
    assert len(FACE_LANDMARKER.sha256) == 64
    assert FACE_LANDMARKER.url.endswith(FACE_LANDMARKER.name)
