"""Lip readers learn motion from what the teacher hears, and what they read keeps its time."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")

from lipstream.calibration.training.encoder import lip_reader  # noqa: E402
from lipstream.calibration.training.encoder.distillation import (  # noqa: E402
    COMPONENTS,
    Components,
    Goal,
)
from lipstream.calibration.training.encoder.sequences import FILE, STREAM  # noqa: E402
from lipstream.calibration.training.encoder.teacher import WINDOW_TOKENS  # noqa: E402
from lipstream.engine.face.model import face_model  # noqa: E402
from lipstream.engine.networks.signatures import TOKEN_WIDTH  # noqa: E402
from lipstream.engine.types import F32  # noqa: E402

IDENTITY = Components(
    np.eye(COMPONENTS, TOKEN_WIDTH, dtype=np.float32),
    np.zeros(COMPONENTS, np.float32),
    np.ones(COMPONENTS, np.float32),
)


def walk(seed: int, steps: int) -> F32:
    """Components that change as speech does, f32 [steps, COMPONENTS]."""
    steady = np.random.default_rng(seed).standard_normal((steps // 5 + 2, COMPONENTS))
    rows = np.repeat(steady, 5, axis=0)
    smooth = (rows[:-4] + rows[1:-3] + rows[2:-2] + rows[3:-1] + rows[4:]) / 5
    return smooth[:steps].astype(np.float32)


def clip(seed: int, shape: F32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A clip whose expression follows its first component."""
    heard = walk(seed, 150)
    wanted = heard[:, :1] * shape
    return torch.from_numpy(heard), torch.from_numpy(wanted), torch.ones(150)


def test_a_reader_follows_people_that_it_never_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lip_reader, "_STEPS", 60)
    monkeypatch.setattr(lip_reader, "_BATCH", 6)
    opening = face_model().lip_rows()[0]
    shape: F32 = (0.1 * opening / (opening @ opening)).astype(np.float32)
    people = [[clip(10 * person + i, shape) for i in range(6)] for person in (1, 2)]
    reader = lip_reader._train(people, 0, lambda *_: None)
    heard, wanted, _ = clip(99, shape)
    tokens = torch.nn.functional.pad(heard, (0, TOKEN_WIDTH - COMPONENTS)).numpy()
    read = lip_reader.read_windows(Goal(IDENTITY, [reader]), tokens[None].astype(np.float16))[0]
    assert np.corrcoef(read @ opening, wanted.numpy() @ opening)[0, 1] > 0.8


@pytest.mark.parametrize("hearing", [STREAM, FILE])
def test_what_is_read_keeps_its_time(hearing) -> None:  # type: ignore[no-untyped-def]
    ramp = np.arange(WINDOW_TOKENS, dtype=np.float32)[:, None]  # token i is centred on i * 20 ms
    made = lip_reader.read_sequence(np.zeros((400, 3), np.float16), hearing, ramp)
    step, output = 200, 0
    time_s = 0.02 * (step + 1) - hearing.delays_ms[output] / 1000 - 120 / 16_000
    assert made.target[step, output, 0] == pytest.approx(time_s / 0.02, abs=1e-3)
    assert made.known[200].all() and not made.known[2].any() and not made.known[-1, :1].any()


def test_windows_of_a_long_clip_are_joined_without_a_seam() -> None:
    def loudness(window: F32) -> F32:
        """A teacher whose token i is the mean of its 320 samples."""
        padded = np.pad(window, (0, WINDOW_TOKENS * 320 - len(window)))
        made = np.zeros((WINDOW_TOKENS, TOKEN_WIDTH), np.float32)
        made[:, 0] = padded.reshape(WINDOW_TOKENS, 320).mean(1)
        return made

    audio = np.repeat(np.random.default_rng(0).standard_normal(1001), 320).astype(np.float32)
    heard = lip_reader.hear(loudness, IDENTITY, audio)  # type: ignore[arg-type]
    np.testing.assert_allclose(heard[:, 0], audio[::320], atol=1e-5)
