"""The tracker on real footage, and its parts on exact synthetic footage."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lipstream.calibration.media.video import FootageFrame, open_footage
from lipstream.calibration.tracking.landmarker import Landmarker
from lipstream.calibration.tracking.raw_track import RawTrack, inter_ocular_px
from lipstream.calibration.tracking.rejection import reject_frames
from lipstream.calibration.tracking.tracker import track
from lipstream.engine.errors import AssetError, CalibrationError, MediaError
from tests.synthetic import SyntheticFootage, make_footage

DATA = Path(os.environ.get("LIPSTREAM_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))


def clip(name: str) -> Path:
    path = DATA / "video" / name
    if not path.is_file():
        pytest.skip(f"real clip not here: {path}")
    return path


class Made:
    """Frames made in a test, with the size that footage states."""

    def __init__(self, frames: list[np.ndarray], fps: Fraction = Fraction(25)) -> None:
        self._frames = frames
        self.height, self.width = frames[0].shape[:2]
        self.fps = fps

    def __iter__(self) -> Iterator[FootageFrame]:
        for index, rgb in enumerate(self._frames):
            i420 = np.zeros((self.height * 3 // 2, self.width), np.uint8)
            repeated = index > 0 and rgb is self._frames[index - 1]
            yield FootageFrame(index, rgb, i420, repeated)


def ignore(_: FootageFrame) -> None:
    pass


def test_a_real_clip_is_followed_in_every_frame(model: Path) -> None:
    seen: list[int] = []
    done: list[int] = []
    threads: set[str] = set()

    def sink(frame: FootageFrame) -> None:
        seen.append(frame.index)
        threads.add(threading.current_thread().name)

    with open_footage(clip("grid_s1/bbaf4p.mpg")) as footage:
        raw = track(footage, sink, model, done.append)
    assert raw.frames == 75 and raw.found.all()
    assert seen == list(range(75)) and done == list(range(1, 76))
    assert threads == {threading.current_thread().name}
    assert raw.landmarks.shape == (75, 478, 3) and raw.landmarks.dtype == np.float32
    assert raw.blendshapes.shape == (75, 52) and raw.transform.shape == (75, 4, 4)
    assert raw.cuts == () and raw.warnings == () and set(raw.face_count.tolist()) == {1}
    iod = inter_ocular_px(raw.landmarks)
    assert iod.min() > 40 and iod.max() < 52
    # "bin blue at f four please": the mouth opens and closes, by about a fifth of that distance.
    opening = np.linalg.norm(raw.landmarks[:, 13] - raw.landmarks[:, 14], axis=1) / iod
    assert opening.min() < 0.03 and 0.12 < opening.max() < 0.5
    assert np.isfinite(raw.sharpness).all() and raw.skin.any(axis=(1, 2)).all()


def test_the_same_footage_gives_the_same_track(model: Path) -> None:
    tracks = []
    for _ in range(2):
        with open_footage(clip("grid_s1/bbaf4p.mpg"), end_s=0.6) as footage:
            tracks.append(track(footage, ignore, model))
    assert np.array_equal(tracks[0].landmarks, tracks[1].landmarks)
    assert np.array_equal(tracks[0].skin, tracks[1].skin)


def test_a_cut_in_real_footage_is_found(model: Path) -> None:
    with open_footage(clip("talkers/latentsync_demo3.mp4"), 8.6, 9.6) as footage:
        raw = track(footage, ignore, model)
    assert raw.cuts == (13,)  # frame 271 of the whole: he sits, and then he gestures


def drawn(footage: SyntheticFootage, count: int) -> list[np.ndarray]:
    return [footage.frame(k) for k in range(count)]


def test_landmarks_are_near_the_truth_of_a_synthetic_head(model: Path) -> None:
    footage = make_footage(12, size=(320, 320), seed=4)
    raw = track(Made(drawn(footage, 12)), ignore, model)
    assert raw.found.all()
    iod = inter_ocular_px(raw.landmarks)
    # It is a drawing: the landmarker places it to a few hundredths, and follows it to less.
    error = raw.landmarks[:, :468, :2] - footage.exact[:, :, :2]
    assert np.linalg.norm(error, axis=2).mean() / iod.mean() < 0.06
    moved = np.diff(raw.landmarks[:, 168, :2], axis=0)
    true = np.diff(footage.exact[:, 168, :2], axis=0)
    assert np.abs(moved - true).max() / iod.mean() < 0.02


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two pictures in one, u8 [h, w, 3]; the lower is set into the middle of the higher."""
    height = max(left.shape[0], right.shape[0])
    out = np.full((height, left.shape[1] + right.shape[1], 3), 110, np.uint8)
    for image, x in ((left, 0), (right, left.shape[1])):
        top = (height - image.shape[0]) // 2
        out[top : top + image.shape[0], x : x + image.shape[1]] = image
    return out


def test_of_two_people_the_larger_is_followed_with_a_warning(model: Path) -> None:
    near = make_footage(6, size=(320, 320), seed=1)
    far = make_footage(6, size=(180, 180), seed=2)
    frames = [beside(far.frame(k), near.frame(k)) for k in range(6)]
    raw = track(Made(frames), ignore, model)
    assert raw.found.all()
    assert raw.face_count.max() == 2
    assert (raw.landmarks[:, 168, 0] > 180).all()
    assert len(raw.warnings) == 1
    assert "2 faces" in raw.warnings[0] and "nearly equal" not in raw.warnings[0]


def test_two_people_of_one_size_are_refused(model: Path) -> None:
    one, other = (make_footage(4, size=(300, 300), seed=s) for s in (1, 2))
    frames = [beside(one.frame(k), other.frame(k)) for k in range(4)]
    with pytest.raises(CalibrationError, match="2 faces of nearly one size.*crop"):
        track(Made(frames), ignore, model)


def test_a_lost_face_is_found_again_after_a_cut(model: Path) -> None:
    footage = make_footage(8, size=(320, 320), seed=1)
    here = drawn(footage, 8)
    wall = np.full_like(here[0], (70, 90, 60))
    away = [np.roll(f, 70, axis=1)[::-1][::-1] for f in here]
    raw = track(Made([*here, wall, wall, *away]), ignore, model)
    assert raw.found.tolist() == [True] * 8 + [False] * 2 + [True] * 8
    assert np.isnan(raw.landmarks[8]).all() and np.isnan(raw.sharpness[8])
    assert raw.cuts == (8, 10)


def test_a_repeated_frame_is_not_tracked_again(model: Path) -> None:
    frames = drawn(make_footage(3, size=(256, 256)), 3)
    raw = track(Made([frames[0], frames[0], frames[1], frames[2], frames[2]]), ignore, model)
    assert raw.repeated.tolist() == [False, True, False, False, True]
    assert np.array_equal(raw.landmarks[0], raw.landmarks[1])
    assert raw.difference[1] == 0.0


def test_no_face_in_any_frame_is_an_error(model: Path) -> None:
    with pytest.raises(CalibrationError, match="no face was found in any of 5 frames"):
        track(Made([np.full((120, 160, 3), 90, np.uint8)] * 5), ignore, model)


def test_errors_of_the_sink_and_of_the_footage_are_raised(model: Path) -> None:
    frames = drawn(make_footage(3, size=(128, 128)), 3)

    def full(_: FootageFrame) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        track(Made(frames * 5), full, model)

    class Damaged(Made):
        def __iter__(self) -> Iterator[FootageFrame]:
            yield from list(super().__iter__())[:2]
            raise MediaError("damaged")

    with pytest.raises(MediaError, match="damaged"):
        track(Damaged(frames), ignore, model)
    assert not [t for t in threading.enumerate() if t.name == "lipstream-tracker"]


def test_an_invalid_model_file_is_an_error(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "face_landmarker.task"
    path.write_bytes(b"not a model")
    with pytest.raises(AssetError, match=r"face_landmarker\.task"):
        Landmarker(path)


def test_mediapipe_is_quiet(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Landmarker(model) as landmarker:
        landmarker.faces(np.zeros((64, 64, 3), np.uint8))
    assert capfd.readouterr().err == ""


def as_track(landmarks: np.ndarray, **changes: object) -> RawTrack:
    """A track around landmarks f32 [T, 478, 3], for tests that need no pictures."""
    count = len(landmarks)
    values: dict[str, object] = {
        "landmarks": landmarks,
        "blendshapes": np.zeros((count, 52), np.float32),
        "transform": np.tile(np.eye(4, dtype=np.float32), (count, 1, 1)),
        "face_count": np.ones(count, np.int32),
        "cuts": (),
        "difference": np.zeros(count, np.float32),
        "sharpness": np.ones(count, np.float32),
        "skin": np.full((count, 267, 3), 128, np.uint8),
        "repeated": np.zeros(count, np.bool_),
        "width": 256,
        "height": 256,
        "fps": Fraction(25),
        "warnings": (),
    }
    return RawTrack(**{**values, **changes})  # type: ignore[arg-type]


def test_inter_ocular_distance_equals_the_truth() -> None:
    footage = make_footage(20)
    measured = inter_ocular_px(footage.landmarks)
    assert measured == pytest.approx(footage.pose.scale, rel=2e-3)


def portrait() -> np.ndarray:
    """A photo of one face, u8 [300, 300, 3], 41 px between the eyes."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[0:300, 74:374, :3])


@pytest.mark.parametrize("apart_px", [24.5, 40.0])
def test_a_small_face_in_a_large_picture_is_found_and_followed(
    model: Path, apart_px: float
) -> None:
    import cv2

    scale = apart_px / 41.46
    face = cv2.resize(portrait(), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    frames = []
    for k in range(3):
        frame = np.full((1080, 1920, 3), 110, np.uint8)
        frame[200 : 200 + face.shape[0], 1200 + k : 1200 + k + face.shape[1]] = face
        frames.append(frame)
    raw = track(Made(frames), ignore, model)
    assert raw.found.all() and set(raw.face_count.tolist()) == {1}
    assert inter_ocular_px(raw.landmarks) == pytest.approx(apart_px, rel=0.06)
    assert np.diff(raw.landmarks[:, 168, 0]) == pytest.approx(1.0, abs=0.4)


def test_a_cut_away_to_another_person_is_not_used(model: Path) -> None:
    path = DATA / "faults" / "w_cuts.mp4"
    if not path.is_file():
        pytest.skip(f"real clip not here: {path}")
    with open_footage(path, 0.6, 1.2) as footage:
        raw = track(footage, ignore, model)
    assert raw.others == ((10, 15),)
    assert raw.found.tolist() == [True] * 10 + [False] * 5
    assert raw.warnings == ("other person, not used: 0.4-0.6 s",)
    reasons = {r.frame: r.reason for r in reject_frames(raw)}
    assert {reasons[k] for k in range(10, 15)} == {"other_person"}
    with open_footage(path, 0.6, 1.2) as footage:
        raw = track(footage, ignore, model, person=2)
    assert raw.others == ((0, 10),)
