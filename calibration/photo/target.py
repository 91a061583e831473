"""A target from a photo: one mouth source, and a loop of idle head motion as its footage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lipstream.calibration import bundle_writer
from lipstream.calibration.fitting.lip_contact import snap_to_lip_contact
from lipstream.calibration.fitting.lip_edges import snap_to_lip_edges
from lipstream.calibration.footage.sources import cut_source
from lipstream.calibration.options import CalibrationOptions
from lipstream.calibration.photo.checks import find_mirrored, photo_faults
from lipstream.calibration.photo.expression import PhotoFace
from lipstream.calibration.photo.idle_motion import idle_frames, idle_track
from lipstream.calibration.photo.loop_jumps import loop_jumps
from lipstream.calibration.photo.motion import FPS, Motion, idle_motion, still_motion
from lipstream.calibration.report.data import Summary
from lipstream.calibration.tracking.frame_metrics import cheek_color
from lipstream.engine.errors import CalibrationError, UsageError
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import face_model
from lipstream.engine.target.frames import FrameReader
from lipstream.engine.target.oral_cavity import mouth_of
from lipstream.engine.target.style import Style
from lipstream.engine.target.track import Track
from lipstream.engine.types import I32, U8


def build_photo_target(
    photo: U8, face: PhotoFace, folder: Path, motion: Motion
) -> tuple[Track, I32, FrameReader]:
    """Write a photo's bundle, except report.html and target.json.

    photo: u8 [h, w, 3], even sides. Returns the idle track, the frames of its mouth sources
    i32 [S], and its footage.
    """
    model = face_model()
    face = replace(face, landmarks=snap_to_lip_edges(photo, face.landmarks, model))
    height, width = photo.shape[:2]
    track, rest = idle_track(face, motion, model)
    with bundle_writer.FrameFile(folder, width, height) as frames:
        for frame in idle_frames(photo, face, track, motion, model):
            frames.append(frame)
    source = cut_source(photo, track.placement(0), build_mesh(model))
    mouth = mouth_of(model, track.geometry, cheek_color(photo, face.landmarks))
    bundle_writer.write_track(
        folder, track, Style(rest, 1.0, np.zeros_like(rest), mouth), frames.offsets
    )
    chosen = np.zeros(1, np.int32)
    bundle_writer.write_sources(folder, chosen, [source], None)
    bundle_writer.write_jumps(folder, loop_jumps(track, motion), motion.conduct)
    return track, chosen, frames.reader()


def calibrate_photo(
    path: Path, folder: Path, name: str, options: CalibrationOptions
) -> dict[str, Any]:
    """Write a photo's bundle into `folder`; returns its figures.

    Raises:
        MediaError: not a photo, or it cannot be read.
        CalibrationError: no face, several of one size, or eyes or mouth beyond the border.
        UsageError: a choice among people, which only footage has.
    """
    from lipstream.calibration import assets
    from lipstream.calibration.media.video import read_photo
    from lipstream.calibration.tracking.follower import is_ambiguous
    from lipstream.calibration.tracking.landmarker import Landmarker
    from lipstream.calibration.tracking.small_faces import SmallFaces

    if options.person is not None:
        raise UsageError("--person chooses among the people in a video; crop the photo to one")
    photo = read_photo(path)
    photo = np.ascontiguousarray(photo[: photo.shape[0] & ~1, : photo.shape[1] & ~1])
    options.report("tracking the face", 0.0)
    model = assets.fetch(report=options.report)
    small = SmallFaces(model)
    with Landmarker(model) as landmarker:
        faces = landmarker.faces(photo) or small.find(photo, landmarker)
        mirrored = find_mirrored(photo, landmarker) if len(faces) == 1 else None
    small.close()
    if not faces:
        raise CalibrationError(f"{path}: no face was found; expected one face seen from the front")
    faces = sorted(faces, key=lambda face: face.box[2], reverse=True)
    if is_ambiguous(faces[0], faces[1:]):
        raise CalibrationError(
            f"{path}: {len(faces)} faces of nearly one size; crop the photo to one person"
        )
    notes = [] if len(faces) == 1 else [f"{len(faces)} faces in the photo: the largest is taken"]
    faults = photo_faults(path, photo, faces[0], mirrored)
    notes += [f"poor: {fault[:1].lower()}{fault[1:].rstrip('.')}" for fault in faults]
    landmarks = snap_to_lip_contact(photo, faces[0].landmarks, face_model())
    face = PhotoFace(landmarks, faces[0].blendshapes)
    options.report("rendering idle motion", 0.2)
    motion = still_motion() if options.still else idle_motion(options.seed or 0)
    track, chosen, reader = build_photo_target(photo, face, folder, motion)
    summary = Summary(name, path, "photo", FPS, track, chosen, tuple(notes), faults=faults)
    result = summary.write_report(folder, reader)
    size = (photo.shape[1], photo.shape[0])
    bundle_writer.write_info(
        folder, "photo", size, FPS, {**summary.provenance(options.consent), **result}
    )
    return result
