"""The mark is found after what happens to video, and not where there is none."""

import itertools

import numpy as np
import pytest

from lipstream.bench.measure import watermark_attacks as attacks
from lipstream.engine.errors import UsageError
from lipstream.engine.watermark.detect import detect, scales, search_scores
from lipstream.engine.watermark.embed import Watermark
from tests.engine.watermark.pictures import clip

SESSION, H, W, FRAMES = 0xDEADBEEF, 352, 480, 25
BY_NAME = {attack.name: attack for attack in attacks.ATTACKS}


@pytest.fixture(scope="module")
def unmarked():
    return [frame[:H] for frame in clip(H, W, FRAMES)]


@pytest.fixture(scope="module")
def marked():
    mark = Watermark(SESSION)
    return [mark.marked(frame)[:H] for frame in clip(H, W, FRAMES)]


@pytest.mark.parametrize(
    "name",
    [
        "none", "H.264, 800 kb/s", "VP8, 800 kb/s", "scaled by 0.73", "scaled by 1.5",
        "brightness +20 %", "contrast -20 %", "screen recording at 30 fps, H.264",
        "10 % crop, then VP8",
    ],
)  # fmt: skip
def test_the_mark_survives(marked, name):
    found = detect(BY_NAME[name](marked))
    assert found.session == SESSION and found.marked and found.p_value < 1e-12
    assert found.frames in (FRAMES, FRAMES * 6 // 5)
    assert found.scale == pytest.approx(1 / 0.9 if "crop" in name else 1, abs=0.01)


def test_a_still_is_enough(marked):
    assert detect(marked[:1]).session == SESSION


def test_half_of_the_length_is_enough(marked, unmarked):
    assert detect(marked[FRAMES // 2 :]).session == SESSION


def test_footage_without_a_mark_is_not_called_marked(unmarked):
    found = detect(unmarked)
    assert found.session is None and not found.marked and found.p_value > 1e-3


def test_an_id_is_told_from_another():
    for session in (0, 0xDEADBEEE, 2**32 - 1):
        mark = Watermark(session)
        frames = [mark.marked(frame)[:H] for frame in clip(H, W, 2)]
        assert detect(frames).session == session


def test_scores_without_a_mark_are_normal(unmarked):
    """Over 400000 places: the bound exp(-z^2 / 2) lies above what is measured."""
    mean = np.mean(unmarked, axis=0, dtype=np.float32)
    scores = np.array(list(itertools.islice(search_scores(mean), 0, None, 8)))
    assert len(scores) == len(scales()[::8]) and scores.size > 300_000
    assert abs(scores.mean()) < 0.05 and scores.std() == pytest.approx(1, abs=0.05)
    for z in (2, 3, 4):
        assert (scores > z).mean() < np.exp(-z * z / 2)


def test_a_fence_is_not_a_mark():
    y, x = np.mgrid[0:H, 0:W]
    bars = (126 + 90 * np.sign(np.sin(x * 2 * np.pi / 9)) * np.sign(np.sin(y / 3))).astype(np.uint8)
    scores = itertools.islice(search_scores(bars.astype(np.float32)), 0, None, 8)
    assert max(float(one.max()) for one in scores) < 5.5


def test_a_flat_picture_has_no_score():
    assert not next(search_scores(np.full((H, W), 16, np.float32))).any()


def test_what_is_no_video_is_refused(marked):
    with pytest.raises(UsageError, match="no frame"):
        detect([])
    with pytest.raises(UsageError, match="one size"):
        detect([marked[0], marked[0][:-2]])
    with pytest.raises(UsageError, match="at least 16 px"):
        detect([np.zeros((8, 8), np.uint8)])
