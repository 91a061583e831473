"""Distillation: the output with babble approaches the output without, and the head stays."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")

from lipstream.calibration.training.encoder import babble_distillation  # noqa: E402
from lipstream.calibration.training.encoder.babble_distillation import Speech  # noqa: E402
from lipstream.calibration.training.speech import corpus  # noqa: E402
from lipstream.calibration.training.speech.corpus import Shard  # noqa: E402
from lipstream.engine.face.model import face_model  # noqa: E402
from lipstream.engine.networks.encoder_torch import EncoderNet, EncoderSize  # noqa: E402
from lipstream.engine.speech.features import BANDS  # noqa: E402

SIZE = EncoderSize(hidden=24, code=4, head=8, coefficients=face_model().size)


def shard(seed: int, *, known: bool) -> Shard:
    """Six clips of random levels in every band."""
    rng = np.random.default_rng(seed)
    knots = rng.normal(-3, 2.5, (6, 81, BANDS))
    log_mel = np.repeat(knots, 10, axis=1)[:, : corpus.CLIP_FRAMES].astype(np.float16)
    steps = corpus.normalise(log_mel).reshape(6, corpus.CLIP_FRAMES // 2, 2 * BANDS)
    phones = np.full((6, corpus.CLIP_FRAMES), 3 if known else corpus.UNKNOWN, np.uint8)
    return Shard(log_mel, steps, phones, ("",) * 6, corpus.phone_targets(phones))


def test_a_batch_has_clips_without_and_with_babble() -> None:
    speech = Speech([shard(0, known=True)], [shard(1, known=False)])
    alone, among, targets = babble_distillation._draw(speech, np.random.default_rng(0))
    assert alone.shape == among.shape
    known = (targets >= 0).any((1, 2))
    assert 0 < known.sum() < len(known) / 2  # most speech is unlabelled
    other = ((alone - among).abs().mean((1, 2)) > 0.3).float()
    assert 0.4 < other.mean() < 1


def test_the_output_with_babble_approaches_that_without() -> None:
    torch.manual_seed(0)
    net = EncoderNet(SIZE).eval()
    with torch.no_grad():
        net.phone.weight *= 8  # posteriors that differ from one another
    teacher = deepcopy(net)
    speech = Speech([shard(0, known=False)], [shard(1, known=False), shard(2, known=False)])
    alone, among, _ = babble_distillation._draw(speech, np.random.default_rng(9))
    rows, with_lips = torch.from_numpy(face_model().lip_rows()), torch.arange(16)

    def distance() -> float:
        with torch.no_grad():
            wanted = babble_distillation._Outputs(teacher)(alone, with_lips)
            return float(
                babble_distillation._distance(
                    babble_distillation._Outputs(net)(among, with_lips), wanted, rows
                )
            )

    before = distance()
    babble_distillation.distil(net, speech, 40, 0, lambda *_: None, teacher)
    assert distance() < 0.95 * before
    for name, value in net.state_dict().items():
        if name.split(".")[0] in ("code", "head_gru", "head"):
            assert torch.equal(value, teacher.state_dict()[name]), name


def test_held_out_people_and_reserved_clips_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "video"
    for name in ("obama_a.mp4", "anna_a.mp4", "portraits/x.mp4"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    entry = {"file": "video/portraits/x.mp4", "use": "tests"}
    (tmp_path / "manifest.json").write_text(json.dumps([entry]))
    names = [path.name for path in babble_distillation.training_clips(tmp_path, ("obama",))]
    assert names == ["anna_a.mp4"]
