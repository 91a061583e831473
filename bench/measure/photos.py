"""A photo against the footage it was taken from: both speak the same sound, and lips are compared.

Of each clip one frame becomes a photo, the photo speaks the clip's own sound, and the painted
frames are tracked as the footage is. Head and face shape are the same person's, so lip vertices are
compared where they are on the face, with the pose removed and no other alignment than the A/V
offset of the clip.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.bench.measure.dark_lines import lines_of_open_mouths
from lipstream.engine.errors import UsageError
from lipstream.engine.face.mesh import LIPS
from lipstream.engine.types import F32, SAMPLE_RATE_HZ

Report = Callable[[str, float], None]
# Two portraits, of which one smiles; two who talk as in broadcasts; one who reads sentences.
CLIPS: Final = (
    "video/portraits/lp_d14.mp4",
    "video/portraits/lp_d10.mp4",
    "video/talkers/latentsync_demo3.mp4",
    "video/obama_oval_20s_450.mp4",
    "video/grid_s1/bbaf4p.mpg",
)
_LONGEST_S: Final = 12.0  # of a clip
_CLOSED: Final = 0.02  # inter-ocular distances
_NEAR_S: Final = 0.06
_CORNERS: Final = (61, 291)
_INNER: Final = (13, 14)


@dataclass(frozen=True, slots=True)
class LipMotion:
    """Tracked lips of a clip, pose removed, in inter-ocular distances."""

    vertices: F32  # f32 [frames, lip vertices, 2]
    opening: F32  # f32 [frames]
    width: F32  # f32 [frames]
    time_s: NDArray[np.float64]  # f64 [frames]
    lines: F32 | None = None  # f32 [frames with open mouth, 2], `dark_lines`

    def at(self, time_s: NDArray[np.float64]) -> LipMotion:
        """The lips at other times, linearly interpolated."""
        flat = self.vertices.reshape(len(self.vertices), -1)
        moved = np.stack([np.interp(time_s, self.time_s, c) for c in flat.T], -1)
        opening, width = (np.interp(time_s, self.time_s, v) for v in (self.opening, self.width))
        return LipMotion(
            moved.reshape(len(time_s), *self.vertices.shape[1:]).astype(np.float32),
            opening.astype(np.float32),
            width.astype(np.float32),
            time_s,
        )


def measure_photos(data: Path, report: Report | None = None) -> dict[str, Any]:
    """Figures of a photo of each of the people of `CLIPS` that lie below `data`.

    Raises: UsageError when none does; AssetError without the face landmarker.
    """
    report = (lambda what, share: None) if report is None else report
    paths = [data / name for name in CLIPS if (data / name).is_file()]
    if not paths:
        raise UsageError(f"{data} holds none of {', '.join(CLIPS)}")
    people = {}
    for index, path in enumerate(paths):
        report(f"a photo of {path.stem} speaks", index / len(paths))
        with tempfile.TemporaryDirectory() as folder:
            people[path.stem] = photo_figures(path, Path(folder))
    names = next(iter(people.values()))
    mean = {key: float(np.mean([figures[key] for figures in people.values()])) for key in names}
    return {"people": people, "mean": mean}


def photo_figures(path: Path, folder: Path) -> dict[str, float]:
    """Figures of one clip; a photo, its target and its video are written into `folder`."""
    from lipstream.calibration.build import calibrate
    from lipstream.calibration.media.audio import read_sound
    from lipstream.calibration.options import CalibrationOptions
    from lipstream.streaming.files.dub import dub

    sound = read_sound(path)
    if sound is None:
        raise UsageError(f"{path} has no sound")
    real, photo = tracked_lips(path, folder / "photo.png")
    _write_wav(folder / "voice.wav", sound[: int(_LONGEST_S * SAMPLE_RATE_HZ)])
    calibrate(photo, folder / "photo.target", CalibrationOptions(consent="measurement"))
    dub(folder / "photo.target", folder / "voice.wav", folder / "photo.mp4")
    painted, _ = tracked_lips(folder / "photo.mp4", None)
    return compare(real, painted) | line_figures(real, painted)


def tracked_lips(path: Path, photo: Path | None) -> tuple[LipMotion, Path]:
    """The lips of a clip's first `_LONGEST_S`; its first usable frame is written to `photo`."""
    from PIL import Image

    from lipstream.calibration import assets
    from lipstream.calibration.fitting.factorise import factorise
    from lipstream.calibration.media.video import open_footage
    from lipstream.calibration.tracking.rejection import reject_frames, usable
    from lipstream.calibration.tracking.tracker import track
    from lipstream.engine.face.model import face_model

    with open_footage(path) as footage:
        fps = footage.fps
        raw = track(footage, lambda _: None, assets.fetch())
    good = usable(raw, reject_frames(raw))
    fitted = factorise(raw.landmarks, raw.cuts, good, raw.found, fps, face_model())
    if photo is not None:
        first = int(np.flatnonzero(good)[0])
        with open_footage(path) as footage:
            frame = next(frame for frame in footage if frame.index == first)
        Image.fromarray(frame.rgb).save(photo)
    count = min(len(fitted), int(_LONGEST_S * float(fps)))
    motion = lip_motion(fitted.pose.remove(fitted.landmarks)[:count], fps)
    lines = lines_of_open_mouths(path, fitted.landmarks[:count], motion.opening)
    return replace(motion, lines=lines), photo or path


def lip_motion(vertices: F32, fps: Fraction) -> LipMotion:
    """Of canonical vertices f32 [frames, 468, 3]."""
    left, right = (vertices[:, k, :2] for k in _CORNERS)
    upper, lower = (vertices[:, k, 1] for k in _INNER)
    return LipMotion(
        np.ascontiguousarray(vertices[:, np.unique(LIPS), :2]),
        lower - upper,
        np.linalg.norm(right - left, axis=1).astype(np.float32),
        np.arange(len(vertices)) / float(fps),
    )


def compare(real: LipMotion, painted: LipMotion) -> dict[str, float]:
    """Figures of painted lips against real ones of the same sound, at the best A/V offset.

    distance: mean distance of lip vertices. closure: 90th percentile of the painted opening, least
    within 60 ms, where the real lips meet. width: 5th percentile of the painted width over that of
    the real one. speed: 99th percentile of the painted lips' motion a frame over the real one's.
    motion: the former, inter-ocular distances a second.
    """
    offsets = np.arange(-0.1, 0.31, 0.02)
    found = [_aligned(real, painted, float(offset)) for offset in offsets]
    best = int(np.argmax([_correlation(a.opening, b.opening) for a, b in found]))
    own, ours = found[best]
    distance = np.linalg.norm(own.vertices - ours.vertices, axis=-1).mean()
    met = np.flatnonzero(own.opening < _CLOSED)
    near = round(_NEAR_S / float(np.median(np.diff(own.time_s))))
    closures = [ours.opening[max(0, k - near) : k + near + 1].min() for k in met]
    return {
        "distance": float(distance),
        "correlation": _correlation(own.opening, ours.opening),
        "closure": float(np.percentile(closures, 90)) if closures else 0.0,
        "width": float(np.percentile(ours.width, 5) / np.percentile(own.width, 5)),
        "speed": _speed(ours) / _speed(own),
        "motion": _speed(ours),
    }


def line_figures(real: LipMotion, painted: LipMotion) -> dict[str, float]:
    """99th percentiles of `dark_lines` over the open mouths of both; 0 where none is open."""
    figures = {}
    for name, motion in (("", painted), ("own ", real)):
        for index, line in enumerate(("column", "edge")):
            found = np.zeros(1) if motion.lines is None else motion.lines[:, index]
            figures[name + line] = float(np.percentile(found, 99)) if len(found) else 0.0
    return figures


def _aligned(real: LipMotion, painted: LipMotion, offset_s: float) -> tuple[LipMotion, LipMotion]:
    """Both at the frames of the real clip that the painted one covers."""
    inside = (real.time_s + offset_s >= 0) & (real.time_s + offset_s <= painted.time_s[-1])
    time_s = real.time_s[inside]
    return real.at(time_s), painted.at(time_s + offset_s)


def _correlation(a: F32, b: F32) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def _speed(lips: LipMotion) -> float:
    moved = np.linalg.norm(np.diff(lips.vertices, axis=0), axis=-1).max(-1)
    return float(np.percentile(moved / np.diff(lips.time_s), 99))


def _write_wav(path: Path, samples: F32) -> None:
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def photos_summary(figures: dict[str, Any]) -> str:
    """A table of the figures, a person a line."""
    rows: Sequence[tuple[str, dict[str, float]]] = [
        *figures["people"].items(),
        ("mean", figures["mean"]),
    ]
    lines = ["photo                  distance  r(opening)  closure  width p5  speed  motion"]
    lines += [
        f"{name:22} {f['distance']:8.3f} {f['correlation']:10.2f} {f['closure']:9.3f}"
        f" {f['width']:9.2f} {f['speed']:6.2f} {f['motion']:7.2f}"
        for name, f in rows
    ]
    lines.append("dark lines (painted, own)   column            edge")
    lines += [
        f"{name:22} {f['column']:11.3f} {f['own column']:6.3f}"
        f" {f['edge']:10.3f} {f['own edge']:6.3f}"
        for name, f in rows
    ]
    return "\n".join(lines)
