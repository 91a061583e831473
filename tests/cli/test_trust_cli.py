"""Consent and marks on the command line: who is refused, who is warned, what `verify` answers."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from lipstream.cli_trust import ask_for_consent
from lipstream.console import Console
from lipstream.engine.errors import ConsentMissing
from lipstream.engine.target.consent import RECORD, Consent
from lipstream.streaming.server.app import _load_first
from tests.cli.conftest import Cli
from tests.cli.test_cli import assert_one_line, speech_like
from tests.streaming.sound_files import write_wav


@pytest.fixture
def unconsented(target: Path, tmp_path: Path) -> Path:
    """A bundle that records no consent."""
    bundle = Path(shutil.copytree(target, tmp_path / "stranger.target"))
    info = json.loads((bundle / "target.json").read_text())
    info["consent"] = info.pop(RECORD) and None
    (bundle / "target.json").write_text(json.dumps(info))
    return bundle


@pytest.mark.parametrize(
    "command", [("present",), ("publish", "--whip", "http://127.0.0.1:9/whip")]
)
def test_live_use_of_a_stranger_is_refused(
    cli_here: Cli, unconsented: Path, command: tuple[str, ...]
) -> None:
    done = cli_here(command[0], unconsented, *command[1:])
    assert_one_line(done, "stranger.target: it records no consent of the person shown")
    assert "lipstream consent stranger.target" in done.stderr


def test_a_server_with_no_other_target_does_not_start(cli: Cli, unconsented: Path) -> None:
    done = cli("serve", "--targets", unconsented, "--port", 0, "--processes", 0, "--sessions", 1)
    assert_one_line(done, "stranger.target: it records no consent of the person shown")


class Registry:
    """Of targets, of which some lack consent."""

    def __init__(self, *lacking: str) -> None:
        self.lacking, self.loaded = lacking, []

    async def engine(self, name: str) -> None:
        if name in self.lacking:
            raise ConsentMissing(f"{name}.target: it records no consent")
        self.loaded.append(name)


async def load(registry: Registry, names: list[str], count: int) -> tuple[list[str], list[str]]:
    told: list[str] = []
    served = await _load_first(registry, names, count, told.append)  # type: ignore[arg-type]
    return served, told


def test_a_server_leaves_out_targets_without_consent() -> None:
    import asyncio

    registry = Registry("b")
    served, told = asyncio.run(load(registry, ["a", "b", "c", "d"], 2))
    assert served == ["a", "c", "d"] and registry.loaded == ["a", "c"]
    assert told == ["not served: b.target: it records no consent"]
    with pytest.raises(ConsentMissing):
        asyncio.run(load(Registry("a", "b"), ["a", "b"], 4))


def test_consent_is_shown_and_stated(cli_here: Cli, unconsented: Path) -> None:
    assert_one_line(cli_here("consent", unconsented), "it records no consent")
    assert_one_line(cli_here("consent", unconsented, " "), "--consent is empty")
    done = cli_here("consent", unconsented.parent / "none.target")
    assert_one_line(done, "none.target: not a target bundle")
    done = cli_here("consent", unconsented, "Ann Lee; 2026-11-01; our help desk")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{unconsented}: Ann Lee, 2026-11-01, for: our help desk (recorded 20" in done.stdout
    shown = json.loads(cli_here("consent", unconsented, "--json").stdout)
    assert shown["who"] == "Ann Lee" and shown["for"] == "our help desk"
    assert shown["statement_sha256"] == Consent.stated(shown["statement"]).sha256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--label", "off"), "--label off: say why, as in --label 'off:"),
        (("--label", "off: "), "--label off: say why"),
        (("--label", "sticker"), "--label sticker: expected corner, bar or off:REASON"),
        (("--no-watermark", " "), "--no-watermark: say why"),
    ],
)
@pytest.mark.parametrize("command", ["dub", "demo", "serve", "present", "publish"])
def test_marks_are_not_left_out_without_a_reason(
    cli_here: Cli,
    target: Path,
    tmp_path: Path,
    command: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    voice = write_wav(tmp_path / "voice.wav", speech_like(0.4))
    arguments: dict[str, tuple[str | Path, ...]] = {
        "dub": (target, voice, "-o", tmp_path / "out.mp4"),
        "demo": ("-o", tmp_path / "out.mp4"),
        "serve": ("--targets", target),
        "present": (target,),
        "publish": (target, "--whip", "http://127.0.0.1:9/whip"),
    }
    assert_one_line(cli_here(command, *arguments[command], *options), message)
    assert list(tmp_path.iterdir()) == [voice]


def test_a_dub_of_a_stranger_is_warned_of_and_marked(
    cli_here: Cli, unconsented: Path, tmp_path: Path
) -> None:
    voice = write_wav(tmp_path / "voice.wav", speech_like(0.4))
    out = tmp_path / "out.mp4"
    done = cli_here("dub", unconsented, voice, "-o", out, "--renderer", "none", "--json")
    assert done.returncode == 0
    assert done.stderr.startswith(f"lipstream: warning: {unconsented}: it records no consent")
    assert f'lipstream consent {unconsented} "WHO' in done.stderr  # as it can be typed
    assert done.stderr.count("\n") == 1
    report = json.loads(done.stdout)
    assert report["provenance"]["signed_by"].startswith("lipstream key ")
    verified = cli_here("verify", out, "--json")
    assert (verified.returncode, verified.stderr) == (0, "")
    found = json.loads(verified.stdout)
    assert found["marked"] is True and found["label"] == "corner"
    said = found["manifest"]["synthesis"]
    assert said["consent"] is None and said["target"]["kind"] == "photo"
    assert said["watermark"] == report["marks"]["watermark"]
    text = cli_here("verify", out).stdout.splitlines()
    assert text[0] == f"{out}: marked as synthetic"
    assert "this user's own key" in text[1] and '"AI" in the corner' in text[3]


def test_webm_has_no_binding_and_says_so(cli_here: Cli, target: Path, tmp_path: Path) -> None:
    voice = write_wav(tmp_path / "voice.wav", speech_like(0.4))
    out = tmp_path / "out.webm"
    done = cli_here("dub", target, voice, "-o", out, "--renderer", "none")
    assert done.returncode == 0
    sidecar = tmp_path / "out.c2pa"
    assert done.stderr == (
        "lipstream: .webm files have no C2PA binding: the signed manifest is "
        f"{sidecar}; keep it beside the video\n"
    )
    assert "valid in out.c2pa" in cli_here("verify", out).stdout


def test_what_verify_cannot_read(cli_here: Cli, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no film " * 100)
    assert_one_line(cli_here("verify", text), "text.mp4: cannot be read")
    assert_one_line(cli_here("verify", tmp_path / "none.mp4"), "no such file")
    assert_one_line(cli_here("verify", tmp_path), "is a folder")
    sound = write_wav(tmp_path / "voice.wav", speech_like(0.4))
    assert_one_line(cli_here("verify", sound), "no picture in it")
    assert_one_line(cli_here("verify", "http://127.0.0.1:9/a.mp4"), "http://127.0.0.1:9/a.mp4: ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_at_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(text: str, terminal: bool = True) -> str | None:
        err = Terminal()
        monkeypatch.setattr(sys, "stdin", Terminal(text) if terminal else io.StringIO(text))
        return ask_for_consent(Console(io.StringIO(), err))

    assert answers("Ann Lee\n2026-11-01\nour help desk\n") == "Ann Lee; 2026-11-01; our help desk"
    asked = answers("Lee; Ann\n\ntests\n")
    assert asked == "Lee, Ann; today; tests"
    assert Consent.stated(asked).who == "Lee, Ann"
    assert answers("\n") is None and answers("") is None
    assert answers("Ann Lee\n\n\n", terminal=False) is None


def test_doctor_names_the_key(cli_here: Cli) -> None:
    checks = json.loads(cli_here("doctor", "--json").stdout)["checks"]
    found = next(check for check in checks if check["name"] == "provenance")
    assert found["status"] == "ok" and found["found"].startswith("c2pa-python ")
