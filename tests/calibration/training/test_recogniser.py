"""Batches and the loss of the recogniser."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")

from lipstream.calibration.training.encoder import recogniser  # noqa: E402
from lipstream.calibration.training.speech.corpus import CLIP_FRAMES, Shard, phone_targets  # noqa: E402
from lipstream.calibration.training.speech.phones import INDEX  # noqa: E402
from lipstream.engine.networks.signatures import BANDS, FRAMES_PER_STEP  # noqa: E402


def shard(level: float) -> Shard:
    rng = np.random.default_rng(0)
    log_mel = (level + 0.1 * rng.standard_normal((3, CLIP_FRAMES, BANDS))).astype(np.float16)
    features = np.zeros((3, CLIP_FRAMES // 2, 2 * BANDS), np.float16)
    phones = np.full((3, CLIP_FRAMES), INDEX["m"], np.uint8)
    return Shard(log_mel, features, phones, ("a", "b", ""), phone_targets(phones))


def test_babble_is_weaker_than_the_voice_and_audible() -> None:
    voice, others = shard(0.0), shard(5.0)
    rng = np.random.default_rng(1)
    rises = []
    for _ in range(20):
        mixed = recogniser.with_babble(voice.log_mel[0], [others], rng)
        rises.append(np.exp(mixed).mean() / np.exp(voice.log_mel[0].astype(np.float32)).mean() - 1)
    # 2 to 20 dB below the voice, whatever the levels of the recordings.
    assert min(rises) > 0.009 and max(rises) < 0.64
    assert max(rises) > 0.1


def test_a_batch_has_targets_where_the_clip_has_begun() -> None:
    batch = recogniser.draw([shard(0.0)], np.random.default_rng(0))
    assert batch.features.shape == (recogniser.BATCH, CLIP_FRAMES // 2, BANDS * FRAMES_PER_STEP)
    assert set(batch.targets.unique().tolist()) == {-100, INDEX["m"]}
    assert (batch.targets[:, 0, -1] == -100).all() and (batch.targets[:, -1] >= 0).all()


def test_missing_a_bilabial_costs_twice() -> None:
    logits = torch.zeros(1, 4, 5, 41)
    m, n = (torch.full((1, 4, 5), INDEX[name]) for name in "mn")
    cost = {name: float(recogniser.phone_loss(logits, t)) for name, t in (("m", m), ("n", n))}
    assert cost["m"] == pytest.approx(2 * cost["n"], rel=0.05)
