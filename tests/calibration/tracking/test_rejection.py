"""Each reason for rejection is found in the frames that have it, and in no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lipstream.calibration.media.video import FootageFrame, open_footage
from lipstream.calibration.tracking.frame_metrics import measure_face, skin_points
from lipstream.calibration.tracking.raw_track import RawTrack, inter_ocular_px
from lipstream.calibration.tracking.rejection import (
    Rejection,
    occluded,
    reject_frames,
    usable,
    yaw_degrees,
)
from lipstream.calibration.tracking.tracker import track
from tests.calibration.tracking.test_tracker import as_track, clip, ignore
from tests.synthetic import SyntheticFootage, make_footage, rotations

FRAMES = 52


@pytest.fixture(scope="module")
def footage() -> SyntheticFootage:
    return make_footage(FRAMES, size=(160, 160), seed=3)


def measured(
    footage: SyntheticFootage, change: Callable[[int, np.ndarray], np.ndarray] | None = None
) -> RawTrack:
    """The raw track whose landmarks are the truth."""
    skin, sharpness = [], []
    for k in range(len(footage)):
        rgb = footage.frame(k)
        measures = measure_face(change(k, rgb) if change else rgb, footage.landmarks[k])
        skin.append(measures.skin)
        sharpness.append(measures.sharpness)
    transform = np.tile(np.eye(4, dtype=np.float32), (len(footage), 1, 1))
    transform[:, :3, :3] = footage.pose.rotation
    return as_track(
        footage.landmarks,
        skin=np.stack(skin),
        sharpness=np.asarray(sharpness, np.float32) / np.float32(np.median(sharpness)),
        transform=transform,
        width=footage.width,
        height=footage.height,
    )


@pytest.fixture(scope="module")
def clean(footage: SyntheticFootage) -> RawTrack:
    return measured(footage)


def frames_of(rejected: list[Rejection], reason: str) -> list[int]:
    return [r.frame for r in rejected if r.reason == reason]


def replaced(raw: RawTrack, **changes: object) -> RawTrack:
    fields = {name: getattr(raw, name) for name in RawTrack.__slots__}
    return RawTrack(**{**fields, **changes})


def test_good_frames_are_kept(clean: RawTrack) -> None:
    rejected = reject_frames(clean)
    assert rejected == []
    assert usable(clean, rejected).all()


def test_no_face(clean: RawTrack) -> None:
    landmarks = clean.landmarks.copy()
    landmarks[[4, 5, 40]] = np.nan
    rejected = reject_frames(replaced(clean, landmarks=landmarks))
    assert [(r.frame, r.reason) for r in rejected] == [(k, "no_face") for k in (4, 5, 40)]
    assert np.flatnonzero(~usable(clean, rejected)).tolist() == [4, 5, 40]


def test_small_face(clean: RawTrack) -> None:
    scale = 23.0 / float(inter_ocular_px(clean.landmarks)[7])
    landmarks = clean.landmarks.copy()
    landmarks[7] = (landmarks[7] - 80) * scale + 80
    landmarks[8] = (landmarks[8] - 80) * scale * 1.1 + 80
    assert reject_frames(replaced(clean, landmarks=landmarks)) == [Rejection(7, "small_face")]


def test_profile(clean: RawTrack) -> None:
    transform = clean.transform.copy()
    turns = np.array([[36.0, 10, 0], [-36.0, 0, 5], [34.0, -5, 0]])
    transform[10:13, :3, :3] = rotations(turns)
    assert yaw_degrees(transform)[10:13] == pytest.approx([36, -36, 34], abs=0.01)
    assert reject_frames(replaced(clean, transform=transform)) == [
        Rejection(10, "profile"),
        Rejection(11, "profile"),
    ]


def test_outside(clean: RawTrack) -> None:
    landmarks = clean.landmarks.copy()
    landmarks[20, :, 1] += 160 - landmarks[20, 152, 1]  # the chin leaves below
    landmarks[21, :, 1] -= landmarks[21, 10, 1] + 5  # the crown may leave above
    landmarks[22, :, 0] -= landmarks[22, 234, 0] + 3  # one cheek may, not both
    assert reject_frames(replaced(clean, landmarks=landmarks)) == [Rejection(20, "outside")]


def test_frames_beside_a_cut(clean: RawTrack) -> None:
    rejected = reject_frames(replaced(clean, cuts=(30,)))
    assert rejected == [Rejection(29, "cut"), Rejection(30, "cut")]


def covered(footage: SyntheticFootage, colour: tuple[int, int, int]) -> Callable[..., np.ndarray]:
    """A hand of this colour over the mouth from frame 24 to 35."""

    def change(k: int, rgb: np.ndarray) -> np.ndarray:
        if not 24 <= k < 36:
            return rgb
        x, y = footage.exact[k, 13, :2]
        iod = footage.pose.scale[k]
        out = rgb.astype(np.float32)
        rows, columns = np.mgrid[: rgb.shape[0], : rgb.shape[1]]
        for finger in range(4):
            off = (rows - (y + (finger - 1.4) * 0.24 * iod)) / (0.13 * iod)
            inside = (np.abs(off) < 1) & (np.abs(columns - x) < 0.6 * iod)
            round_ = 0.7 + 0.35 * np.sqrt(np.clip(1 - off**2, 0, 1))
            out[inside] = (np.array(colour) * round_[..., None])[inside]
        return np.clip(out, 0, 255).astype(np.uint8)

    return change


@pytest.mark.parametrize("colour", [(178, 134, 110), (120, 84, 66), (60, 60, 64), (240, 240, 240)])
def test_a_covered_mouth(footage: SyntheticFootage, colour: tuple[int, int, int]) -> None:
    """A hand a little darker than the face, a dark one, a microphone, paper."""
    rejected = reject_frames(measured(footage, covered(footage, colour)))
    flagged = frames_of(rejected, "occlusion")
    assert set(range(24, 36)) <= set(flagged)
    # Two frames to each side are taken along, and no others.
    assert set(flagged) <= set(range(22, 38))
    assert {r.reason for r in rejected} == {"occlusion"}


def test_a_change_of_light_is_no_occlusion(footage: SyntheticFootage) -> None:
    def dimmer(k: int, rgb: np.ndarray) -> np.ndarray:
        return (rgb * (0.8 if k >= 30 else 1.0)).astype(np.uint8)

    assert reject_frames(measured(footage, dimmer)) == []


def test_two_equally_frequent_appearances_are_both_usual(clean: RawTrack) -> None:
    skin = clean.skin.copy()
    skin[30:, ::2] = 255 - skin[30:, ::2]
    assert not occluded(skin, np.ones(len(skin), np.bool_)).any()


def test_a_second_is_too_short_for_a_usual_appearance() -> None:
    skin = np.random.default_rng(1).integers(0, 255, (20, 267, 3)).astype(np.uint8)
    assert not occluded(skin, np.ones(20, np.bool_)).any()


def smeared(rgb: np.ndarray, length: int) -> np.ndarray:
    """Blurred along both axes."""
    image = rgb.astype(np.float32)
    for axis in (0, 1):
        image = np.mean([np.roll(image, k - length // 2, axis=axis) for k in range(length)], axis=0)
    return image.astype(np.uint8)


def test_a_blurred_mouth(footage: SyntheticFootage) -> None:
    length = int(0.16 * footage.pose.scale.mean())
    raw = measured(footage, lambda k, rgb: smeared(rgb, length) if k in (12, 13, 50) else rgb)
    assert frames_of(reject_frames(raw), "blur") == [12, 13, 50]


def test_each_frame_has_the_first_reason_that_applies(clean: RawTrack) -> None:
    landmarks = clean.landmarks.copy()
    landmarks[29] = np.nan
    rejected = reject_frames(replaced(clean, landmarks=landmarks, cuts=(30,)))
    assert rejected == [Rejection(29, "no_face"), Rejection(30, "cut")]


def test_skin_is_compared_below_the_nose_and_outside_the_mouth() -> None:
    vertices, places = skin_points()
    assert len(vertices) == len(places) > 150
    assert places[:, 1].min() > 0.7
    inner = {13, 14, 78, 308}
    assert not any(set(v) <= inner for v in vertices.tolist())


class Painted:
    """Real footage with something over the mouth in some frames."""

    def __init__(self, path: Path, landmarks: np.ndarray, kind: str) -> None:
        with open_footage(path) as real:
            self.width, self.height, self.fps = real.width, real.height, Fraction(real.fps)
        self._path, self._landmarks, self._kind = path, landmarks, kind

    def __iter__(self) -> Iterator[FootageFrame]:
        with open_footage(self._path, end_s=len(self._landmarks) / float(self.fps)) as real:
            for frame in real:
                rgb = frame.rgb
                if 20 <= frame.index < 32:
                    rgb = paint_over(rgb, self._landmarks[frame.index], self._kind)
                yield FootageFrame(frame.index, rgb, frame.i420, False)


def paint_over(rgb: np.ndarray, landmarks: np.ndarray, kind: str) -> np.ndarray:
    """Four fingers of the forehead's colour, or the head of a microphone."""
    iod = float(inter_ocular_px(landmarks[None])[0])
    x, y = landmarks[[13, 14], :2].mean(axis=0)
    rows, columns = np.mgrid[: rgb.shape[0], : rgb.shape[1]].astype(np.float32)
    out = rgb.astype(np.float32)
    if kind == "microphone":
        ball = np.hypot(columns - x, rows - y - 0.15 * iod) < 0.42 * iod
        out[ball] = 55 + 25 * (np.sin(columns * 25 / iod) * np.sin(rows * 25 / iod) > 0)[ball, None]
        return out.astype(np.uint8)
    forehead = landmarks[[151, 9, 8], :2].astype(int)
    colour = np.median(rgb[forehead[:, 1], forehead[:, 0]], axis=0) * 0.92
    for finger in range(4):
        off = (rows - y - (finger - 1.2) * 0.24 * iod - 0.12 * (columns - x)) / (0.135 * iod)
        inside = (np.abs(off) < 1) & (np.abs(columns - x) < 0.62 * iod)
        out[inside] = (colour * (0.78 + 0.27 * np.sqrt(np.clip(1 - off**2, 0, 1)))[..., None])[
            inside
        ]
    return np.clip(out, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["hand", "microphone"])
def test_a_real_mouth_covered(model: Path, kind: str) -> None:
    path = clip("talkers/may_5s_512.mp4")
    with open_footage(path, end_s=3.0) as footage:
        plain = track(footage, ignore, model)
    assert reject_frames(plain) == []
    raw = track(Painted(path, plain.landmarks, kind), ignore, model)
    flagged = {r.frame for r in reject_frames(raw)}
    assert set(range(20, 32)) <= flagged <= set(range(18, 34))


@pytest.mark.parametrize(
    "name", ["grid_s1/lbid2n.mpg", "talkers/vretalk_5.mp4", "obama_past_few_years.mp4"]
)
def test_good_real_footage_is_kept(model: Path, name: str) -> None:
    with open_footage(clip(name)) as footage:
        raw = track(footage, ignore, model)
    assert len(reject_frames(raw)) <= 0.02 * raw.frames
