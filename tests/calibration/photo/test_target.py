"""The idle loop of a photo: closed, small head motion, blinks, lips at rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lipstream.calibration.photo.expression import PhotoFace, photo_expression
from lipstream.calibration.photo.idle_motion import LOOP_FRAMES, idle_frames, idle_track
from lipstream.engine.face.model import face_model
from lipstream.engine.target.bundle import load_target
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32
from tests.synthetic import make_footage

MODEL = face_model()


@pytest.fixture(scope="module")
def face() -> PhotoFace:
    footage = make_footage(3, seed=5)
    return PhotoFace(footage.landmarks[0], np.zeros(52, np.float32))


@pytest.fixture(scope="module")
def idle(face: PhotoFace) -> tuple[Track, F32]:
    return idle_track(face, MODEL)


def test_the_lips_rest_closed(face: PhotoFace) -> None:
    seen, rest = photo_expression(face, MODEL)
    opening = MODEL.lip_rows()[0]
    assert float(opening @ rest) == pytest.approx(0.0, abs=1e-4)
    landmarks = face.landmarks
    iod = np.linalg.norm(landmarks[[33, 133]].mean(0) - landmarks[[362, 263]].mean(0))
    gap = np.linalg.norm(landmarks[14] - landmarks[13]) / iod
    assert float(opening @ seen) == pytest.approx(float(gap), abs=0.03)


def test_the_loop_closes(idle: tuple[Track, F32]) -> None:
    track, _ = idle
    step = np.abs(np.diff(track.landmarks, axis=0)).max((1, 2))
    seam = np.abs(track.landmarks[0] - track.landmarks[-1]).max()
    assert seam <= step.max() * 1.1


def test_motion_is_small_but_there(idle: tuple[Track, F32]) -> None:
    track, _ = idle
    swing = np.ptp(track.pose.angles_deg(), axis=0)
    assert (swing > 0.5).all()
    assert (swing < 8).all()
    assert len(track) == LOOP_FRAMES


def test_the_first_frame_is_the_photo(face: PhotoFace, idle: tuple[Track, F32]) -> None:
    from lipstream.kernels.color import i420_to_rgb, rgb_to_i420

    track, _ = idle
    photo = make_footage(3, seed=5).frame(0)
    first = next(iter(idle_frames(photo, face, track, MODEL)))
    difference = np.abs(i420_to_rgb(first).astype(int) - i420_to_rgb(rgb_to_i420(photo)))
    assert difference.mean() < 1.0


def test_the_demo_target_is_a_photo_of_the_package(target: Path) -> None:
    loaded = load_target(target)
    assert loaded.kind == "photo"
    assert loaded.info["consent"].startswith("NASA portrait")
    eyes = [(159, 145), (386, 374)]
    decoder = loaded.frames.decoder()
    still, blink = decoder.read(0), decoder.read(43)
    for upper, lower in eyes:
        x = int(loaded.track.landmarks[0, upper, 0])
        top = int(loaded.track.landmarks[0, upper, 1]) + 1
        bottom = int(loaded.track.landmarks[0, lower, 1])
        before = still[top:bottom, x - 3 : x + 3].astype(float)
        after = blink[top:bottom, x - 3 : x + 3].astype(float)
        assert after.mean() > before.mean() + 15  # skin over a dark iris


def test_only_numbers_about_the_portrait_are_kept() -> None:
    import lipstream.calibration as package

    folder = Path(package.__file__).parent
    assert (folder / "demo_face.safetensors").stat().st_size < 10_000
    pictures = [p for p in folder.rglob("*") if p.suffix in (".png", ".jpg", ".webp")]
    assert pictures == []
