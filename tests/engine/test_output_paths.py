"""No command writes onto what it reads, whatever the name that it is given."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lipstream.engine.errors import UsageError
from lipstream.engine.output_paths import refuse_to_overwrite, remedy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A voice, a bundle and names that lead to them."""
    (tmp_path / "speech.wav").write_bytes(b"voice")
    (tmp_path / "me.target").mkdir()
    (tmp_path / "me.target" / "frames.mjpeg").write_bytes(b"frames")
    (tmp_path / "link.wav").symlink_to("speech.wav")
    os.link(tmp_path / "speech.wav", tmp_path / "hard.wav")
    (tmp_path / "other").symlink_to("me.target")
    (tmp_path / "sub").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "output",
    [
        "speech.wav", "./speech.wav", "sub/../speech.wav", "link.wav", "hard.wav", "SPEECH.WAV",
        "me.target", "me.target/out.mp4", "me.target/frames.mjpeg", "other/out.mp4", "ME.TARGET/a",
    ],
)  # fmt: skip
def test_an_input_is_not_an_output(
    folder: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match="cannot write"):
        refuse_to_overwrite(output, "me.target", "speech.wav")
    with pytest.raises(UsageError, match="cannot write"):
        refuse_to_overwrite(folder / output, Path("me.target"), folder / "speech.wav")


def test_a_folder_that_holds_an_input_is_not_replaced(folder: Path) -> None:
    with pytest.raises(UsageError, match="it holds"):
        refuse_to_overwrite(folder / "other", folder / "me.target" / "frames.mjpeg")


def test_a_composed_and_a_decomposed_letter_are_one_name(folder: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        refuse_to_overwrite(folder / "u\u0308ber.wav", folder / "\u00fcber.wav")


def test_other_names_are_free(folder: Path) -> None:
    (folder / "Speech2.wav").touch()
    for output in ("out.mp4", "speech.mp4", "sub/speech.wav", "Speech2.wav", "me.target2"):
        refuse_to_overwrite(folder / output, folder / "me.target", folder / "speech.wav", None)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "free some space"), (errno.EDQUOT, "free some space"),
        (errno.EACCES, "may write to"), (errno.EROFS, "may write to"),
        (errno.ENAMETOOLONG, "shorter name"), (errno.ENOTDIR, "another name or folder"),
        (errno.ELOOP, "another name or folder"),
    ],
)  # fmt: skip
def test_the_remedy_fits_the_error(number: int, says: str) -> None:
    assert says in remedy(OSError(number, os.strerror(number)))
