"""`lipstream doctor --self-test`: what it prints and its exit codes."""

from __future__ import annotations

import json

import pytest

from lipstream import self_test
from lipstream.engine import extras
from lipstream.self_test import TRIALS, Trial
from tests.cli.conftest import Cli
from tests.inputs.sounds import written

TEXT = Trial("a text", "express", written("t.wav", b"text\n" * 50), refusal="not an audio")
WRONG = Trial("a text for speech", "express", written("t.wav", b"text\n" * 50), seconds=1.0)


def test_there_are_ten_of_all_commands() -> None:
    assert len(TRIALS) == 10
    assert {trial.command for trial in TRIALS} == {"calibrate", "dub", "express"}


def test_a_line_for_each_and_the_exit_code(cli_here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "TRIALS", (WRONG, TEXT))
    done = cli_here("doctor", "--self-test")
    assert (done.returncode, done.stderr) == (1, "")
    first, second = done.stdout.splitlines()
    assert first.startswith("failed    express    a text for speech: exit code 2: lipstream: ")
    assert second.startswith("ok        express    a text: not an audio or video file")


def test_json(cli_here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "TRIALS", (WRONG,))
    done = cli_here("doctor", "--self-test", "--json")
    assert done.returncode == 1 and done.stdout.count("\n") == 1
    report = json.loads(done.stdout)
    assert report["ok"] is False
    assert [trial["status"] for trial in report["trials"]] == ["failed"]
    assert set(report["trials"][0]) == {"name", "command", "status", "found", "seconds"}


def test_the_base_install_leaves_out_what_needs_the_extra(
    cli_here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "missing", lambda modules: ["mediapipe"])
    monkeypatch.setattr(self_test, "TRIALS", (TRIALS[0], TEXT))
    done = cli_here("doctor", "--self-test")
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert first.startswith("left out  calibrate  a photo on its side: needs mediapipe: ")
    assert "pip install" in first and second.startswith("ok ")
