"""Recorded voices: every phone name has a phone, and the speech has the phones of its text."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from lipstream.calibration.training.speech import phones
from lipstream.calibration.training.speech import recorded_voices as recorded
from lipstream.engine.errors import UsageError

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


@needs_flite
def test_flite_reports_phones_with_their_times() -> None:
    speech = recorded.speak_flite("Mama", "slt", 1.0, 180.0)
    said = [phones.PHONES[p].name for p in speech.phones if p != phones.SILENCE]
    assert said == ["m", "aa", "m", "ah"]
    assert 0.3 < len(speech.samples) / speech.rate_hz < 2.0


def test_every_phone_name_of_festival_has_a_phone() -> None:
    voices = recorded.festival_voices()
    if not voices:
        pytest.skip(f"no festival: apt-get install {recorded.FESTIVAL_PACKAGES}")
    listing = (
        "(format t \"%l\\n\" (mapcar car (cadr (assoc 'phones (PhoneSet.description '(phones))))))"
    )
    for voice in voices:
        program = f"(begin (voice_{voice.name}) {listing})"
        out = subprocess.run(["festival", "-b", program], capture_output=True, text=True).stdout
        names = out.strip().splitlines()[-1].strip("()").split()
        assert len(names) > 20, voice.name
        known = voice.phones
        if known is not None:
            assert {name for name in names if name not in known} <= {"D:", "T:"} | set(known), (
                voice.name
            )
            assert all(phone in phones.INDEX for phone in known.values())


def test_speech_has_the_phones_of_its_text() -> None:
    voices = recorded.festival_voices()
    if not voices:
        pytest.skip(f"no festival: apt-get install {recorded.FESTIVAL_PACKAGES}")
    for voice in voices:
        (speech,) = recorded.speak_festival(["mamapu"], voice, 1.0)
        said = [phones.PHONES[p].name for p in speech.phones if p != phones.SILENCE]
        assert [name for name in said if name in "pbm"] == ["m", "m", "p"], voice.name
        assert (np.diff(speech.starts_s) >= 0).all()
        assert 0.2 < len(speech.samples) / speech.rate_hz < 3.0
        assert speech.starts_s[-1] < len(speech.samples) / speech.rate_hz + 0.05


def test_a_missing_synthesiser_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match="package flite"):
        recorded.speak_flite("x", "slt", 1.0, 100.0)
    with pytest.raises(UsageError, match="festvox-us-slt-hts"):
        recorded.speak_festival(["x"], recorded.FestivalVoice("kal_diphone"), 1.0)


def test_a_voice_that_is_not_installed_is_named() -> None:
    if shutil.which("festival") is None:
        pytest.skip("festival is not installed")
    with pytest.raises(UsageError, match="does not speak as nobody"):
        recorded.speak_festival(["x"], recorded.FestivalVoice("nobody"), 1.0)
