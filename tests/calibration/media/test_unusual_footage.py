"""Containers without an index, elementary streams, side data, interlaced and changing pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lipstream.calibration.media.video import is_photo, open_footage, read_photo
from lipstream.engine.errors import MediaError
from tests.calibration.media.made_footage import (
    corner_names,
    corners,
    number_of,
    numbered,
    write_video,
)

GOP = {"g": "250", "keyint_min": "250", "sc_threshold": "0", "crf": "8", "bf": "2"}


def numbers(path: Path, start_s: float | None = None, end_s: float | None = None) -> list[int]:
    with open_footage(path, start_s, end_s) as footage:
        return [number_of(frame.rgb) for frame in footage]


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".ts", "libx264", GOP),
        (".m2ts", "libx264", {**GOP, "g": "30", "keyint_min": "30"}),
        (".ts", "mpeg2video", {"g": "12", "qmin": "1", "qmax": "3", "bf": "2"}),
        (".mpg", "mpeg2video", {"g": "40", "qmin": "1", "qmax": "3", "bf": "2"}),
    ],
)
def test_footage_without_an_index_is_read_whole_and_from_any_time(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    images = [numbered(160, 96, k) for k in range(100)]
    path = write_video(tmp_path / f"a{suffix}", images, codec=codec, options=options)
    assert numbers(path) == list(range(100))
    assert numbers(path, 2.4, 3.0) == list(range(60, 75))


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".h264", "libx264", {"crf": "8"}),
        (".hevc", "libx265", {"crf": "8", "x265-params": "log-level=none"}),
        (".m2v", "mpeg2video", {"qmin": "1", "qmax": "3"}),
        (".ivf", "libvpx", {"crf": "4", "b": "4M", "deadline": "realtime", "cpu-used": "8"}),
    ],
)
def test_elementary_streams_are_read(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    images = [numbered(160, 96, k) for k in range(30)]
    path = write_video(tmp_path / f"a{suffix}", images, codec=codec, options=options)
    with open_footage(path) as footage:
        assert footage.fps == 25
        assert [number_of(frame.rgb) for frame in footage] == list(range(30))
    assert numbers(path, 0.4, 0.8) == list(range(10, 20))


def test_side_data_that_pyav_does_not_know_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "e.avif"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    exif[0x010F] = "maker"
    Image.fromarray(corners(160, 96)).save(path, exif=exif, quality=95)
    with open_footage(path) as footage:  # not as a photo: FFmpeg hands out EXIF with the frame
        assert corner_names(next(iter(footage)).rgb) == ["bl", "tl", "br", "tr"]
    assert is_photo(path) and corner_names(read_photo(path)) == ["bl", "tl", "br", "tr"]


def test_jpegs_behind_one_another_are_footage_by_their_name(tmp_path: Path) -> None:
    Image.fromarray(corners(160, 96)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.mjpeg").write_bytes(data * 5)
    (tmp_path / "b.jpg").write_bytes(data * 3)  # as a phone's photo with its depth map
    assert is_photo(tmp_path / "b.jpg") and not is_photo(tmp_path / "a.mjpeg")
    with open_footage(tmp_path / "a.mjpeg") as footage:
        assert [corner_names(frame.rgb)[0] for frame in footage] == ["tl"] * 5


def bars(x: int) -> np.ndarray:
    """Bright bars on a dark ground, moved to the right by `x` px, u8 [96, 160, 3]."""
    out = np.full((96, 160, 3), 40, np.uint8)
    for left in range(x % 40, 160, 40):
        out[:, left : left + 12] = 220
    return out


def combed(rgb: np.ndarray) -> float:
    """Mean difference of neighbouring lines."""
    return float(np.abs(np.diff(rgb[:, :, 1].astype(int), axis=0)).mean())


@pytest.mark.parametrize("flag", [True, False])
def test_interlaced_footage_is_deinterlaced(tmp_path: Path, flag: bool) -> None:
    images = []
    for k in range(20):
        image = bars(8 * k)
        image[1::2] = bars(8 * k + 4)[1::2]
        images.append(image)
    assert combed(images[5]) > 15
    options = {"crf": "4", **({"flags": "+ildct+ilme"} if flag else {})}
    path = write_video(tmp_path / "i.mp4", images, options=options)
    with open_footage(path) as footage:
        frames = [frame.rgb for frame in footage]
        assert any("interlaced" in note for note in footage.notes)
    assert len(frames) == 20
    assert max(combed(rgb) for rgb in frames[1:-1]) < 4
    # Each is the picture of its first field: the lower one by the encoder's flag, else the upper.
    first = bars(44 if flag else 40)
    assert np.abs(frames[5].astype(int) - first).mean() < 8


def test_progressive_footage_stays_as_it_is(tmp_path: Path) -> None:
    path = write_video(tmp_path / "p.mp4", [bars(8 * k) for k in range(20)])
    with open_footage(path) as footage:
        assert footage.notes == ()


def joined(tmp_path: Path, first: np.ndarray, second: np.ndarray) -> Path:
    """Two seconds of each picture, as one transport stream."""
    parts = [
        write_video(
            tmp_path / f"{k}.ts",
            [image] * 50,
            pts=[50 * k + n for n in range(50)],
            time_base=Fraction(1, 25),
            options={"crf": "8", "bf": "0"},
        ).read_bytes()
        for k, image in enumerate((first, second))
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    return path


def test_a_picture_that_changes_its_shape_is_refused_with_the_time(tmp_path: Path) -> None:
    path = joined(tmp_path, corners(96, 96), corners(192, 96))
    with pytest.raises(MediaError, match="from 96x96 to 192x96 at 2.00 s.*--end 2.00") as caught:
        numbers(path)
    assert "\n" not in str(caught.value)
    with open_footage(path, None, 2.0) as footage:
        assert len(list(footage)) == 50
    with open_footage(path, 2.0) as footage:
        assert (footage.width, footage.height) == (192, 96)
        assert len(list(footage)) == 50


def test_another_size_of_one_shape_is_scaled(tmp_path: Path) -> None:
    path = joined(tmp_path, corners(160, 96), corners(320, 192))
    with open_footage(path) as footage:
        frames = list(footage)
    assert len(frames) == 100
    assert frames[-1].rgb.shape == (96, 160, 3)
    assert corner_names(frames[-1].rgb) == ["tl", "tr", "bl", "br"]


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".avif", ".jp2", ".webp", ".tiff", ".png"])
def test_still_pictures_are_photos(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"still{suffix}"
    Image.fromarray(corners(160, 96)).save(path)
    assert is_photo(path)
    assert corner_names(read_photo(path)) == ["tl", "tr", "bl", "br"]


def test_a_turned_tiff_is_shown_upright(tmp_path: Path) -> None:
    path = tmp_path / "turned.tif"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(corners(160, 96)).save(path, exif=exif)
    assert corner_names(read_photo(path)) == ["bl", "tl", "br", "tr"]


def test_an_animation_is_footage(tmp_path: Path) -> None:
    for suffix in (".gif", ".webp", ".png"):
        path = tmp_path / f"moving{suffix}"
        frames = [Image.fromarray(numbered(160, 96, k)) for k in range(4)]
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, loop=0)
        assert not is_photo(path)


def test_a_heic_picture_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    assert is_photo(path)
    with pytest.raises(MediaError, match="save it as JPEG"):
        read_photo(path)
