"""Consent is bound to one bundle; a bundle without it is for files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lipstream.calibration.consent import earlier_consent, state_consent
from lipstream.engine.errors import ConsentMissing, TargetError, UsageError
from lipstream.engine.target.bundle import load_consented, load_target
from lipstream.engine.target.consent import RECORD, Consent, bind, read_consent


def info_of(bundle: Path) -> dict:  # type: ignore[type-arg]
    return json.loads((bundle / "target.json").read_text())


def write_info(bundle: Path, info: dict) -> None:  # type: ignore[type-arg]
    (bundle / "target.json").write_text(json.dumps(info))


@pytest.fixture
def bundle(target: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(target, tmp_path / "mine.target"))


def test_the_demo_carries_one(target: Path) -> None:
    consent = load_consented(target).consent
    assert consent is not None
    assert (consent.who, consent.purpose) == (
        "NASA portrait of Eileen Collins",
        "this demonstration",
    )
    assert info_of(target)["consent"] == consent.statement


@pytest.mark.parametrize(
    ("statement", "who", "when", "purpose"),
    [
        ("Ann Lee; 2026-11-01; our help desk", "Ann Lee", "2026-11-01", "our help desk"),
        ("me, today, for tests, and more", "me", "today", "for tests, and more"),
        ("Ann Lee, actress; 1 May; ads", "Ann Lee, actress", "1 May", "ads"),
        ("nobody", "nobody", None, "not stated"),
        ("me, today", "me, today", None, "not stated"),
    ],
)
def test_who_when_and_for_what(statement: str, who: str, when: str | None, purpose: str) -> None:
    consent = Consent.stated(statement)
    assert (consent.who, consent.purpose) == (who, purpose)
    assert consent.when == (when or consent.recorded[:10])
    assert consent.statement == statement


@pytest.mark.parametrize("statement", ["", " \n", "x" * 2001])
def test_statements_that_say_nothing_or_too_much(statement: str) -> None:
    with pytest.raises(UsageError, match="--consent"):
        Consent.stated(statement)


def test_bytes_that_are_no_text_do_not_stop_it() -> None:
    consent = Consent.stated("J\udcfcrgen; today; tests")
    assert len(consent.sha256) == 64
    assert json.loads(json.dumps(consent.as_json()))["who"] == "J�rgen"


def test_one_that_is_copied_into_another_bundle_is_refused(bundle: Path, target: Path) -> None:
    state_consent(bundle, Consent.stated("Ann Lee; 2026-11-01; our help desk"))
    other = bundle.with_name("other.target")
    shutil.copytree(target, other)
    # Another person's bundle: its files differ.
    report = other / "report.html"
    report.write_text(report.read_text() + "\n")
    from lipstream.calibration import bundle_writer

    bundle_writer._write_info(other, info_of(other))
    stolen = {key: info_of(bundle)[key] for key in ("consent", RECORD)}
    write_info(other, info_of(other) | stolen)
    with pytest.raises(TargetError, match="other.target: target.json: its consent was given for"):
        load_target(other)


@pytest.mark.parametrize("key", ["who", "when", "for", "recorded", "statement_sha256"])
def test_a_changed_record_is_refused(bundle: Path, key: str) -> None:
    info = info_of(bundle)
    info[RECORD][key] += "x"
    with pytest.raises(TargetError, match="another bundle"):
        read_consent(info)
    info["consent"] = "somebody else"
    with pytest.raises(TargetError, match="another bundle"):
        read_consent(info)


@pytest.mark.parametrize("record", [[], "text", {}, {"recorded": 1}])
def test_a_record_of_another_kind(bundle: Path, record: object) -> None:
    with pytest.raises(TargetError, match="damaged"):
        read_consent(info_of(bundle) | {RECORD: record})


@pytest.mark.parametrize(
    ("statement", "says"),
    [(None, "it records no consent"), ("me, long ago", "of an older version")],
)
def test_a_bundle_without_one_is_not_for_live_use(
    bundle: Path, statement: str | None, says: str
) -> None:
    info = info_of(bundle) | {"consent": statement}
    del info[RECORD]
    write_info(bundle, info)
    assert load_target(bundle).consent is None
    with pytest.raises(ConsentMissing, match=says) as raised:
        load_consented(bundle)
    assert "lipstream consent mine.target" in str(raised.value)
    assert "\n" not in str(raised.value)
    state_consent(bundle, Consent.stated("me; today; tests"))
    assert load_consented(bundle).consent == read_consent(info_of(bundle))
    assert [path.name for path in bundle.iterdir() if path.name.endswith(".part")] == []


def test_what_is_kept_when_a_target_is_calibrated_again(bundle: Path) -> None:
    state_consent(bundle, Consent("me; today; tests", "2020-01-01T00:00:00+00:00"))
    kept = earlier_consent(bundle)
    assert kept == Consent("me; today; tests", "2020-01-01T00:00:00+00:00")
    # As a writer passes it on, before the files are known.
    files = {"frames.mjpeg": {"bytes": 1, "sha256": "0"}}
    bound = kept.unbound() | bind(kept.unbound(), files)
    assert read_consent({**bound, "files": files}) == kept
    assert bind({"consent": None}, files) == {}


def test_consent_is_not_stated_for_a_bundle_whose_files_changed(bundle: Path) -> None:
    with (bundle / "frames.mjpeg").open("ab") as file:
        file.write(b"x")
    with pytest.raises(TargetError, match=r"frames\.mjpeg: size differs"):
        state_consent(bundle, Consent.stated("me; today; tests"))
