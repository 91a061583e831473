"""The demo: a public-domain portrait, and synthetic speech that introduces itself.

The portrait is NASA's of Eileen Collins (public domain), as scikit-image carries it; this package
keeps only numbers about it, its tracked landmarks (`demo_face.safetensors`, made by `python -m
lipstream.calibration.demo`), never its pixels.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np

from lipstream.calibration import bundle_writer
from lipstream.calibration.photo.expression import PhotoFace
from lipstream.calibration.photo.motion import FPS, Motion, idle_motion
from lipstream.calibration.photo.target import build_photo_target
from lipstream.calibration.report.data import Summary
from lipstream.engine.types import U8

_CROP = (slice(0, 300), slice(74, 374))  # head and shoulders
_SIDE_PX = 512
_SEED = 0
_SPEECH = "demo_speech.ogg"
_SOURCE = "skimage.data.astronaut()"


def build_demo_target(folder: Path, motion: Motion | None = None) -> Path:
    """Build the demo's bundle in `folder`; returns its path. Needs no landmarker.

    motion: of the head and the eyes; None: as `calibrate` gives a photo.
    """
    from safetensors.numpy import load

    photo = _portrait()
    numbers = load(files("lipstream.calibration").joinpath("demo_face.safetensors").read_bytes())
    face = PhotoFace(numbers["landmarks"], numbers["blendshapes"])
    output = folder / "demo.target"
    with bundle_writer.bundle_folder(output) as made:
        track, chosen, reader = build_photo_target(photo, face, made, motion or idle_motion(_SEED))
        summary = Summary("demo.target", Path(_SOURCE), "photo", FPS, track, chosen)
        figures = summary.write_report(made, reader)
        info = {
            "provenance": {"source": {"file": _SOURCE}, "maker": "lipstream"},
            "consent": "NASA portrait of Eileen Collins; in the public domain; this demonstration",
            **figures,
        }
        bundle_writer.write_info(made, "photo", (_SIDE_PX, _SIDE_PX), FPS, info)
    return output


def demo_speech(folder: Path) -> Path:
    """Copy the demo's speech into `folder`; returns its path."""
    path = folder / _SPEECH
    path.write_bytes(files("lipstream.calibration").joinpath(_SPEECH).read_bytes())
    return path


def _portrait() -> U8:
    """The portrait, u8 [512, 512, 3]."""
    from skimage import data
    from skimage.transform import resize

    crop = data.astronaut()[..., :3][_CROP]
    large = resize(crop, (_SIDE_PX, _SIDE_PX), order=3, preserve_range=True)
    return np.clip(large + 0.5, 0, 255).astype(np.uint8)


def _track_portrait() -> None:
    """Track the portrait and write demo_face.safetensors beside this file."""
    from safetensors.numpy import save_file

    from lipstream.calibration import assets
    from lipstream.calibration.tracking.landmarker import Landmarker

    with Landmarker(assets.fetch()) as landmarker:
        face = landmarker.faces(_portrait())[0]
    numbers = {"landmarks": face.landmarks, "blendshapes": face.blendshapes}
    save_file(numbers, Path(__file__).with_name("demo_face.safetensors"))


if __name__ == "__main__":
    _track_portrait()
