"""A bundle is replaced as a whole, and what is called unwritable is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from lipstream.calibration import bundle_writer
from lipstream.calibration.bundle_writer import FrameFile, bundle_folder
from lipstream.engine.errors import MediaError, UsageError


def bundle(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "target.json").write_text(content)
    return path


def write_new(output: Path) -> None:
    with bundle_folder(output) as folder:
        (folder / "target.json").write_text("new")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("exists", [False, True])
def test_a_finished_bundle_has_its_name(tmp_path: Path, exists: bool) -> None:
    output = tmp_path / "a.target"
    if exists:
        bundle(output, "old")
    write_new(output)
    assert (output / "target.json").read_text() == "new"
    assert names(tmp_path) == ["a.target"]


def test_an_error_in_the_block_keeps_the_old_bundle(tmp_path: Path) -> None:
    output = bundle(tmp_path / "a.target", "old")
    with pytest.raises(KeyboardInterrupt), bundle_folder(output) as folder:
        (folder / "target.json").write_text("new")
        raise KeyboardInterrupt
    assert (output / "target.json").read_text() == "old"
    assert names(tmp_path) == ["a.target"]


def test_the_old_bundle_is_put_back_where_the_new_one_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, calls = bundle(tmp_path / "a.target", "old"), list[Path]()
    rename = Path.rename

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(MediaError, match="Input/output error"):
        write_new(output)
    assert (output / "target.json").read_text() == "old"
    assert names(tmp_path) == ["a.target"]


def test_the_old_bundle_is_not_deleted_where_it_cannot_be_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, calls = bundle(tmp_path / "a.target", "old"), list[Path]()
    rename = Path.rename

    def all_but_the_first_fail(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) > 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", all_but_the_first_fail)
    with pytest.raises(MediaError):
        write_new(output)
    assert [p.read_text() for p in tmp_path.rglob("old/target.json")] == ["old"]


def test_an_error_of_the_system_that_is_not_about_writing_passes_through(tmp_path: Path) -> None:
    missing = OSError("libEGL.so.1: cannot open shared object file")
    with pytest.raises(OSError, match="libEGL") as raised, bundle_folder(tmp_path / "a.target"):
        raise missing
    assert raised.value is missing
    assert names(tmp_path) == []


def test_a_full_disk_is_named_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    frame = np.full((96, 64), 128, np.uint8)
    with (
        pytest.raises(MediaError, match=r"^a\.target/frames\.mjpeg: .*No space left"),
        bundle_folder(tmp_path / "a.target") as folder,
        FrameFile(folder, 64, 64) as frames,
    ):
        monkeypatch.setattr(frames._writer, "append", full)
        frames.append(frame)
    monkeypatch.setattr(Path, "write_text", full)
    with (
        pytest.raises(MediaError, match=r"^a\.target/target\.json: .*No space left"),
        bundle_folder(tmp_path / "a.target") as folder,
    ):
        bundle_writer._write_info(folder, {})
    assert names(tmp_path) == []


def test_tensors_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"^absent/x\.safetensors: cannot be written"):
        bundle_writer._save(tmp_path / "absent" / "x.safetensors", {"a": np.zeros(3)})


def test_another_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="not a target bundle"):
        write_new(tmp_path / "mine")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MediaError, match="cannot be written"):
        write_new(tmp_path / "file" / "a.target")
