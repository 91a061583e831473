"""Many items by one command: folders and manifests, what fails, and going on where it ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipstream.batch_items import items_of_folder, items_of_manifest
from lipstream.engine.errors import UsageError
from lipstream.streaming.batch.journal import NAME
from tests.cli.conftest import Cli, stopped
from tests.cli.test_cli import assert_one_line, speech_like
from tests.streaming.sound_files import write_wav

QUICK = ("--profile", "low", "--background", "sequential", "--renderer", "none")


def lines_of(done: subprocess.CompletedProcess[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The summary, and the items in their order."""
    *items, summary = [json.loads(line) for line in done.stdout.splitlines()]
    return summary, sorted(items, key=lambda item: item["item"])


def manifest(path: Path, *items: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(item) for item in items) + "\n")
    return path


def test_a_folder_a_failure_and_again(cli: Cli, target: Path, tmp_path: Path) -> None:
    sounds, out = tmp_path / "sounds", tmp_path / "out"
    sounds.mkdir()
    write_wav(sounds / "b.wav", speech_like(0.3))
    write_wav(sounds / "c.wav", speech_like(0.3)[:4_000])
    (sounds / "a.wav").write_text("no sound")
    (sounds / "a.txt").write_text("what is said")
    (sounds / ".hidden.wav").write_text("")
    command = ("dub", target, sounds, "-o", out, *QUICK)
    first = cli(*command)
    assert first.returncode == 1
    assert first.stdout.startswith("3 items in ")
    assert "2 done, 0 skipped (their outputs are there), 1 failed" in first.stdout
    note, failed = first.stderr.splitlines()
    assert note == "lipstream: left out, since dub does not read files of this kind: a.txt"
    assert failed.startswith(f"lipstream: failed: {out}/a.mp4: {sounds}/a.wav: not an audio")
    assert {path.name for path in out.iterdir()} == {NAME, "b.mp4", "c.mp4"}
    before = (out / "b.mp4").stat().st_mtime_ns

    write_wav(sounds / "a.wav", speech_like(0.3)[:3_500])
    write_wav(sounds / "c.wav", speech_like(0.3)[:4_200])
    summary, items = lines_of(cli(*command, "--json"))
    assert [item["state"] for item in items] == ["done", "skipped", "done"]
    assert items[0]["report"]["output"] == str(out / "a.mp4")
    assert items[0]["report"]["marks"]["label"] == "corner"
    assert (summary["items"], summary["failed"]) == (3, 0)
    assert (out / "b.mp4").stat().st_mtime_ns == before


def test_calibrate_by_a_manifest(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    from PIL import Image

    from tests.cli.test_calibrate_cli import find, portrait

    if find() is None:
        pytest.skip("no face_landmarker.task (lipstream assets fetch)")
    Image.fromarray(portrait()).save(tmp_path / "face.png")
    (tmp_path / "none.png").write_bytes(b"")
    listed = manifest(
        tmp_path / "items.jsonl",
        {
            "input": "face.png",
            "output": "made/one.target",
            "consent": "me; today; tests",
            "still": True,
        },
        {"footage": "none.png", "output": "made/two.target"},
    )
    done = cli("calibrate", "--batch", listed, "--json", "--jobs", "1", cwd=Path("/"))
    assert done.returncode == 1, done.stderr
    summary, (one, two) = lines_of(done)
    assert (summary["done"], summary["failed"]) == (1, 1)
    assert one["report"]["consent"] == "me; today; tests"
    assert "none.png" in two["reason"]
    assert {path.name for path in (tmp_path / "made").iterdir()} == {NAME, "one.target"}
    again = cli("calibrate", "--batch", listed, "--json", "--jobs", "1")
    assert [item["state"] for item in lines_of(again)[1]] == ["skipped", "failed"]


def test_items_take_what_they_leave_out_from_the_command(tmp_path: Path) -> None:
    listed = manifest(
        tmp_path / "items.jsonl",
        {"sound": "a.wav"},
        {"input": "/b.flac", "output": "x/b.webm", "crop-resolution": 384, "profile": "low"},
        {"audio": "c.wav", "target": "memory://store/it.target", "label": None},
    )
    told = {"target": str(tmp_path / "it.target"), "profile": "live", "label": "bar"}
    jobs = items_of_manifest("dub", listed, tmp_path / "out", told).jobs
    assert [job.output for job in jobs] == [
        str(tmp_path / name) for name in ("out/a.mp4", "x/b.webm", "out/c.mp4")
    ]
    assert [job.options["input"] for job in jobs] == [
        str(tmp_path / "a.wav"), "/b.flac", str(tmp_path / "c.wav"),
    ]  # fmt: skip
    assert [job.options["profile"] for job in jobs] == ["live", "low", "live"]
    assert jobs[1].options["crop_resolution"] == 384
    assert jobs[2].options["target"] == "memory://store/it.target"
    assert jobs[2].options["label"] == "bar"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected one JSON object"),
        ('{"input": "b.wav", "ouput": "b.mp4"}', "line 2: unknown 'ouput'"),
        ('{"input": "b.wav", "seed": 3}', "line 2: unknown 'seed'; dub takes target, input"),
        ('{"input": "b.wav", "crop_resolution": "256"}', 'is "256"; expected a whole number'),
        ('{"input": "b.wav", "crop_resolution": true}', "expected a whole number"),
        ('{"input": "b.wav", "sign": "cert"}', "expected [CERT, KEY]"),
        ('{"input": "b.wav", "sound": "c.wav"}', "says input once more"),
        ('{"input": ""}', 'input is ""; expected text'),
        ('{"output": "b.mp4"}', "line 2: input is missing"),
        ('{"input": "b.wav", "output": "a.mp4"}', "a.mp4, and so would"),
        ('{"input": "b.wav", "output": "b.txt"}', "expected .mp4"),
        ('{"input": "b.wav", "output": "b.wav"}', "expected .mp4"),
        ('{"input": "b.mp4", "output": "b.mp4"}', "cannot write"),
        ('{"input": "a.mp4", "output": "b.mp4"}', "a.mp4, which"),
    ],
)
def test_a_manifest_with_a_fault_is_refused_before_anything_is_made(
    cli_here: Cli, tmp_path: Path, second: str, message: str
) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"input": "a.wav", "output": "a.mp4"}\n' + second + "\n")
    done = cli_here("dub", "it.target", "--batch", path, "-o", tmp_path)
    assert_one_line(done, message)
    assert list(tmp_path.iterdir()) == [path]


def test_any_text_that_json_takes(tmp_path: Path) -> None:
    """A mark at the beginning, as some editors write it, and what ends a line for Python alone."""
    name = "one\u2028two\x85three"
    path = tmp_path / "items.jsonl"
    path.write_text(f'\ufeff{{"input": "{name}.wav", "target": "it.target"}}\r\n', "utf-8")
    (job,) = items_of_manifest("dub", path, tmp_path, {}).jobs
    assert job.output == str(tmp_path / f"{name}.mp4")


@pytest.mark.parametrize("output", ["b.txt", "b.wav", "it.target"])
def test_an_output_that_cannot_be_is_found_by_its_line(tmp_path: Path, output: str) -> None:
    listed = manifest(
        tmp_path / "items.jsonl",
        {"input": "a.wav", "target": "it.target", "output": "a.mp4"},
        {"input": "b.wav", "target": "it.target", "output": output},
    )
    with pytest.raises(UsageError, match=r"items\.jsonl, line 2: "):
        items_of_manifest("dub", listed, None, {})


def test_two_videos_that_would_share_a_sidecar_are_refused(tmp_path: Path) -> None:
    listed = manifest(
        tmp_path / "items.jsonl",
        {"input": "a.wav", "target": "it.target", "output": "a.mkv"},
        {"input": "b.wav", "target": "it.target", "output": "a.webm"},
    )
    with pytest.raises(UsageError, match=r"line 2: would write .*a\.c2pa"):
        items_of_manifest("dub", listed, None, {})


def test_folders_that_cannot_be_a_batch(cli_here: Cli, tmp_path: Path) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    command = ("dub", "it.target", sounds, "-o", tmp_path / "out")
    assert_one_line(cli_here(*command), "no sound or video in this folder")
    write_wav(sounds / "a.wav", np.zeros(100, np.float32))
    (sounds / "a.flac").write_bytes(b"")
    assert_one_line(cli_here(*command), "a.mp4, and so would")
    assert_one_line(cli_here(*command, "--batch", "x.jsonl"), "--batch names the inputs")
    assert_one_line(cli_here("dub", "--batch", tmp_path / "x.jsonl"), "cannot be read")
    (tmp_path / "empty.jsonl").write_text("\n")
    assert_one_line(cli_here("dub", "--batch", tmp_path / "empty.jsonl"), "holds no item")
    one = ("dub", "it.target", sounds / "a.wav", "-o", tmp_path / "a.mp4")
    assert_one_line(cli_here(*one, "--jobs", "2"), "--jobs is for many items")
    assert_one_line(cli_here(*one, "--ray", "auto"), "--ray is for many items")
    with pytest.raises(UsageError, match="no video or photo"):
        items_of_folder("calibrate", sounds, tmp_path, {})


def test_without_ray_one_line_says_what_to_install(
    cli_here: Cli, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    write_wav(sounds / "a.wav", speech_like(0.3))
    monkeypatch.setitem(sys.modules, "ray", None)
    from lipstream.engine import extras

    monkeypatch.setitem(extras.MODULES, "ray", ("no_such_ray",))
    done = cli_here("dub", target, sounds, "-o", tmp_path / "out", "--ray", "auto")
    assert_one_line(done, "--ray needs no_such_ray, which is not installed: ")
    assert done.stderr.endswith("install 'lipstream[ray]'\n")
    done = cli_here("dub", target, sounds, "-o", tmp_path / "out", *QUICK)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "a.mp4").is_file()


def test_no_cluster_answers(cli: Cli, target: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    write_wav(sounds / "a.wav", speech_like(0.3))
    command = ("dub", target, sounds, "-o", tmp_path / "out", "--ray", "nowhere")
    assert_one_line(cli(*command), "--ray nowhere: expected auto, or HOST:PORT")
    assert_one_line(cli(*command[:-1], "127.0.0.1:9"), "--ray 127.0.0.1:9: no cluster answers (")


def test_stopped_in_the_middle_and_gone_on_with(cli: Cli, target: Path, tmp_path: Path) -> None:
    sounds, out = tmp_path / "sounds", tmp_path / "out"
    sounds.mkdir()
    write_wav(sounds / "a.wav", speech_like(0.3))
    write_wav(sounds / "b.wav", speech_like(600))
    arguments = ["dub", target, sounds, "-o", out, *QUICK, "--jobs", "1"]
    # The second is under way once its temporary file has bytes in it.
    done = stopped(arguments, lambda: any(p.stat().st_size > 0 for p in out.glob(".b.mp4.*")))
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert done.stderr.count("\n") == 1 and "no incomplete file is left" in done.stderr
    assert {path.name for path in out.iterdir()} == {NAME, "a.mp4"}
    write_wav(sounds / "b.wav", speech_like(0.3)[:4_000])
    again = cli(*arguments, "--json")
    assert [item["state"] for item in lines_of(again)[1]] == ["skipped", "done"]
