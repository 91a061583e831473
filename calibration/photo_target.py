"""A photo becomes a target: one mouth, an idle loop that keeps the head alive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lipstream.calibration import bundle
from lipstream.calibration.jumps import JumpGraph
from lipstream.calibration.options import CalibrationOptions
from lipstream.calibration.photo import FPS, PhotoFace, idle_frames, idle_track
from lipstream.calibration.seam import laid_on_the_seam
from lipstream.calibration.sources import cut_source
from lipstream.calibration.summary import Summary, skin_colour
from lipstream.engine.errors import CalibrationError
from lipstream.engine.face_model import face_model
from lipstream.engine.frames import FrameReader, FrameWriter
from lipstream.engine.mouth import mouth_of
from lipstream.engine.target import Style, Track
from lipstream.engine.types import I32, U8
from lipstream.engine.warp import build_mesh


def build_photo_target(photo: U8, face: PhotoFace, folder: Path) -> tuple[Track, I32, FrameReader]:
    """Write every part of a photo's bundle but report.html and target.json.

    photo u8 [h, w, 3], even-sized. Returns the idle track, the frames of its mouth sources and
    its footage.
    """
    model = face_model()
    height, width = photo.shape[:2]
    track, rest = idle_track(face, model)
    with FrameWriter(folder / "frames.mjpeg", width, height) as frames:
        for frame in idle_frames(photo, face, track, model):
            frames.append(frame)
    source = cut_source(photo, track.placement(0), build_mesh(model))
    mouth = mouth_of(model, track.geometry, skin_colour(photo, face.landmarks))
    bundle.write_track(folder, track, Style(rest, 1.0, np.zeros_like(rest), mouth), frames.offsets)
    chosen = np.zeros(1, np.int32)
    bundle.write_sources(folder, chosen, [source], None)
    # The loop closes: its end leads to its beginning at no cost, and nowhere else.
    targets = ((np.arange(len(track)) + 1) % len(track)).astype(np.int32)[:, None]
    bundle.write_jumps(folder, JumpGraph(targets, np.zeros(targets.shape, np.float32)))
    offsets = np.asarray(frames.offsets, np.int64)
    return track, chosen, FrameReader(folder / "frames.mjpeg", offsets, width, height)


def calibrate_photo(
    path: Path, folder: Path, name: str, options: CalibrationOptions
) -> dict[str, Any]:
    """All of a photo's bundle into `folder`; returns its figures."""
    from lipstream.calibration import assets
    from lipstream.calibration.landmarker import Landmarker
    from lipstream.calibration.tracker import alike
    from lipstream.calibration.video import read_photo

    photo = read_photo(path)
    photo = np.ascontiguousarray(photo[: photo.shape[0] & ~1, : photo.shape[1] & ~1])
    options.report("finding the face", 0.0)
    with Landmarker(assets.fetch()) as landmarker:
        faces = landmarker.faces(photo)
    if not faces:
        raise CalibrationError(f"{path}: no face was found; expected one face seen from the front")
    faces = sorted(faces, key=lambda face: face.box[2], reverse=True)
    if alike(faces[0], faces[1:]):
        raise CalibrationError(
            f"{path}: {len(faces)} faces of nearly one size; crop the photo to one person"
        )
    notes = [] if len(faces) == 1 else [f"{len(faces)} faces in the photo: the largest is taken"]
    landmarks = laid_on_the_seam(photo, faces[0].landmarks, face_model())
    face = PhotoFace(landmarks, faces[0].blendshapes)
    options.report("making it live", 0.2)
    track, chosen, reader = build_photo_target(photo, face, folder)
    summary = Summary(name, path, "photo", FPS, track, chosen, tuple(notes))
    summary.write_report(folder, reader)
    result = summary.figures()
    size = (photo.shape[1], photo.shape[0])
    bundle.write_info(folder, "photo", size, FPS, {**summary.provenance(options.consent), **result})
    return result
