"""The commands as typed: results, exit codes, one line for each error, no incomplete files."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lipstream
from lipstream import cli as command_line
from tests.cli.conftest import Cli, stopped
from tests.streaming.sound_files import bad_inputs, write_wav

DUB_KEYS = {
    "frames", "fps", "duration_s", "seconds", "realtime_factor", "backend", "profile",
    "delay_ms", "av_offset_ms",
}  # fmt: skip


def speech_like(seconds: float) -> np.ndarray:
    """A hum with pauses, for tests in which the words do not matter."""
    t = np.arange(int(seconds * 16_000)) / 16_000
    return (0.3 * np.sin(2 * np.pi * 140 * t) * (np.sin(2 * np.pi * 3 * t) > 0)).astype(np.float32)


def assert_one_line(done: subprocess.CompletedProcess[str], message: str) -> None:
    """Exit code 2, nothing on standard output, one line of lipstream on standard error."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("lipstream: ")
    assert message in lines[0]


@pytest.mark.alone
def test_help_answers_at_once() -> None:
    """The shortest of up to twenty runs: other load only makes a run longer."""
    times_s = []
    for _ in range(20):
        began_s = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "lipstream", "--help"],
            capture_output=True,
            text=True,
        )
        times_s.append(time.monotonic() - began_s)
        assert done.returncode == 0
        if times_s[-1] < 0.5:
            break
    assert min(times_s) < 0.5
    for command in ("demo", "calibrate", "dub", "express", "doctor", "assets", "bench", "train"):
        assert f"  {command}  " in done.stdout


def test_version(cli: Cli) -> None:
    assert cli("--version").stdout == f"lipstream {lipstream.__version__}\n"


def test_without_arguments_the_help_is_shown(cli: Cli) -> None:
    done = cli()
    assert done.returncode == 0
    assert "Commands:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "No such command 'nosuch'"),
        (["dub"], "Missing argument 'TARGET'"),
        (["dub", "a.target", "b.wav"], "Missing option"),
        (["dub", "a.target", "b.wav", "-o", "c.mp4", "--fast"], "No such option"),
        (["calibrate", "a.mp4", "-o", "a.target", "--start", "soon"], "'--start'"),
        (["bench", "nosuch"], "No such command"),
        (["train", "encoder"], "Missing argument 'DATA'"),
        (["bench", "quality", "--data", "/none"], "/none"),
    ],
)
def test_wrong_usage(cli_here: Cli, arguments: list[str], message: str) -> None:
    assert_one_line(cli_here(*arguments), message)


def test_wrong_usage_of_the_process(cli: Cli) -> None:
    assert_one_line(cli("nosuch"), "No such command 'nosuch'")


@pytest.mark.parametrize("group", [(), ("bench",), ("train",), ("assets",)])
def test_the_summary_of_a_command_fits_its_line(cli_here: Cli, group: tuple[str, ...]) -> None:
    done = cli_here(*group, "--help")
    _, _, commands = done.stdout.partition("Commands:")
    assert done.returncode == 0 and commands
    assert "..." not in commands


def test_doctor_shows_what_is_missing_and_how_to_install_it(cli: Cli, tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path), "LIPSTREAM_ASSETS": ""}
    done = cli("doctor", "--json", **environment)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    checks = {check["name"]: check for check in report["checks"]}
    assert report["ok"] is True
    assert checks["landmarker"]["status"] == "missing"
    assert checks["landmarker"]["remedy"] == "lipstream assets fetch"
    for check in checks.values():
        assert check["status"] in ("ok", "slow", "missing")
        assert bool(check["remedy"]) == (check["status"] != "ok"), check
    text = cli("doctor", **environment).stdout
    assert "lipstream assets fetch" in text


def test_assets_fetch_refuses_a_changed_file(cli_here: Cli, tmp_path: Path) -> None:
    (tmp_path / "face_landmarker.task").write_bytes(b"something else")
    assert_one_line(
        cli_here("assets", "fetch", LIPSTREAM_ASSETS=str(tmp_path)), "expected 64184e229b26"
    )


def test_dub_json_is_one_object_and_nothing_else(cli: Cli, target: Path, tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "speech.wav", speech_like(2.0))
    done = cli("dub", target, sound, "-o", tmp_path / "out.mp4", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert set(report) >= DUB_KEYS
    assert report["frames"] == 2 * report["fps"]
    assert report["duration_s"] == pytest.approx(2.0)
    assert report["av_offset_ms"] == 0.0
    assert report["profile"] == "file"
    assert report["delay_ms"] == 62_500
    assert report["realtime_factor"] == pytest.approx(2.0 / report["seconds"], abs=0.02)
    assert (tmp_path / "out.mp4").stat().st_size > 10_000


def test_dub_prints_a_sentence(cli: Cli, target: Path, tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "speech.wav", speech_like(1.0))
    out = tmp_path / "out.mp4"
    done = cli("dub", target, sound, "-o", out, "--background", "sequential", "--profile", "low")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{out}: 25 frames, 1.0 s long, made in ")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("command", ["serve", "present", "publish"])
def test_live_commands_refuse_the_profile_of_files(
    cli_here: Cli, target: Path, command: str
) -> None:
    arguments = {
        "serve": ["--targets", target.parent, "--port", "0"],
        "present": [target],
        "publish": [target, "--whip", "http://127.0.0.1:1/whip"],
    }[command]
    done = cli_here(command, *arguments, "--profile", "file")
    assert_one_line(done, "the profile file needs the whole sound; expected low, live or studio")


@pytest.mark.parametrize(
    ("option", "message"),
    [("--profile", "fastest"), ("--backend", "abacus"), ("--background", "beach")],
)
def test_an_unknown_name_is_refused_with_the_known_ones(
    cli_here: Cli, target: Path, tmp_path: Path, option: str, message: str
) -> None:
    sound = write_wav(tmp_path / "speech.wav", speech_like(0.5))
    done = cli_here("dub", target, sound, "-o", tmp_path / "out.mp4", option, message)
    assert_one_line(done, message)
    known = {"--profile": "live", "--backend": "openvino", "--background": "sequential"}
    assert known[option] in done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"speech.wav"}


@pytest.mark.parametrize("command", ["dub", "express"])
@pytest.mark.parametrize("name", ["missing", "folder", "text", "no sound", "cut wav", "cut mp4"])
def test_bad_sound(cli_here: Cli, target: Path, tmp_path: Path, command: str, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    path, message = bad_inputs(tmp_path / "in")[name]
    before = [target] if command == "dub" else []
    done = cli_here(command, *before, path, "-o", tmp_path / "out" / "result.mp4")
    assert_one_line(done, message)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("command", ["dub", "express", "demo"])
@pytest.mark.parametrize("where", ["/proc/out.mp4", "nowhere/out.mp4", "."])
def test_unwritable_output(
    cli_here: Cli, target: Path, tmp_path: Path, command: str, where: str
) -> None:
    sound = write_wav(tmp_path / "speech.wav", speech_like(0.5))
    arguments = {"dub": [target, sound], "express": [sound], "demo": []}[command]
    done = cli_here(command, *arguments, "-o", where, cwd=tmp_path)
    assert_one_line(done, "cannot write")


def test_no_target(cli_here: Cli, tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "speech.wav", speech_like(0.5))
    done = cli_here("dub", tmp_path / "none.target", sound, "-o", tmp_path / "out.mp4")
    assert_one_line(done, "none.target")
    done = cli_here("dub", sound, sound, "-o", tmp_path / "out.mp4")
    assert_one_line(done, "not a target bundle")


def test_full_disk(target: Path, tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "speech.wav", speech_like(8.0))
    (tmp_path / "out").mkdir()

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    done = subprocess.run(
        [sys.executable, "-m", "lipstream"]
        + ["dub", str(target), str(sound), "-o", str(tmp_path / "out" / "out.mp4")],
        capture_output=True,
        text=True,
        preexec_fn=small_files,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert_one_line(done, "cannot write")
    assert list((tmp_path / "out").iterdir()) == []


def test_stopped_in_a_call_of_compiled_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C while ctypes converts an argument: ctypes raises an error of its own."""

    class Interrupted:
        @classmethod
        def from_param(cls, value: object) -> object:
            raise KeyboardInterrupt

    def interrupted(*args: object, **options: object) -> None:
        function = ctypes.CDLL(None).abs
        function.argtypes = [Interrupted]
        function(1)

    monkeypatch.setattr(command_line, "app", interrupted)
    assert command_line.run(["doctor"]) == 130
    assert capsys.readouterr().err == "lipstream: stopped\n"


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGINT, 130, "stopped"), (signal.SIGTERM, 143, "terminat")],
)
def test_stopped_in_the_middle(
    target: Path, tmp_path: Path, number: int, code: int, message: str
) -> None:
    sound = write_wav(tmp_path / "long.wav", speech_like(600))
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["dub", target, sound, "-o", out / "out.mp4"]
    # It is under way once the temporary file has bytes in it.
    done = stopped(arguments, lambda: any(p.stat().st_size > 0 for p in out.iterdir()), number)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert list(out.iterdir()) == []


def test_a_command_that_fails_leaves_no_descriptor(cli_here: Cli, tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    cli_here("express", tmp_path / "none.wav")  # which imports what it needs
    before = descriptors()
    for _ in range(3):
        assert cli_here("express", tmp_path / "none.wav").returncode == 2
    assert descriptors() == before


def test_express_writes_a_line_for_every_step(cli: Cli, tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "speech.wav", speech_like(1.0))
    done = cli("express", sound)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 50
    times_s = [line["t"] for line in lines]
    np.testing.assert_allclose(np.diff(times_s), 0.02, atol=1e-6)
    for line in lines:
        assert {"t", "expression", "lips", "arkit", "speech"} <= set(line)
        assert set(line["lips"]) == {"opening", "width", "protrusion"}
        assert isinstance(line["speech"], bool)
    to_file = cli("express", sound, "-o", tmp_path / "lips.jsonl")
    assert (to_file.returncode, to_file.stdout) == (0, "")
    assert (tmp_path / "lips.jsonl").read_text() == done.stdout


def test_a_command_restores_the_logging(cli_here: Cli, tmp_path: Path) -> None:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    done = cli_here("express", tmp_path / "none.wav", "--verbose")
    assert done.returncode == 2
    assert (root.level, root.handlers) == (level, handlers)


def test_output_of_c_libraries_does_not_reach_the_result() -> None:
    program = (
        "import ctypes, os, sys\n"
        "from lipstream.console import own_console\n"
        "libc = ctypes.CDLL(None)\n"
        "with own_console(verbose={verbose}) as console:\n"
        "    os.write(1, b'noise from C\\n')\n"
        "    os.write(2, b'more noise\\n')\n"
        "    print('noise from Python')\n"
        "    console.result({{'a': 1}}, True, '')\n"
        "print('after')\n"
    )
    run = [sys.executable, "-c"]
    quiet = subprocess.run([*run, program.format(verbose=False)], capture_output=True, text=True)
    assert (quiet.stdout, quiet.stderr) == ('{"a": 1}\nafter\n', "")
    loud = subprocess.run([*run, program.format(verbose=True)], capture_output=True, text=True)
    assert loud.stdout == '{"a": 1}\nafter\n'
    assert set(loud.stderr.splitlines()) == {"noise from C", "more noise", "noise from Python"}


def test_progress_is_shown_on_a_terminal_only(target: Path, tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "speech.wav", speech_like(2.0))
    terminal, end = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lipstream"]
        + ["dub", str(target), str(sound), "-o", str(tmp_path / "out.mp4"), "--json"],
        stdout=subprocess.PIPE,
        stderr=end,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(end)
    stdout, _ = process.communicate(timeout=60)
    shown = b""
    try:
        while piece := os.read(terminal, 65536):
            shown += piece
    except OSError:
        pass  # on Linux, when the other end is closed
    os.close(terminal)
    assert process.returncode == 0
    assert json.loads(stdout)["frames"] == 50
    assert b"dubbing" in shown
    assert b"%" in shown
