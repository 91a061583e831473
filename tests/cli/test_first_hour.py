"""What people type in their first hour: names of files, help, pipes, and what is not installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest

from lipstream.batch_items import items_of_folder
from lipstream.doctor import Check, as_text
from lipstream.engine.errors import AssetError
from tests.cli.conftest import STOPPABLE, Cli
from tests.cli.test_cli import assert_one_line, speech_like
from tests.streaming.sound_files import write_wav


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "speech.wav", speech_like(0.4))


@pytest.mark.parametrize("command", ["dub", "express"])
@pytest.mark.parametrize("name", ["speech.wav", "link.mp4", "hard.mp4", "./sub/../speech.wav"])
def test_the_voice_is_not_overwritten(
    cli_here: Cli, target: Path, voice: Path, command: str, name: str
) -> None:
    folder, before = voice.parent, voice.read_bytes()
    (folder / "sub").mkdir()
    (folder / "link.mp4").symlink_to(voice)
    os.link(voice, folder / "hard.mp4")
    inputs = [target, voice] if command == "dub" else [voice]
    assert_one_line(cli_here(command, *inputs, "-o", name, cwd=folder), "cannot write")
    assert voice.read_bytes() == before
    assert (folder / "link.mp4").is_symlink()


def test_the_target_is_not_written_into(cli_here: Cli, target: Path, voice: Path) -> None:
    copy = shutil.copytree(target, voice.parent / "me.target")
    before = {p.name: p.read_bytes() for p in copy.iterdir()}
    done = cli_here("dub", copy, voice, "-o", copy / "out.mp4")
    assert_one_line(done, "it lies in")
    footage = Path(shutil.copy(voice, copy / "footage.mp4"))
    assert_one_line(cli_here("calibrate", footage, "-o", copy), "it holds")
    done = cli_here("calibrate", footage, "-o", footage)
    assert_one_line(done, "cannot write")
    done = cli_here("bench", "latency", "--target", copy, "--report", copy)
    assert_one_line(done, "it lies in")
    footage.unlink()
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == before


def test_a_device_is_not_replaced_by_a_file(cli_here: Cli, voice: Path) -> None:
    pipe = voice.parent / "pipe"
    os.mkfifo(pipe)
    assert_one_line(cli_here("express", voice, "-o", pipe), "it is not a file")
    assert pipe.is_fifo()


def test_an_output_link_stays_a_link(cli_here: Cli, voice: Path) -> None:
    link = voice.parent / "link.jsonl"
    link.symlink_to("real.jsonl")
    done = cli_here("express", voice, "-o", link)
    assert done.returncode == 0, done.stderr
    assert link.is_symlink() and (voice.parent / "real.jsonl").stat().st_size > 100


@pytest.mark.parametrize(
    ("ending", "kinds"),
    [
        (".mp4", ("mp4", "h264", "aac")), (".MOV", ("mov", "h264", "aac")),
        (".mkv", ("matroska", "h264", "aac")), (".webm", ("webm", "vp9", "opus")),
    ],
)  # fmt: skip
def test_the_ending_says_what_is_written(
    cli_here: Cli, target: Path, voice: Path, ending: str, kinds: tuple[str, str, str]
) -> None:
    out = voice.parent / f"out{ending}"
    done = cli_here("dub", target, voice, "-o", out, "--renderer", "none", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["av_offset_ms"] == 0.0
    with av.open(str(out)) as container:
        assert kinds[0] in container.format.name.split(",")
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert (picture.codec_context.name, sound.codec_context.name) == kinds[1:]
        assert len(list(container.decode(video=0))) == 10
    with av.open(str(out)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples == pytest.approx(0.4 * 48_000, abs=1200)
    if ending == ".webm":
        assert b"webm" in out.read_bytes()[:64]


@pytest.mark.parametrize("name", ["o.gif", "o", "o.avi", "o.mp4.", ".mp4", "o.jsonl", "/proc/o.ts"])
@pytest.mark.parametrize("command", ["dub", "demo"])
def test_other_endings_are_refused_before_any_work(
    cli_here: Cli, tmp_path: Path, command: str, name: str
) -> None:
    inputs = {"dub": ["no.target", "no.wav"], "demo": []}[command]
    done = cli_here(command, *inputs, "-o", name, cwd=tmp_path)
    assert_one_line(done, "expected .mp4, .mov, .mkv or .webm")
    assert list(tmp_path.iterdir()) == []


def test_a_crop_resolution_without_the_renderer(cli_here: Cli, target: Path, voice: Path) -> None:
    arguments = ["--crop-resolution", "512", "--renderer", "none"]
    done = cli_here("dub", target, voice, "-o", voice.parent / "o.mp4", *arguments)
    assert_one_line(done, "leave out --crop-resolution or --renderer none")


@pytest.mark.parametrize("consent", ["", "  "])
def test_an_empty_consent_is_none(cli_here: Cli, voice: Path, consent: str) -> None:
    done = cli_here("calibrate", voice, "-o", voice.parent / "a.target", "--consent", consent)
    assert_one_line(done, "--consent is empty")


@pytest.mark.parametrize(
    ("arguments", "shows"),
    [
        (["-h"], "Commands:"), (["help"], "Commands:"), (["dub", "-h"], "--crop-resolution"),
        (["help", "dub"], "--crop-resolution"), (["bench", "-h"], "latency"),
        (["bench", "latency", "-h"], "--report"), (["help", "bench", "all"], "--report"),
        (["assets", "fetch", "-h"], "--json"), (["serve", "-h"], "--targets"),
    ],
)  # fmt: skip
def test_help_in_every_way(cli_here: Cli, arguments: list[str], shows: str) -> None:
    done = cli_here(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert shows in done.stdout
    assert_one_line(cli_here("help", "nosuch"), "No such command")


def test_the_shell_completes_commands(cli: Cli) -> None:
    words = {"COMP_WORDS": "lipstream cal", "COMP_CWORD": "1"}
    assert cli(_LIPSTREAM_COMPLETE="complete_bash", **words).stdout.split() == ["calibrate"]


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "speech.wav", speech_like(20))
    process = subprocess.Popen(
        [sys.executable, "-m", "lipstream", "express", str(sound)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    with process:
        assert process.stderr is not None and process.stderr.read() == b""
    assert process.returncode == 0


def test_a_damaged_bundle_is_named(cli_here: Cli, target: Path, voice: Path) -> None:
    copy = shutil.copytree(target, voice.parent / "me.target")
    with (copy / "frames.mjpeg").open("ab") as file:
        file.write(b"x")
    done = cli_here("dub", copy, voice, "-o", voice.parent / "o.mp4")
    assert_one_line(done, "me.target: frames.mjpeg: size differs")
    (copy / "target.json").write_text("{")
    done = cli_here("dub", copy, voice, "-o", voice.parent / "o.mp4")
    assert_one_line(done, "me.target: target.json: not valid JSON")


def test_a_wrong_folder_is_not_a_full_disk(cli_here: Cli, voice: Path) -> None:
    done = cli_here("express", voice, "-o", "/proc/out.jsonl")
    assert_one_line(done, "cannot write /proc/out.jsonl")
    assert "space" not in done.stderr
    done = cli_here("express", voice, "-o", voice.parent / ("x" * 300))
    assert_one_line(done, "choose a shorter name")


def test_a_server_that_stops_speaks_of_no_file(target: Path) -> None:
    process = subprocess.Popen(
        [*STOPPABLE, sys.executable, "-m", "lipstream", "serve", "--port", "0"]
        + ["--targets", str(target), "--renderer", "none"],
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    # The folder holds one target, and it was named itself.
    assert f"serving {target.stem} on http://127.0.0.1:" in first
    assert (process.returncode, rest) == (130, "lipstream: stopped\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dub", "speech.wav", "me.target", "-o", "o.mp4"], "expected: lipstream dub TARGET AUDIO"),
        (["dub", "me.target", "sounds", "-o", "o.mp4"], "give -o a folder too"),
        (["calibrate", "sounds", "-o", "o.target"], "give -o a folder too"),
        (["consent", "nosuch.target"], "nosuch.target: not a target bundle"),
        (["consent", "sounds", "me; today; tests"], "sounds: not a target bundle"),
        (["serve", "me.target"], "--targets me.target"),
        (["serve", "--targets", "nosuch"], "nosuch: no such folder"),
        (["serve", "--targets", "speech.wav"], "speech.wav: is a file"),
        (["serve", "--ray", "auto"], "--ray: other machines can reach the nodes"),
        (["present"], "Missing argument 'TARGET'"),
    ],
)  # fmt: skip
def test_what_is_mixed_up_is_named(
    cli_here: Cli, target: Path, voice: Path, arguments: list[str], says: str
) -> None:
    (voice.parent / "me.target").symlink_to(target)
    (voice.parent / "sounds").mkdir()
    assert_one_line(cli_here(*arguments, cwd=voice.parent), says)
    assert not list(voice.parent.glob("o.*"))


def test_a_port_in_use_is_named_before_the_target_is_loaded(
    cli_here: Cli, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipstream.streaming.server.app._load_first", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = cli_here("serve", "--targets", target, "--port", port, "--renderer", "none")
    assert_one_line(done, "another program listens there; choose another port with --port")


def test_help_begins_with_what_comes_first(cli_here: Cli) -> None:
    listed = cli_here("-h").stdout.partition("Commands:")[2].split("\n")
    assert [line.split()[0] for line in listed if line][:5] == [
        "demo", "calibrate", "dub", "express", "serve",
    ]  # fmt: skip


def test_a_folder_takes_every_kind_of_photo_that_the_readme_names(tmp_path: Path) -> None:
    names = [
        f"a{n}.{e}"
        for n, e in enumerate(["jpg", "png", "webp", "avif", "tif", "bmp", "gif", "jp2", "JPEG"])
    ]
    for name in names:
        (tmp_path / name).touch()
    found = items_of_folder("calibrate", tmp_path, tmp_path / "out", {})
    assert sorted(Path(job.options["input"]).name for job in found.jobs) == sorted(names)
    assert found.left_out == []


def test_without_a_driver_doctor_has_one_line_for_gpus() -> None:
    checks = [
        Check("cuda", "missing", "there is no NVIDIA driver", "GPUs", "install it"),
        Check("tensorrt", "missing", "not installed", "--backend tensorrt", "install it"),
        Check("camera", "missing", "no v4l2loopback", "present --camera", "install it"),
    ]
    gpu, camera, remedy = as_text(checks).splitlines()
    assert gpu == "none     GPU          there is no NVIDIA driver: everything runs on the CPU"
    assert camera.startswith("missing  camera") and "for present --camera" in remedy
    assert len(as_text([Check("cuda", "ok", "a card", "GPUs"), *checks[1:]]).splitlines()) == 5


class Absent:
    """An import hook: none of these modules is installed, or their libraries do not load."""

    def __init__(self, *names: str, error: Exception | None = None) -> None:
        self.names, self.error = names, error

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in self.names:
            raise self.error or ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_library_that_does_not_load_has_its_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MediaPipe loads its graphics libraries itself, at the import or at the first model."""
    from lipstream.calibration.tracking import landmarker, system_libraries

    lost = OSError("libEGL.so.1: cannot open shared object file: No such file or directory")
    for name in [name for name in sys.modules if name.partition(".")[0] == "mediapipe"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent("mediapipe", error=lost), *sys.meta_path])
    packages = "libglib2.0-0 libgl1 libxcb1 libegl1 libgles2"
    for here, expected in ((True, packages), (False, packages)):
        monkeypatch.setattr(system_libraries, "loads", lambda library, here=here: here)
        with pytest.raises(AssetError, match=f"libEGL.* apt-get install {expected}$"):
            landmarker.Landmarker(tmp_path / "none.task")


def test_without_the_extra_each_command_says_how_to_get_it(
    cli_here: Cli, voice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lipstream.engine import extras

    monkeypatch.setattr(extras, "missing", lambda modules: [m for m in modules if m == "skimage"])
    pip = "pip install 'lipstream[calibrate]'"
    assert_one_line(cli_here("calibrate", voice, "-o", voice.parent / "a.target"), pip)
    assert_one_line(cli_here("demo", "-o", voice.parent / "o.mp4"), pip)
    shown = {c["name"]: c for c in json.loads(cli_here("doctor", "--json").stdout)["checks"]}
    assert shown["calibrate"]["status"] == "missing"
    assert shown["calibrate"]["remedy"].endswith(pip)


def test_a_benchmark_without_the_extra(monkeypatch: pytest.MonkeyPatch, cli_here: Cli) -> None:
    for name in [n for n in sys.modules if n.startswith(("jinja2", "lipstream.bench"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent("jinja2"), *sys.meta_path])
    done = cli_here("bench", "kernels")
    assert_one_line(done, "pip install 'lipstream[calibrate]'")
