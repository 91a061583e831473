"""Made inputs through calibrate, dub and express: a right result, or one clear line.

`lipstream doctor --self-test` runs `TRIALS`; the tests run many more by the same rules.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from lipstream import made_inputs as made
from lipstream.engine import extras

EXIT_REFUSED: Final = 2
_LIMIT_S: Final = 120.0  # of one trial

Command = Literal["calibrate", "dub", "express"]
Call = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True, slots=True)
class Trial:
    """An input, and what a command must make of it."""

    name: str
    command: Command
    make: Callable[[Path], Path]  # in a folder: the input
    seconds: float | None = None  # of a right result; None for a photo's, or a refusal
    refusal: str = ""  # words of the one line; "" for a right result
    profile: str = "low"  # of dub and express: what reads a file is the same for all


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a trial."""

    name: str
    command: str
    status: Literal["ok", "failed", "left out"]
    found: str
    seconds: float


def _far_beyond(folder: Path) -> Path:
    wrong = made.voice()
    return made.wav_file(folder / "wrong.wav", wrong, rate=2**31 - 1)


def _text(folder: Path) -> Path:
    path = folder / "text.mp4"
    path.write_text("neither sound nor picture\n" * 100)
    return path


# In the order of what a newcomer does; the dear ones are the three that calibrate a face.
TRIALS: Final = (
    Trial("a photo on its side", "calibrate",
          lambda folder: made.turned_photo(folder / "turned.jpg", made.portrait())),
    Trial("footage without an index of key frames", "calibrate",
          lambda folder: made.video_file(
              folder / "camera.ts", made.swaying(30), options={"g": "250", "crf": "18"}), 1.2),
    Trial("a photo without a face", "calibrate",
          lambda folder: made.photo_file(folder / "noise.png", made.noise()),
          refusal="no face was found"),
    Trial("a photo that is cut short", "calibrate",
          lambda folder: made.cut(
              made.photo_file(folder / "cut.jpg", made.portrait(), quality=95), 0.5),
          refusal="damaged or cut short"),
    Trial("a synthesiser's WAV of unknown length", "dub",
          lambda folder: made.wav_file(
              folder / "stream.wav", made.voice(), riff=0x7FFFFFFF, data=0x7FFFFFDB), 0.6),
    Trial("Opus with a hole in its time stamps", "express",
          lambda folder: made.sound_file(
              folder / "hole.webm", made.voice(), codec="libopus", holes_s=[(0.3, 0.5)]), 1.1),
    Trial("two channels that cancel", "express",
          lambda folder: made.wav_file(
              folder / "wide.wav", np.stack([made.voice(), -made.voice()])), 0.6),
    Trial("a WAV that is cut short", "express",
          lambda folder: made.cut(made.wav_file(folder / "cut.wav", made.voice()), 0.6),
          refusal="cut short"),
    Trial("a rate that cannot be", "dub", _far_beyond, refusal="samples a second"),
    Trial("text for a video", "express", _text, refusal="not an audio or video file"),
)  # fmt: skip


def judge(trial: Trial, target: Path | None, folder: Path, call: Call) -> str:
    """Run a trial in an empty folder: what was found, in a few words.

    Raises: AssertionError that says what is wrong.
    """
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    source = trial.make(folder / "in")
    ending = {"calibrate": ".target", "dub": ".mp4", "express": ".jsonl"}[trial.command]
    output = folder / "out" / f"result{ending}"
    arguments = [str(source), "-o", str(output)]
    if trial.command == "dub":
        arguments = [str(target), *arguments, "--renderer", "none", "--json"]
    if trial.command == "calibrate":
        arguments += ["--consent", "nobody; today; a self-test", "--json"]
    else:
        arguments += ["--profile", trial.profile]
    done = call([trial.command, *arguments])
    left = sorted(path.name for path in (folder / "out").iterdir())
    if trial.refusal:
        lines = done.stderr.splitlines()
        assert done.returncode == EXIT_REFUSED, _said(done)
        assert len(lines) == 1 and not done.stdout, f"expected one line: {_said(done)}"
        assert trial.refusal in lines[0], f"expected {trial.refusal!r}: {_said(done)}"
        assert not left, f"left behind: {', '.join(left)}"
        return lines[0].removeprefix("lipstream: ").replace(f"{source}: ", "")
    assert done.returncode == 0, _said(done)
    assert left == [output.name], f"left behind: {', '.join(left)}"
    if trial.command == "express":
        return _judge_lines(output, trial)
    report: dict[str, Any] = json.loads(done.stdout)
    if trial.seconds is not None:
        assert abs(report["duration_s"] - trial.seconds) <= 0.05, f"{report['duration_s']} s"
    if trial.command == "dub":
        assert report["av_offset_ms"] == 0.0, f"A/V offset {report['av_offset_ms']} ms"
        return f"{report['frames']} frames"
    from lipstream.engine.target.bundle import load_target

    frames = len(load_target(output).track)
    assert report["tracked_ratio"] > 0.8, f"{report['tracked_ratio']:.0%} usable"
    return f"{frames} frames, {report['tracked_ratio']:.0%} usable"


def _judge_lines(output: Path, trial: Trial) -> str:
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert trial.seconds is not None
    assert abs(len(lines) / 50 - trial.seconds) <= 0.05, f"{len(lines)} lines"
    opening = [line["lips"]["opening"] for line in lines]
    assert any(line["speech"] for line in lines), "no speech was heard"
    # Of an inter-ocular distance: a voice of any loudness opens the lips wider than it closes them.
    assert max(opening) - min(opening) > 0.03, f"the lips open by {max(opening) - min(opening):g}"
    return f"{len(lines)} lines"


def _said(done: subprocess.CompletedProcess[str]) -> str:
    said = " ".join((done.stderr or done.stdout).split())[:300]
    return f"exit code {done.returncode}: {said}"


def run_self_test() -> Iterator[Result]:
    """Each of `TRIALS`, as it ends; the commands run in processes of their own."""
    absent = extras.missing(extras.MODULES["calibrate"])
    with tempfile.TemporaryDirectory(prefix="lipstream-self-test-") as name:
        folder = Path(name)
        target: Path | None = None
        for number, trial in enumerate(TRIALS):
            if trial.command != "express" and absent:
                why = f"needs {', '.join(absent)}: {extras.pip_install('calibrate')}"
                yield Result(trial.name, trial.command, "left out", why, 0.0)
                continue
            began_s = time.monotonic()
            place = folder / str(number)
            place.mkdir()
            status: Literal["ok", "failed"] = "ok"
            try:
                found = judge(trial, target, place, _in_a_process)
                if trial.command == "calibrate" and not trial.refusal:
                    target = place / "out" / "result.target"
            except (AssertionError, OSError, ValueError, subprocess.TimeoutExpired) as error:
                status, found = "failed", " ".join(str(error).split())
            yield Result(
                trial.name, trial.command, status, found, round(time.monotonic() - began_s, 1)
            )


def _in_a_process(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lipstream", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S
    )


def as_line(result: Result) -> str:
    """For people."""
    return (
        f"{result.status:<8}  {result.command:<9}  {result.name}: {result.found} "
        f"({result.seconds:g} s)"
    )


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """For programs."""
    ok = all(result.status != "failed" for result in results)
    return {"ok": ok, "trials": [asdict(result) for result in results]}
