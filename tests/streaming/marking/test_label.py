"""The visible label: where it is, that it can be read, and that it is found again."""

from __future__ import annotations

import time

import numpy as np
import pytest

from lipstream.engine.errors import UsageError
from lipstream.streaming.marking.label import KINDS, label_layout, label_patch
from lipstream.streaming.marking.seen import find_label

SIZES = [(256, 256), (640, 360), (720, 1280), (1920, 1080), (500, 382)]


def grey(width: int, height: int, luma: int) -> np.ndarray:
    frame = np.full((height * 3 // 2, width), 128, np.uint8)
    frame[:height] = luma
    return frame


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("luma", [16, 60, 128, 235, 255])
def test_the_letters_stand_out_of_every_background(
    kind: str, width: int, height: int, luma: int
) -> None:
    frame = grey(width, height, luma)
    label_patch(kind, width, height).draw(frame)
    layout = label_layout(kind, width, height)
    rows, columns = layout.text.shape
    part = frame[layout.y : layout.y + rows, layout.x : layout.x + columns].astype(int)
    letters, ground = part[layout.text == 1], part[layout.text == 0]
    assert (letters == 235).all()
    # A letter of 235 on this ground: 4.5 to 1 is what WCAG 2.2 asks of text (1.4.3).
    # The median: round corners show the picture.
    ground_linear = ((np.median(ground) - 16) / 219) ** 2.2
    assert (1 + 0.05) / (ground_linear + 0.05) > 4.5
    assert np.median(ground) <= luma


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_rest_of_the_frame_stays(kind: str, width: int, height: int) -> None:
    random = np.random.default_rng(0).integers(16, 236, (height * 3 // 2, width), np.uint8)
    frame = random.copy()
    label_patch(kind, width, height).draw(frame)
    layout = label_layout(kind, width, height)
    rows, columns = layout.text.shape
    changed = np.argwhere(frame[:height] != random[:height])
    assert changed[:, 0].min() >= layout.y and changed[:, 0].max() < layout.y + rows
    assert changed[:, 1].min() >= layout.x and changed[:, 1].max() < layout.x + columns
    top, right = layout.y, width - layout.x - columns
    assert 0 <= top <= height // 20 and 0 <= right <= width // 20
    if kind == "corner":
        assert rows * columns < 0.012 * width * height + 300
    u, v = np.split(frame[height:].reshape(2, -1) != random[height:].reshape(2, -1), 2)
    assert u.any() and v.any()
    assert u.sum() <= rows * columns // 4 and v.sum() <= rows * columns // 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("luma", [20, 230])
def test_it_is_found_again(kind: str, width: int, height: int, luma: int) -> None:
    rng = np.random.default_rng(width)
    frame = grey(width, height, luma)
    assert find_label(frame[:height].astype(np.float32)) is None
    label_patch(kind, width, height).draw(frame)
    noisy = np.clip(frame[:height] + rng.normal(0, 8, (height, width)), 0, 255)
    assert find_label(noisy.astype(np.float32)) == kind


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.5, 2.0])
@pytest.mark.parametrize(("width", "height"), [(256, 256), (1280, 720)])
def test_it_is_found_after_rescaling(width: int, height: int, scale: float) -> None:
    from skimage.transform import resize

    frame = grey(width, height, 120)
    label_patch("corner", width, height).draw(frame)
    size = round(height * scale), round(width * scale)
    other = resize(frame[:height].astype(np.float32), size, order=1, anti_aliasing=True)
    assert find_label(other.astype(np.float32)) == "corner"


def test_tiny_and_odd_pictures_are_looked_at() -> None:
    rng = np.random.default_rng(1)
    for height, width in ((1, 1), (2, 3), (15, 15), (17, 31), (40, 33), (33, 400)):
        assert find_label(rng.uniform(0, 255, (height, width)).astype(np.float32)) is None
    for height, width in ((16, 16), (2, 2), (24, 16)):
        label_patch("corner", width, height).draw(grey(width, height, 80))
        label_patch("bar", width, height).draw(grey(width, height, 80))


def test_a_720p_frame_takes_a_tenth_of_a_millisecond() -> None:
    frame = grey(1280, 720, 128)
    for kind in KINDS:
        patch = label_patch(kind, 1280, 720)
        took_s = []
        for _ in range(50):
            began_s = time.thread_time()
            patch.draw(frame)
            took_s.append(time.thread_time() - began_s)
        assert min(took_s) < 1e-4


def test_an_unknown_kind() -> None:
    with pytest.raises(UsageError, match="--label sticker: expected off:REASON, corner or bar"):
        label_patch("sticker", 64, 64)
