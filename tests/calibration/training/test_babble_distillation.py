"""Hearing one voice among others is learned from what the encoder says of it alone."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")

from lipstream.calibration.training.encoder import babble_distillation  # noqa: E402
from lipstream.calibration.training.speech import corpus  # noqa: E402
from lipstream.calibration.training.speech.corpus import Shard  # noqa: E402
from lipstream.engine.face.model import face_model  # noqa: E402
from lipstream.engine.networks.encoder_torch import EncoderNet, EncoderSize  # noqa: E402
from lipstream.engine.speech.features import BANDS  # noqa: E402

SIZE = EncoderSize(hidden=24, code=4, head=8, coefficients=face_model().size)


def shard(seed: int, *, known: bool) -> Shard:
    """Something that rises and falls in every band, six clips."""
    rng = np.random.default_rng(seed)
    knots = rng.normal(-3, 2.5, (6, 81, BANDS))
    log_mel = np.repeat(knots, 10, axis=1)[:, : corpus.CLIP_FRAMES].astype(np.float16)
    steps = corpus.normalise(log_mel).reshape(6, corpus.CLIP_FRAMES // 2, 2 * BANDS)
    phones = np.full((6, corpus.CLIP_FRAMES), 3 if known else corpus.UNKNOWN, np.uint8)
    return Shard(log_mel, steps, phones, ("",) * 6, corpus.phone_targets(phones))


def test_a_batch_is_heard_alone_and_among_others() -> None:
    spoken, plain = [shard(0, known=True)], [shard(1, known=False)]
    alone, among, targets = babble_distillation._draw(spoken, plain, np.random.default_rng(0))
    assert alone.shape == among.shape
    known = (targets >= 0).any((1, 2))
    assert 0 < known.sum() < len(known) / 2  # most speech has no words
    other = ((alone - among).abs().mean((1, 2)) > 0.3).float()
    assert 0.4 < other.mean() < 1


def test_what_is_said_in_a_crowd_comes_nearer_to_what_is_said_alone() -> None:
    torch.manual_seed(0)
    net = EncoderNet(SIZE).eval()
    with torch.no_grad():
        net.phone.weight *= 8  # an opinion
    teacher = deepcopy(net)
    spoken, plain = [shard(0, known=False)], [shard(1, known=False), shard(2, known=False)]
    alone, among, _ = babble_distillation._draw(spoken, plain, np.random.default_rng(9))
    rows, headed = torch.from_numpy(face_model().lip_rows()), torch.arange(16)

    def apart() -> float:
        with torch.no_grad():
            wanted = babble_distillation._Said(teacher)(alone, headed)
            return float(
                babble_distillation._apart(
                    babble_distillation._Said(net)(among, headed), wanted, rows
                )
            )

    before = apart()
    babble_distillation.learn_crowds(net, spoken, plain, 40, 0, lambda what, share: None, teacher)
    assert apart() < 0.95 * before
    for name, value in net.state_dict().items():
        if name.split(".")[0] in ("code", "head_gru", "head"):
            assert torch.equal(value, teacher.state_dict()[name]), name


def test_held_out_people_and_reserved_clips_are_not_heard(tmp_path: Path) -> None:
    folder = tmp_path / "video"
    for name in ("obama_a.mp4", "anna_a.mp4", "portraits/x.mp4"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    entry = {"file": "video/portraits/x.mp4", "use": "tests"}
    (tmp_path / "manifest.json").write_text(json.dumps([entry]))
    heard = [path.name for path in babble_distillation.heard_clips(tmp_path, ("obama",))]
    assert heard == ["anna_a.mp4"]
