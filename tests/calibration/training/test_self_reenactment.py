"""Training pairs: the truth is a frame of the footage, the input has the lips of another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lipstream.calibration.person.leave_one_out import LeaveOneOutPredictor
from lipstream.calibration.training.renderer.self_reenactment import Person, Variation, as_crops
from lipstream.engine.face.model import face_model
from lipstream.engine.networks.signatures import CROP_SHAPE
from lipstream.engine.rendering.mouth_crop import MouthCrop
from lipstream.engine.target.appearance import TEXTURE_SHAPE, AppearancePrior
from lipstream.engine.target.bundle import Target, load_target
from lipstream.kernels.color import i420_to_rgb
from lipstream.kernels.mesh import remap


@pytest.fixture(scope="module")
def loaded(target: Path) -> Target:
    return load_target(target)


def test_the_truth_is_a_frame_of_the_footage(loaded: Target) -> None:
    example = Person("one", [loaded], varied=False).example(np.random.default_rng(3))
    assert example.seen.shape == (2, *CROP_SHAPE, 9)
    decoder, nearest = loaded.frames.decoder(), np.inf
    for index in range(len(loaded.track)):
        rgb = i420_to_rgb(decoder.read(index))
        crop = MouthCrop.around(loaded.track.placement(index), face_model())
        resampled = remap(rgb, crop.inward())
        nearest = min(nearest, float(np.abs(resampled.astype(int) - example.truth[1]).mean()))
        if nearest < 0.1:
            break
    assert nearest < 0.1, "levels: the truth is one of the frames, resampled once"


def test_outside_the_lips_the_input_is_the_truth(loaded: Target) -> None:
    example = Person("one", [loaded], varied=False).example(np.random.default_rng(3))
    difference = np.abs(example.seen[..., :3].astype(int) - example.truth).max(-1)
    opaque = example.seen[..., 3] == 255
    # The jaw moves below the mouth, so only what lies beside and above the upper lip is compared.
    upper = example.seen[..., 3] == 0
    upper[:, CROP_SHAPE[0] // 4 :] = False
    assert upper.sum() > 1000
    assert difference[upper].max() <= 1
    assert difference[opaque].mean() > 1, "the lips come from another frame"


def test_the_prior_is_part_of_the_input_but_for_some_examples(
    loaded: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, predictions = Person("one", [loaded], varied=False), list[None]()
    blue = AppearancePrior(np.full((*TEXTURE_SHAPE, 3), (20, 40, 200), np.uint8), 1.0)
    monkeypatch.setattr(
        LeaveOneOutPredictor, "picture", lambda self, *_: predictions.append(None) or blue
    )
    without = 0
    for seed in range(24):
        seen = person.example(np.random.default_rng(seed)).seen
        differs = (seen[..., 6:] != seen[..., :3]).any(-1)
        assert not differs[seen[..., 3] == 0].any(), "outside the lips both are one picture"
        without += not differs.any()
    assert 0 < without < 12
    assert len(predictions) == 2 * (24 - without)


def test_only_frames_of_the_span_are_used(loaded: Target) -> None:
    assert Person("one", [loaded], (10, 31)).pairs == 20
    assert Person("one", [loaded], (10, 11)).pairs == 0


def test_one_seed_one_example(loaded: Target) -> None:
    person = Person("one", [loaded])
    one, other, third = (person.example(np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.seen, other.seen)
    assert (one.truth != third.truth).any()


def test_skin_and_light_vary_and_conditioning_maps_do_not(loaded: Target) -> None:
    rng = np.random.default_rng(1)
    gains = np.array([Variation.draw(rng).gain for _ in range(400)])
    assert 0.05 < np.log(gains).std() < 0.3
    plain = Person("one", [loaded], varied=False).example(np.random.default_rng(2))
    assert set(np.unique(plain.seen[..., 3])) >= {0, 255}


def test_a_batch_is_channels_first(loaded: Target) -> None:
    person = Person("one", [loaded])
    examples = [person.example(np.random.default_rng(seed)) for seed in range(3)]
    seen, truth = as_crops(examples)
    assert seen.shape == (3, 2, 9, *CROP_SHAPE)
    np.testing.assert_array_equal(truth[2, 1, 0], examples[2].truth[1, ..., 0])
