"""`lipstream calibrate` on good and bad footage, as typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lipstream.calibration.assets import find
from lipstream.engine.types import SAMPLE_RATE_HZ, AudioChunk, VideoFrame
from lipstream.kernels.color import rgb_to_i420
from lipstream.streaming.files.mp4_writer import Mp4Writer, PictureFormat
from lipstream.streaming.files.partial_file import PartialFile
from tests.cli.conftest import Cli, stopped
from tests.cli.test_cli import assert_one_line

pytestmark = pytest.mark.skipif(
    find() is None, reason="no face_landmarker.task (lipstream assets fetch)"
)

SIZE_PX = 256
FPS = Fraction(25)


@cache
def portrait() -> np.ndarray:
    """The head of the public-domain portrait in scikit-image: u8 [256, 256, 3]."""
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut()[0:SIZE_PX, 96 : 96 + SIZE_PX])


def video(path: Path, picture: Callable[[int], np.ndarray], frames: int) -> Path:
    """A video of `picture(k)`, u8 [h, w, 3], with a silent sound track."""
    height, width = picture(0).shape[:2]
    size = PictureFormat(width, height, FPS)
    with PartialFile(path) as part, Mp4Writer(part, size, channels=1) as writer:
        for k in range(frames):
            sound = AudioChunk(np.zeros(int(SAMPLE_RATE_HZ / FPS), np.float32), k * 640)
            i420 = rgb_to_i420(np.ascontiguousarray(picture(k)))
            writer.write_frame(VideoFrame(i420, k, FPS, sound, k, False))
            writer.write_sound(np.zeros((1, 1920), np.float32))
        writer.finish()
    return path


def swaying(k: int) -> np.ndarray:
    """The portrait, moved by up to 4 px from frame to frame."""
    return np.roll(portrait(), round(4 * np.sin(k / 5)), axis=1)


def noise(k: int) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 255, (SIZE_PX, SIZE_PX, 3), np.uint8)


def test_photo_and_video_become_targets(cli: Cli, tmp_path: Path) -> None:
    Image.fromarray(portrait()).save(tmp_path / "face.png")
    video(tmp_path / "face.mp4", swaying, 50)
    for name in ("face.png", "face.mp4"):
        out = tmp_path / f"{name}.target"
        done = cli("calibrate", tmp_path / name, "-o", out, "--consent", "public domain", "--json")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1
        report = json.loads(done.stdout)
        assert report["tracked_ratio"] > 0.9
        assert {"frames", "fps", "duration_s", "seconds", "rejected", "av_offset_ms"} <= set(report)
        assert json.loads((out / "target.json").read_text())["consent"] == "public domain"
        assert (out / "report.html").is_file()
        grade, reasons = report["verdict"]["grade"], report["verdict"]["reasons"]
        assert grade in ("usable", "poor") and reasons and report["verdict"]["advice"]
        assert reasons[0] in (out / "report.html").read_text()


def test_again_with_the_verdict_and_the_consent_of_before(cli_here: Cli, tmp_path: Path) -> None:
    Image.fromarray(portrait()).save(tmp_path / "face.png")
    command = ["calibrate", tmp_path / "face.png", "-o", tmp_path / "a.target"]

    def consent() -> object:
        return json.loads((tmp_path / "a.target" / "target.json").read_text())["consent"]

    assert cli_here(*command, "--consent", "me, today").returncode == 0
    again = cli_here(*command)
    assert again.returncode == 0, again.stderr
    assert consent() == "me, today"
    assert (
        again.stderr == "lipstream: consent as stated before: 'me, today' (--consent changes it)\n"
    )
    result, verdict, *advice = again.stdout.splitlines()
    assert result.startswith(f"{tmp_path / 'a.target'}: ")
    assert verdict.startswith(("Usable: ", "Poor: ")) and "One photo" in verdict
    assert advice and all(line.startswith("  to improve it: ") for line in advice)
    assert cli_here(*command, "--consent", "nobody").returncode == 0
    assert consent() == "nobody"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("noise.png", "face"),
        ("noise.mp4", "face"),
        ("text.mp4", "text.mp4"),
        ("text.png", "text.png"),
        ("cut.mp4", "cut.mp4"),
        ("missing.mp4", "no such file"),
        ("sound.wav", "no picture"),
    ],
)
def test_footage_that_cannot_be_used(
    cli_here: Cli, tmp_path: Path, name: str, message: str
) -> None:
    footage, out = tmp_path / "in", tmp_path / "out"
    footage.mkdir()
    out.mkdir()
    path = footage / name
    if name == "noise.png":
        Image.fromarray(noise(0)).save(path)
    elif name == "noise.mp4":
        video(path, noise, 10)
    elif name.startswith("text"):
        path.write_text("neither a film nor a photo\n" * 100)
    elif name == "cut.mp4":
        data = video(path, swaying, 25).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif name == "sound.wav":
        from tests.streaming.sound_files import write_wav

        write_wav(path, np.zeros(16_000, np.float32))
    done = cli_here("calibrate", path, "-o", out / "a.target")
    assert_one_line(done, message)
    assert list(out.iterdir()) == []


def test_several_faces_of_one_size_are_refused(cli_here: Cli, tmp_path: Path) -> None:
    """It is ambiguous whose target is wanted."""
    picture = np.concatenate([portrait(), portrait()[:, ::-1]], axis=1)
    video(tmp_path / "two.mp4", lambda k: picture, 30)
    done = cli_here("calibrate", "two.mp4", "-o", "two.target", cwd=tmp_path)
    assert_one_line(done, "2 faces of nearly one size")
    Image.fromarray(picture).save(tmp_path / "two.png")
    done = cli_here("calibrate", "two.png", "-o", "two.target", cwd=tmp_path)
    assert_one_line(done, "2 faces of nearly one size")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["two.mp4", "two.png"]


def test_unwritable_output(cli_here: Cli, tmp_path: Path) -> None:
    Image.fromarray(portrait()).save(tmp_path / "face.png")
    done = cli_here("calibrate", "face.png", "-o", "/proc/a.target", cwd=tmp_path)
    assert_one_line(done, "/proc")
    (tmp_path / "mine").mkdir()
    done = cli_here("calibrate", "face.png", "-o", "mine", cwd=tmp_path)
    assert_one_line(done, "not a target bundle")


def test_wrong_span(cli_here: Cli, tmp_path: Path) -> None:
    video(tmp_path / "face.mp4", swaying, 25)
    arguments = ["calibrate", tmp_path / "face.mp4", "-o", tmp_path / "a.target"]
    assert_one_line(cli_here(*arguments, "--start", "3", "--end", "1"), "--end")
    assert_one_line(cli_here(*arguments, "--start", "90"), "--start")


def test_stopped_in_the_middle(tmp_path: Path) -> None:
    video(tmp_path / "long.mp4", swaying, 400)
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["calibrate", tmp_path / "long.mp4", "-o", out / "a.target"]
    # It is under way once the temporary bundle holds footage.
    done = stopped(arguments, lambda: any(p.stat().st_size > 0 for p in out.rglob("frames.mjpeg")))
    assert done.returncode == 130, done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert list(out.iterdir()) == []
