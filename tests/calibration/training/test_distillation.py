"""The listener learns what the teacher makes of the same moments, and windows line up with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")

from lipstream.calibration.training.clips import find_clips, seen_clips  # noqa: E402
from lipstream.calibration.training.encoder import distillation, windows  # noqa: E402
from lipstream.calibration.training.encoder.distillation import (  # noqa: E402
    COMPONENTS,
    principal_components,
)
from lipstream.calibration.training.encoder.teacher import (  # noqa: E402
    EARLY_SAMPLES,
    WINDOW_LENGTH,
    whisper_features,
)
from lipstream.calibration.training.encoder.windows import Windows  # noqa: E402
from lipstream.calibration.training.speech.log_mel import features_of, log_mel  # noqa: E402
from lipstream.engine.face.model import face_model  # noqa: E402
from lipstream.engine.networks.encoder_torch import Listener  # noqa: E402
from lipstream.engine.networks.signatures import (  # noqa: E402
    BANDS,
    FEATURES,
    TOKEN_WIDTH,
    TOKENS_AFTER,
)
from lipstream.engine.types import F32  # noqa: E402

STEPS = 80


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def shard(listener: Listener, seed: int) -> Windows:
    """Random windows, and what `listener` makes of them a token earlier."""
    rng = np.random.default_rng(seed)
    knots = rng.normal(-1, 1, (4, 2 * STEPS // 10 + 1, BANDS))
    energies = np.repeat(knots, 10, axis=1)[:, : 2 * STEPS].astype(np.float16)
    normal = distillation.normalise(energies).reshape(4, STEPS, FEATURES)
    with torch.no_grad():
        target = listener(torch.from_numpy(normal), TOKENS_AFTER)[-1][:, 1:]
    target = torch.nn.functional.pad(target, (0, 0, 0, 1)).numpy().astype(np.float16)
    return Windows(target, energies[:, None], np.zeros((0, 0), np.uint8))


def test_outputs_are_of_the_same_moments() -> None:
    torch.manual_seed(0)
    listener = Listener().eval()
    made = shard(listener, 0)
    normal = distillation.normalise(made.energies[:, 0]).reshape(4, STEPS, FEATURES)
    way = distillation._Way(as_file=False, after_silence=False)
    with torch.no_grad():
        found, wanted = distillation._outputs(
            listener, torch.from_numpy(normal), torch.from_numpy(made.target).float(), way
        )
    # Equal but for the half precision of the stored target; a token off, they are not.
    assert found.shape == wanted.shape and found.shape[1] >= 15
    assert float((found - wanted).abs().mean()) < 5e-4
    assert float((found[:, 1:] - wanted[:, :-1]).abs().mean()) > 5e-3


def test_distillation_brings_the_listener_to_its_teacher(one_thread: None) -> None:
    torch.manual_seed(0)
    teacher, learner = Listener().eval(), Listener()
    made = shard(teacher, 1)
    learner.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        for weight in learner.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    losses: list[float] = []

    def report(step: str, _: float) -> None:
        losses.append(float(step.rsplit(" ", 1)[1]))

    tokens = made.target.reshape(-1, TOKEN_WIDTH).astype(np.float32)
    components = principal_components(tokens, COMPONENTS)
    goal = distillation.Goal(components)
    distillation.distil(learner, goal, distillation.Material([made]), 21, 0, report)
    assert losses[-1] < 0.7 * losses[0]


def test_an_error_that_readers_see_costs_more() -> None:
    rows = torch.from_numpy(face_model().lip_rows())

    class Reader(torch.nn.Module):
        """Lips that open, widen and protrude with the third component."""

        def forward(self, heard: torch.Tensor) -> torch.Tensor:
            return heard[..., 2:3] * torch.linalg.pinv(rows).sum(1)

    even = np.ones(COMPONENTS, np.float32)
    identity = np.eye(COMPONENTS, TOKEN_WIDTH, dtype=np.float32)
    goal = distillation.Goal(distillation.Components(identity, 0 * even, even), [Reader()])
    wanted = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 60, COMPONENTS))).float()

    def error(component: int) -> float:
        found = wanted.clone()
        found[..., component] += 0.5
        return float(distillation._error(goal, 0, found, wanted))

    assert error(7) == pytest.approx(0.25 / COMPONENTS, rel=1e-3)
    # 1.9 is the sum of the weights; 1 is the variance of the lips.
    assert error(2) - error(7) == pytest.approx(1.9 * 0.25, rel=0.2)


def test_components_have_unit_variance_and_are_ordered() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((3000, TOKEN_WIDTH)) * np.linspace(3, 0.1, TOKEN_WIDTH) + 2
    tokens[:, 1] += tokens[:, 0]
    found = principal_components(tokens.astype(np.float32), COMPONENTS)
    values = found.of(torch.from_numpy(tokens.astype(np.float32))).numpy()
    np.testing.assert_allclose(values.std(0), 1, atol=0.02)
    np.testing.assert_allclose(values.mean(0), 0, atol=0.02)
    assert (np.diff(found.spread) <= 1e-6).all()


def test_babble_is_weaker_than_the_voice_and_audible() -> None:
    rng = np.random.default_rng(1)
    voice = rng.normal(-1, 0.1, (60, BANDS)).astype(np.float32)
    louder = rng.normal(3, 0.1, (2, 1, 60, BANDS)).astype(np.float16)
    others = Windows(np.zeros((2, 30, 1), np.float16), louder, np.zeros((0, 0), np.uint8))
    rises = [
        np.power(10, distillation._with_babble(voice, [others], rng)).mean()
        / np.power(10, voice).mean()
        - 1
        for _ in range(20)
    ]
    # 2 to 22 dB below the voice, whatever the levels of the recordings.
    assert min(rises) > 0.005 and max(rises) < 0.64
    assert max(rises) > 0.1


def test_windows_of_a_stream_begin_early_for_the_listener() -> None:
    rng = np.random.default_rng(0)
    sounds = [rng.standard_normal(WINDOW_LENGTH).astype(np.float32) for _ in range(3)]
    pairs = list(windows._streams([sounds], np.random.default_rng(1)))
    assert len(pairs) >= 2
    for early, window in pairs:
        assert early.shape == window.shape == (WINDOW_LENGTH,)
        np.testing.assert_array_equal(early[EARLY_SAMPLES:], window[:-EARLY_SAMPLES])


def test_versions_of_a_window_differ_and_keep_its_time() -> None:
    rng = np.random.default_rng(0)
    voice = np.zeros(WINDOW_LENGTH, np.float32)
    voice[60_000:64_000] = 0.1 * rng.standard_normal(4_000)
    versions = windows._versions(voice, [voice], np.random.default_rng(2)).astype(np.float32)
    assert versions.shape == (3, WINDOW_LENGTH // 160, BANDS)
    assert np.abs(versions[1] - versions[2]).max() > 0.1
    loudest = versions.mean(-1).argmax(-1)
    assert ((loudest > 370) & (loudest < 410)).all()


def test_teacher_features_are_centred_and_cut_eight_decades_down() -> None:
    time_s = np.arange(WINDOW_LENGTH) / 16_000
    tone: F32 = (0.1 * np.sin(2 * np.pi * 1000 * time_s)).astype(np.float32)
    tone[: WINDOW_LENGTH // 2] = 0
    features = whisper_features(tone)
    assert features.shape == (800, BANDS)
    assert features.max() - features.min() == pytest.approx(2.0)
    onset = int(np.argmax(features.max(1) > features.min() + 1))
    assert abs(onset - 400) <= 2
    np.testing.assert_allclose(features, whisper_features(100 * tone), atol=1e-4)


def test_silent_features_do_not_change() -> None:
    silence = features_of(np.zeros(6400, np.float32))
    assert (silence == silence[0, 0]).all()
    assert log_mel(np.zeros(6400, np.float32)).shape == (40, BANDS)


def test_held_out_people_and_reserved_clips_are_left_out(tmp_path: Path) -> None:
    names = ["video/talkers/may_5s_512.mp4", "video/grid_x/a.mpg", "video/portraits/p.mp4"]
    for name in (*names, "faults/w.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    entries = [{"file": names[2], "use": "tests and experiments only"}]
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    found = find_clips(tmp_path)
    assert [path.name for path, _ in found] == ["a.mpg", "may_5s_512.mp4"]
    assert [path.name for path, _ in seen_clips(tmp_path)] == ["a.mpg"]
