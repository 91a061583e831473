"""The idle loop of a photo: closed, small head motion, blinks, lips at rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lipstream.calibration.photo.expression import PhotoFace, photo_expression
from lipstream.calibration.photo.idle_motion import idle_frames, idle_track
from lipstream.calibration.photo.motion import LOOP_FRAMES, Motion, idle_motion
from lipstream.engine.face.model import face_model
from lipstream.engine.target.bundle import load_target
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32
from lipstream.kernels.color import i420_to_rgb, rgb_to_i420
from tests.synthetic import make_footage

MODEL = face_model()


@pytest.fixture(scope="module")
def face() -> PhotoFace:
    footage = make_footage(3, seed=5)
    return PhotoFace(footage.landmarks[0], np.zeros(52, np.float32))


@pytest.fixture(scope="module")
def motion() -> Motion:
    return idle_motion(0)


@pytest.fixture(scope="module")
def idle(face: PhotoFace, motion: Motion) -> tuple[Track, F32]:
    return idle_track(face, motion, MODEL)


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


def test_the_first_frame_is_the_photo_and_the_last_leads_to_it(
    face: PhotoFace, motion: Motion
) -> None:
    near = [-4, -3, -2, -1, 0, 1, 2, 3]
    channels = (motion.turns, motion.shifts, motion.brows, motion.closed, motion.gaze)
    part = Motion(*(channel[near] for channel in channels), motion.conduct)
    track, _ = idle_track(face, part, MODEL)
    photo = make_footage(3, seed=5).frame(0)
    frames = [i420_to_rgb(f).astype(int) for f in idle_frames(photo, face, track, part, MODEL)]
    assert np.abs(frames[4] - i420_to_rgb(rgb_to_i420(photo))).mean() < 1.0
    steps = [np.abs(b - a).mean() for a, b in zip(frames, frames[1:], strict=False)]
    assert steps[3] <= 1.5 * max(steps[:3] + steps[4:]), "from the last frame to the first"


def test_the_demo_target_is_a_photo_of_the_package(target: Path, motion: Motion) -> None:
    loaded = load_target(target)
    assert loaded.kind == "photo"
    assert loaded.info["consent"].startswith("NASA portrait")
    assert loaded.conduct is not None
    assert (loaded.conduct.speaking == motion.conduct.speaking).all()
    decoder = loaded.frames.decoder()
    still, blink = decoder.read(0), decoder.read(int(motion.closed.argmax()))
    change = loaded.track.landmarks[int(motion.closed.argmax())] - loaded.track.landmarks[0]
    for upper, lower in [(159, 145), (386, 374)]:
        x = int(loaded.track.landmarks[0, upper, 0])
        top = int(loaded.track.landmarks[0, upper, 1]) + 1
        bottom = int(loaded.track.landmarks[0, lower, 1])
        right, down = (int(v) for v in change[upper, :2].round())
        before = still[top:bottom, x - 3 : x + 3].astype(float)
        after = blink[top + down : bottom + down, x + right - 3 : x + right + 3].astype(float)
        assert after.mean() > before.mean() + 15  # skin over a dark iris


def test_only_numbers_about_the_portrait_are_kept() -> None:
    import lipstream.calibration as package

    folder = Path(package.__file__).parent
    assert (folder / "demo_face.safetensors").stat().st_size < 10_000
    pictures = [p for p in folder.rglob("*") if p.suffix in (".png", ".jpg", ".webp")]
    assert pictures == []
