"""`verify` on what becomes of a file: cut, encoded again, in another container; and on footage.

A film of 2 s that does not stand still; its mark must be found by the frames alone.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lipstream.cli import run
from lipstream.engine.errors import MediaError
from lipstream.streaming.files import verify as verify_module
from lipstream.streaming.files.provenance import Provenance
from lipstream.streaming.files.verify import Watermark, verify
from lipstream.streaming.marking.marker import Marking
from tests.streaming.marked_files import write_marked

SIZE = (320, 240)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_marked(path, None, Provenance.of(None), seconds=2, size=SIZE)
    return path


@pytest.fixture(scope="module")
def session(film: Path) -> str | None:
    """The id in its frames."""
    return verify(str(film)).watermark.session


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures without a mark."""
    path = tmp_path_factory.mktemp("plain") / "plain.mp4"
    write_marked(path, Marking.parse("off:a test", "a test"), None, seconds=2, size=SIZE)
    return path


def other_container(film: Path, out: Path) -> Path:
    with av.open(str(film)) as source, av.open(str(out), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    return out


def encoded_again(film: Path, out: Path) -> Path:
    with av.open(str(film)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream("libvpx", rate=25, options={"cpu-used": "16"})
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.bit_rate = "yuv420p", 800_000
        for frame in source.decode(video=0):
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return out


def test_as_it_was_written(film: Path) -> None:
    found = verify(str(film))
    assert found.marked and found.label == "corner"
    assert found.manifest is not None and found.manifest.intact
    assert found.watermark.session == found.manifest.watermark
    assert found.watermark.p_value < 1e-9
    text = found.as_text()
    assert f"watermark  {found.watermark.session}, as in the manifest (" in text


def test_cut_in_half(film: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.mp4"
    data = film.read_bytes()
    half.write_bytes(data[: len(data) // 2])
    found = verify(str(half))
    assert found.marked and found.watermark.found
    assert found.manifest is not None and not found.manifest.intact
    assert found.watermark.session == found.manifest.watermark
    assert "broken: the file was changed since it was signed" in found.as_text()
    # The manifest alone, of a file whose frames are gone.
    half.write_bytes(data[:200])
    with pytest.raises(MediaError, match=r"half\.mp4: cannot be read"):
        verify(str(half))


def test_in_another_container(film: Path, session: str, tmp_path: Path) -> None:
    found = verify(str(other_container(film, tmp_path / "other.mkv")))
    assert found.marked and found.manifest is None and found.label == "corner"
    assert found.watermark.session == session


def test_encoded_again(film: Path, session: str, tmp_path: Path) -> None:
    """Codecs, scales and crops at length: tests/engine/watermark."""
    found = verify(str(encoded_again(film, tmp_path / "again.webm")))
    assert found.marked and found.manifest is None and found.label == "corner"
    assert found.watermark.session == session


def test_the_manifest_of_another_film(film: Path, tmp_path: Path) -> None:
    """A valid manifest, and another session's frames: both are said."""
    other = tmp_path / "other.mkv"
    write_marked(other, None, Provenance.of(None), seconds=2, size=SIZE)
    shutil.move(other_container(film, tmp_path / "moved.mkv"), other)
    found = verify(str(other))
    assert found.manifest is not None and not found.manifest.intact and found.marked
    assert found.watermark.session != found.manifest.watermark
    assert f"not {found.manifest.watermark}" in found.as_text()


def test_a_still_of_a_film(film: Path, tmp_path: Path) -> None:
    with av.open(str(film)) as source:
        still = next(source.decode(video=0)).to_image()
    still.save(tmp_path / "still.jpg", quality=90)
    found = verify(str(tmp_path / "still.jpg"))
    assert found.watermark.frames == 1 and found.label == "corner"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "tiny.png")
    assert not verify(str(tmp_path / "tiny.png")).marked


def test_codes_texts_and_json(
    film: Path, plain: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(film), "--json"]) == 0
    marked = json.loads(capfd.readouterr().out)
    assert marked["marked"] and marked["manifest"]["intact"] and marked["watermark"]["found"]
    assert run(["verify", str(plain)]) == 1
    assert capfd.readouterr().out == (
        f"{plain}: no valid mark found\n"
        "  manifest   none\n"
        "  watermark  none found in 50 frames\n"
        "  label      none found\n"
    )
    assert run(["verify", str(tmp_path / "nothing.mp4")]) == 2


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_at_an_address(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Watermark(False, None, 1.0, 0)
    monkeypatch.setattr(verify_module, "_find_watermark", lambda lumas: list(lumas) and nothing)
    handler = partial(Quiet, directory=str(film.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        found = verify(f"{address}/film.mp4")
        assert found.marked and found.manifest is not None and found.manifest.intact
        with pytest.raises(MediaError, match=f"{address}/none.mp4: 404"):
            verify(f"{address}/none.mp4")
        server.shutdown()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/a.mp4"
        with pytest.raises(MediaError, match=nobody):
            verify(nobody)


@pytest.mark.clips
def test_real_footage_is_not_marked() -> None:
    import os

    folder = os.environ.get("LIPSTREAM_TEST_DATA")
    if folder is None:
        pytest.skip("needs the real clips: LIPSTREAM_TEST_DATA")
    clip = next(iter(sorted(Path(folder).glob("video/*.mp4"))))
    found = verify(str(clip))
    assert not found.marked and found.label is None
