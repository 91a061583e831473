"""Synthetic speech: the phone set, phone times, augmentation that keeps timing."""

from __future__ import annotations

import ctypes
import ctypes.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lipstream.calibration.training.speech import alignment, augment, phones, sentences, synthesis
from lipstream.calibration.training.speech.coarticulation import lip_track
from lipstream.engine.types import F32, U8

INDEX = phones.INDEX


def has_espeak() -> bool:
    try:
        ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        return False
    return True


needs_espeak = pytest.mark.skipif(not has_espeak(), reason="libespeak-ng is not installed")


def named(*names: str) -> tuple[int, ...]:
    return tuple(INDEX[name] for name in names)


def test_ipa_and_arpabet_meet_in_one_set() -> None:
    assert phones.from_ipa("aɪ") == named("aa", "ih") == phones.from_arpabet("AY1")
    assert phones.from_ipa("tʃ") == named("ch") == phones.from_arpabet("CH")
    assert phones.from_ipa("uː") == named("uw") == phones.from_arpabet("uw")
    assert phones.from_ipa("ʲ") == phones.from_ipa("") == named("sil") == phones.from_arpabet("pau")
    assert phones.from_ipa("tɕh") == named("ch")
    with pytest.raises(KeyError):
        phones.from_arpabet("QQ")


def test_a_seed_determines_the_text() -> None:
    first, again, other = (
        [sentences.english(np.random.default_rng(seed)) for _ in range(1)] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    rng = np.random.default_rng(0)
    assert len({sentences.english(rng) for _ in range(200)}) > 150


def test_lips_meet_on_bilabials_open_on_vowels_and_round_early() -> None:
    spoken = np.repeat(named("sil", "aa", "b", "aa", "t", "uw", "sil"), 12).astype(np.uint8)
    track = lip_track(spoken)
    opening, rounding = track[:, 0], track[:, 2]
    assert opening[30] < 0.02
    assert opening[18] > 0.5
    assert opening[42] > 0.5
    bite = lip_track(np.repeat(named("aa", "f", "aa"), 12).astype(np.uint8))[:, 0]
    assert 0.05 < bite[18] < 0.2
    # 100 ms before the vowel begins the lips already come forward.
    assert rounding[50] > 3 * rounding[18]


def pulses(seconds: float) -> F32:
    """Clicks with a ring, once every 100 ms: time is easy to read off."""
    samples = np.zeros(int(16_000 * seconds), np.float32)
    ring = np.sin(np.arange(160) * 0.6) * np.exp(-np.arange(160) / 30)
    for at in range(800, len(samples) - 200, 1600):
        samples[at : at + 160] += ring.astype(np.float32)
    return samples


@pytest.mark.parametrize("seed", range(6))
def test_a_codec_keeps_timing(seed: int) -> None:
    samples = pulses(2.0)
    decoded = augment.through_codec(samples, np.random.default_rng(seed))
    assert len(decoded) == len(samples)
    lags = np.arange(-40, 41)
    match = [float(np.dot(np.roll(decoded, -lag), samples)) for lag in lags]
    assert abs(int(lags[int(np.argmax(match))])) <= 8  # half a millisecond


def test_resampling_scales_time_by_the_rate_and_the_spectrum_does_not() -> None:
    samples = pulses(2.0)
    rng = np.random.default_rng(0)
    faster = augment.resample_and_equalise(samples, 16_000 * 1.25, rng, augment.DRY)
    assert abs(len(faster) - len(samples) / 1.25) <= 1
    assert abs(int(np.abs(faster[:1400]).argmax()) - 800 / 1.25) < 12
    equalised = augment.resample_and_equalise(samples, 16_000, rng, augment.Augmentation(room=0))
    assert abs(int(np.abs(equalised[:1600]).argmax()) - int(np.abs(samples[:1600]).argmax())) < 24


def test_lost_packets_are_concealed_and_keep_timing() -> None:
    rng = np.random.default_rng(3)
    samples = rng.standard_normal(8 * 16_000).astype(np.float32)
    received = augment.lose_packets(samples, rng)
    packets, before = received.reshape(-1, 320), samples.reshape(-1, 320)
    lost = np.flatnonzero((packets != before).any(1))
    assert 0.005 * len(packets) < len(lost) < 0.4 * len(packets)
    first = int(lost[0])
    np.testing.assert_allclose(packets[first], 0.6 * before[first - 1], rtol=1e-6)


def test_music_has_no_pauses_and_changes() -> None:
    music = augment.music(8 * 16_000, np.random.default_rng(0))
    power = (music.reshape(-1, 16_000) ** 2).mean(1)
    assert power.min() > 0.02 * power.max()
    spectra = np.abs(np.fft.rfft(music.reshape(-1, 16_000), axis=1))
    assert np.corrcoef(spectra[0], spectra[-1])[0, 1] < 0.9


def test_alignment_finds_the_boundaries_of_a_clear_posterior() -> None:
    truth = np.repeat(named("sil", "b", "iy", "sil", "f", "ao", "sil"), 6)
    posterior = np.full((len(truth), len(phones.PHONES)), 0.01, np.float32)
    posterior[np.arange(len(truth)), truth] = 0.6
    labels, score = alignment.align(np.log(posterior), list(named("b", "iy", "f", "ao")))
    np.testing.assert_array_equal(labels, np.repeat(truth, 2))
    assert -0.7 < score < np.log(0.6)


def test_grid_names_are_sentences() -> None:
    assert alignment.grid_sentence("bbaf4p") == "bin blue at F four please"


@needs_espeak
def test_espeak_reports_phones_with_their_times() -> None:
    spoken = in_fresh_process("speech")
    starts, order = spoken["starts"], spoken["phones"]
    assert (np.diff(starts) >= 0).all()
    said = [int(p) for p in order if p != phones.SILENCE]
    assert said[:4] == list(named("b", "aa", "b", "iy"))
    # Where a vowel is said there is sound, and after the end there is none.
    rate_hz, samples = int(spoken["rate"]), spoken["samples"]
    at = int((starts[list(order).index(INDEX["aa"])] + 0.06) * rate_hz)
    assert np.abs(samples[at : at + 500]).max() > 0.05


@needs_espeak
def test_a_clip_is_labelled_speech() -> None:
    clip = in_fresh_process("clip")
    assert clip["samples"].shape == (synthesis.CLIP_SAMPLES,)
    assert clip["phones"].shape == (800,)
    voiced: U8 = clip["phones"]
    energy = (clip["samples"].reshape(800, 160) ** 2).mean(1)
    assert len(set(voiced.tolist())) > 10
    assert np.median(energy[voiced != phones.SILENCE]) > 3 * np.median(
        energy[voiced == phones.SILENCE]
    )


@needs_espeak
def test_a_seed_in_a_fresh_process_is_a_clip() -> None:
    first, second = in_fresh_process("clip"), in_fresh_process("clip")
    np.testing.assert_array_equal(first["samples"], second["samples"])
    np.testing.assert_array_equal(first["phones"], second["phones"])


SCRIPT = """
import sys
import numpy as np
from lipstream.calibration.training.speech import synthesis
if sys.argv[1] == "speech":
    s = synthesis.Espeak().speak("Bobby", "en-us+f3", 160, 50, 50)
    out = dict(samples=s.samples, rate=s.rate_hz, starts=s.starts_s, phones=s.phones)
else:  # a seed that speaks through espeak-ng, with clear speech
    c = synthesis.make_clip(13, synthesis.augment.Augmentation(noise=0))
    out = dict(samples=c.samples, phones=c.phones, voice=c.voice)
np.savez(sys.argv[2], **out)
"""


def in_fresh_process(what: str) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """espeak-ng keeps state between calls, so what must come back is asked of a new process."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.npz"
        command = [sys.executable, "-c", SCRIPT, what, str(path)]
        subprocess.run(command, check=True, timeout=60)
        with np.load(path) as saved:
            return {key: saved[key] for key in saved.files}
