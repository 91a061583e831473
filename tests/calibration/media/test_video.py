"""Footage of unusual kinds, made here by FFmpeg: orientation, size, rate, color and timing."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lipstream.calibration.media.probe import constant_rate
from lipstream.calibration.media.video import is_photo, open_footage, read_photo, read_sound
from lipstream.engine.errors import MediaError
from tests.calibration.media.made_footage import (
    COLOURS,
    corner_names,
    corners,
    number_of,
    numbered,
    write_video,
)


def test_plain_video_is_read_frame_by_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [numbered(160, 96, k) for k in range(40)])
    with open_footage(path) as footage:
        assert (footage.width, footage.height, footage.fps) == (160, 96, Fraction(25))
        assert footage.notes == ()
        assert footage.expected_frames == 40
        frames = list(footage)
    assert [number_of(f.rgb) for f in frames] == list(range(40))
    assert [f.index for f in frames] == list(range(40))
    assert not any(f.repeated for f in frames)
    assert frames[0].rgb.flags.c_contiguous and frames[0].i420.flags.c_contiguous
    assert frames[0].i420.shape == (144, 160)


def test_start_and_end_count_from_the_first_frame(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mp4", [numbered(160, 96, k) for k in range(100)], options={"g": "30"}
    )
    with open_footage(path, 1.0, 3.0) as footage:
        assert footage.expected_frames == 50
        assert [number_of(f.rgb) for f in footage] == list(range(25, 75))


def test_variable_rate_shows_the_nearest_frame(tmp_path: Path) -> None:
    times_ms = [0]
    rng = np.random.default_rng(5)
    while len(times_ms) < 60:
        times_ms.append(times_ms[-1] + int(rng.choice([20, 33, 47, 80])))
    path = write_video(
        tmp_path / "v.mkv",
        [numbered(160, 96, k) for k in range(60)],
        pts=times_ms,
        time_base=Fraction(1, 1000),
    )
    with open_footage(path) as footage:
        assert 24 <= footage.fps <= 60
        frames = list(footage)
    for frame in frames:
        shown_ms = float(frame.index / footage.fps) * 1000
        error = [abs(t - shown_ms) for t in times_ms]
        assert error[number_of(frame.rgb)] <= min(error) + 1.0
    seen = {number_of(f.rgb) for f in frames}
    assert len(seen) >= 45  # few frames of the footage are lost
    again = [b.repeated for b in frames]
    same = [
        k > 0 and number_of(frames[k].rgb) == number_of(frames[k - 1].rgb)
        for k in range(len(frames))
    ]
    assert again == same
    assert "rate" in footage.notes[0]


@pytest.mark.parametrize(
    ("fps", "target"),
    [
        (24000 / 1001, Fraction(24000, 1001)),
        (25, Fraction(25)),
        (30000 / 1001, Fraction(30000, 1001)),
        (30, Fraction(30)),
        (60, Fraction(60)),
        (50, Fraction(50)),
        (15, Fraction(30)),
        (12.5, Fraction(25)),
        (120, Fraction(60)),
        (27, Fraction(30000, 1001)),
    ],
)
def test_target_rate(fps: float, target: Fraction) -> None:
    # Stamps in whole milliseconds, as Matroska has them.
    times = [round(k * 1000 / fps) / 1000 for k in range(900)]
    assert constant_rate(times, None)[0] == target


def test_odd_size_loses_one_row_and_column(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "odd.mp4", [corners(163, 97)] * 5, pix_fmt="yuv444p", options={"crf": "5"}
    )
    with open_footage(path) as footage:
        assert (footage.width, footage.height) == (162, 96)
        assert any("cropped" in n for n in footage.notes)
        frame = next(iter(footage))
    assert frame.rgb.shape == (96, 162, 3)
    assert frame.i420.shape == (144, 162)
    assert corner_names(frame.rgb) == ["tl", "tr", "bl", "br"]


@pytest.mark.parametrize(
    ("degrees", "hflip", "expected"),
    [
        # Counter-clockwise, as FFmpeg counts.
        (90, False, ["tr", "br", "tl", "bl"]),
        (180, False, ["br", "bl", "tr", "tl"]),
        (270, False, ["bl", "tl", "br", "tr"]),
        (0, True, ["tr", "tl", "br", "bl"]),
    ],
)
def test_rotation_flag_is_applied(
    tmp_path: Path, degrees: int, hflip: bool, expected: list[str]
) -> None:
    path = write_video(tmp_path / "r.mp4", [corners(160, 96)] * 5, degrees=degrees, hflip=hflip)
    with open_footage(path) as footage:
        frame = next(iter(footage))
        assert footage.notes
    swapped = degrees in (90, 270)
    assert frame.rgb.shape == ((160, 96, 3) if swapped else (96, 160, 3))
    assert (footage.width, footage.height) == ((96, 160) if swapped else (160, 96))
    assert corner_names(frame.rgb) == expected


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "colours"),
    [
        ("yuv420p", "libx264", {"colorspace": 1, "color_range": 1}),
        ("yuv420p", "libx264", {"colorspace": 5, "color_range": 1}),
        ("yuv420p", "libx264", {"colorspace": 1, "color_range": 2}),
        ("yuv420p10le", "libx264", {"colorspace": 1, "color_range": 1}),
        ("yuv422p", "libx264", {"colorspace": 5, "color_range": 1}),
        ("yuv444p", "libx264", {"colorspace": 5, "color_range": 2}),
        ("yuvj420p", "mjpeg", {"colorspace": 5, "color_range": 2}),
        ("bgr0", "ffv1", None),
    ],
)
def test_colours_survive(
    tmp_path: Path, pix_fmt: str, codec: str, colours: dict[str, int] | None
) -> None:
    suffix = ".mp4" if codec == "libx264" else ".mkv"
    options = {"crf": "5"} if codec == "libx264" else {"qmin": "1", "qmax": "2"}
    options = {} if codec == "ffv1" else options
    path = write_video(
        tmp_path / f"c{suffix}",
        [corners(160, 96)] * 3,
        pix_fmt=pix_fmt,
        codec=codec,
        colours=colours,
        options=options,
    )
    with open_footage(path) as footage:
        frame = next(iter(footage))
    for (y, x), name in zip(
        ((24, 40), (24, 120), (72, 40), (72, 120)), ("tl", "tr", "bl", "br"), strict=True
    ):
        assert np.abs(frame.rgb[y, x].astype(int) - COLOURS[name]).max() <= 7, (
            name,
            frame.rgb[y, x],
        )
        # The I420 says the same in BT.709 limited range.
        red, green, blue = (c / 255 for c in COLOURS[name])
        luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        assert abs(int(frame.i420[y, x]) - (16 + 219 * luma)) <= 5
        cb = 128 + 224 * (blue - luma) / 1.8556
        u_plane = frame.i420.reshape(-1)[160 * 96 :][: 80 * 48].reshape(48, 80)
        assert abs(int(u_plane[y // 2, x // 2]) - cb) <= 5


def test_large_footage_is_scaled_down(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "uhd.mp4", [corners(2880, 1620)] * 2, options={"preset": "ultrafast"}
    )
    with open_footage(path) as footage:
        assert (footage.width, footage.height) == (1920, 1080)
        assert any("scaled" in n for n in footage.notes)
        assert corner_names(next(iter(footage)).rgb) == ["tl", "tr", "bl", "br"]


def click_at(sample: int, length: int = 96000) -> np.ndarray:
    sound = np.zeros(length, np.float32)
    sound[sample : sample + 480] = 0.8 * np.sin(np.arange(480) * 0.3).astype(np.float32)
    return sound


def click_at_s(sound: np.ndarray) -> float:
    return float(np.argmax(np.abs(sound) > 0.2)) / 16000


@pytest.mark.parametrize("first_frame_s", [0.0, 0.4])
@pytest.mark.parametrize("first_sample_s", [0.0, 0.3])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_audio_stays_aligned_with_the_video(
    tmp_path: Path, first_frame_s: float, first_sample_s: float, suffix: str
) -> None:
    base = Fraction(1, 1000)
    pts = [round((first_frame_s + k / 25) * 1000) for k in range(60)]
    path = write_video(
        tmp_path / f"s{suffix}",
        [numbered(160, 96, k) for k in range(60)],
        pts=pts,
        time_base=base,
        sound=(click_at(48000), round(first_sample_s * 48000)),
    )
    click_s = 1.0 + first_sample_s - first_frame_s
    sound = read_sound(path)
    assert sound is not None and sound.dtype == np.float32
    assert click_at_s(sound) == pytest.approx(click_s, abs=0.004)
    later = read_sound(path, 0.48, 1.6)
    assert later is not None
    assert later.size <= 16000 * 1.12 + 1
    assert click_at_s(later) == pytest.approx(click_s - 0.48, abs=0.004)
    with open_footage(path, 0.48, 1.6) as footage:
        assert number_of(next(iter(footage)).rgb) == 12


def test_video_without_audio_gives_none(tmp_path: Path) -> None:
    assert read_sound(write_video(tmp_path / "m.mp4", [corners(160, 96)] * 5)) is None


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("these are my notes, and no video\n" * 50)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(np.random.default_rng(1).bytes(40_000))
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n#EXT-X-ENDLIST\n")
    whole = write_video(tmp_path / "w.mp4", [numbered(160, 96, k) for k in range(100)])
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 6 // 10])
    cut_early = tmp_path / "early.mp4"
    cut_early.write_bytes(data[:500])
    music = tmp_path / "music.m4a"
    with av.open(str(music), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        block = av.AudioFrame.from_ndarray(click_at(100)[None], format="fltp", layout="mono")
        block.sample_rate = 48000
        container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    for path, words in [
        (text, "not a video"),
        (empty, "empty"),
        (noise, "not a video"),
        (playlist, ""),
        (cut, "cut short"),
        (cut_early, ""),
        (music, "no picture"),
        (tmp_path, "folder"),
        (tmp_path / "absent.mp4", "no such file"),
    ]:
        with pytest.raises(MediaError) as caught, open_footage(path) as footage:
            list(footage)
        message = str(caught.value)
        assert words in message, (path.name, message)
        assert str(path) in message and "\n" not in message
        if path != cut:  # its headers are whole, and say that there is no sound
            with pytest.raises(MediaError):
                read_sound(path)


def test_a_cut_matroska_is_refused_at_its_end(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "w.mkv", [numbered(160, 96, k) for k in range(150)])
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(MediaError, match="cut short"), open_footage(cut) as footage:
        list(footage)


@pytest.mark.parametrize(
    ("start_s", "end_s", "words"),
    [(5.0, None, "before --start"), (1.0, 0.5, "before --start"), (-1.0, None, "--start")],
)
def test_bad_parts_are_refused(
    tmp_path: Path, start_s: float, end_s: float | None, words: str
) -> None:
    path = write_video(tmp_path / "a.mp4", [corners(160, 96)] * 50)
    with pytest.raises(MediaError, match=words):
        open_footage(path, start_s, end_s)


def test_exif_profile_and_alpha_of_a_photo_are_applied(tmp_path: Path) -> None:
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn clockwise
    Image.fromarray(corners(201, 99)).save(turned, quality=97, exif=exif)
    photo = read_photo(turned)
    assert photo.shape == (200, 98, 3)
    assert corner_names(photo) == ["bl", "tl", "br", "tr"]
    assert is_photo(turned)

    clear = tmp_path / "clear.png"
    pixels = np.dstack([corners(160, 96), np.full((96, 160), 255, np.uint8)])
    pixels[:20, :20, 3] = 0
    Image.fromarray(pixels).save(clear)
    assert tuple(read_photo(clear)[5, 5]) == (128, 128, 128)

    large = tmp_path / "large.webp"
    Image.fromarray(corners(2400, 1600)).save(large)
    assert is_photo(large) and read_photo(large).shape == (1280, 1920, 3)

    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((80, 80), 32768, np.uint16)).save(deep)
    assert np.abs(read_photo(deep).astype(int) - 128).max() <= 1


def test_bad_photos_are_refused(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", [corners(160, 96)] * 3)
    assert not is_photo(video)
    assert not is_photo(tmp_path / "absent.jpg")
    cut = tmp_path / "cut.jpg"
    Image.fromarray(corners(400, 300)).save(cut)
    cut.write_bytes(cut.read_bytes()[:900])
    tiny = tmp_path / "tiny.png"
    Image.fromarray(corners(20, 20)).save(tiny)
    for path in (video, cut, tiny, tmp_path / "absent.jpg"):
        with pytest.raises(MediaError) as caught:
            read_photo(path)
        assert str(path) in str(caught.value)
