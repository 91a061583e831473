"""Calibration: footage or a photo in, a target bundle out."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lipstream.calibration import bundle_writer
from lipstream.calibration.assets import fetch
from lipstream.calibration.consent import earlier_consent
from lipstream.calibration.fitting.factorise import factorise, openings
from lipstream.calibration.fitting.registration import register_faces
from lipstream.calibration.footage.ingest import ingest
from lipstream.calibration.footage.jump_graph import jump_graph
from lipstream.calibration.footage.sources import extract_sources
from lipstream.calibration.media.video import is_photo, open_footage, read_sound
from lipstream.calibration.options import CalibrationOptions
from lipstream.calibration.person.appearance_fit import MouthTextures, fit_appearance
from lipstream.calibration.person.av_offset import align_audio
from lipstream.calibration.person.evaluation import fit_sharpening
from lipstream.calibration.person.leave_one_out import EXCLUSION_WINDOW_S
from lipstream.calibration.person.relevance import adapt, require_adaptable
from lipstream.calibration.person.similarity_features import similarity_of
from lipstream.calibration.person.speaking_style import fit_style
from lipstream.calibration.photo.target import calibrate_photo
from lipstream.calibration.report.data import Summary
from lipstream.calibration.tracking.frame_metrics import cheek_color
from lipstream.calibration.tracking.rejection import (
    paintable,
    reject_frames,
    require_usable,
    usable,
)
from lipstream.engine.errors import UsageError
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import face_model
from lipstream.engine.output_paths import refuse_to_overwrite
from lipstream.engine.target.oral_cavity import mouth_of
from lipstream.kernels.color import i420_to_rgb

__all__ = ["CalibrationOptions", "calibrate"]


def calibrate(path: str | Path, output: str | Path, options: CalibrationOptions) -> dict[str, Any]:
    """Calibrate a video or a photo into the bundle `output`; returns the figures of `--json`.

    Raises:
        MediaError: the footage cannot be read, or the bundle not written.
        CalibrationError: no usable face.
        AssetError: the face landmarker cannot be found or loaded.
        UsageError: `output` exists and is no bundle or holds the footage, or adapting lacks what it
            needs.
    """
    path, output = Path(path), Path(output)
    refuse_to_overwrite(output, path)
    earlier = earlier_consent(output) if options.consent is None else None
    options = replace(options, consent=options.consent or earlier)
    if options.adapt:
        require_adaptable(path)
    if (options.still or options.seed is not None) and not is_photo(path):
        raise UsageError(f"{path}: --still and --seed are for photos; a video moves as it does")
    began = time.monotonic()
    with bundle_writer.bundle_folder(output) as folder:
        if is_photo(path):
            result = calibrate_photo(path, folder, output.name, options)
        else:
            result = _calibrate_video(path, folder, output.name, options)
        if options.adapt:
            result["adapted"] = adapt(folder, options.report)
    seconds = time.monotonic() - began
    return {
        "target": str(output),
        **result,
        "consent": getattr(options.consent, "statement", options.consent),
        "consent_kept": earlier is not None,  # of the target that this one replaces
        "seconds": round(seconds, 3),
        "realtime_factor": round(result["duration_s"] / seconds, 3),
    }


def _calibrate_video(
    path: Path, folder: Path, name: str, options: CalibrationOptions
) -> dict[str, Any]:
    """Write a video's bundle into `folder`, step by step; docs/calibration.md describes each."""
    model, step = face_model(), options.step
    mesh = build_mesh(model)

    # 1, 2: probe and track, one pass over the file
    with open_footage(path, options.start_s, options.end_s) as footage:
        landmarker = fetch(report=options.report)
        report = step("tracking the face")
        ingested = ingest(footage, folder, landmarker, report, options.person)
    raw, fps, reader = ingested.raw, ingested.fps, ingested.file.reader()
    read = reader.decoder().read

    # 3: reject
    rejected = reject_frames(raw)
    require_usable(path, raw, rejected)

    # 4: factorise into geometry, pose and expression; register to the pixels
    step("factorising")
    good, to_paint = usable(raw, rejected), paintable(raw, rejected)
    track = factorise(raw.landmarks, raw.cuts, good, to_paint, fps, model)
    track, faces = register_faces(
        track, lambda frame: read(frame)[: raw.height], model, step("registering faces")
    )

    # 5: align audio and video
    step("aligning audio and video")
    sound = read_sound(path, options.start_s, options.end_s)
    audio = align_audio(sound, np.where(raw.found, openings(track), np.nan), fps)

    # 6, 7: mouth sources, and how alike they are
    sources, crops = extract_sources(track, raw.sharpness, read, mesh, step("extracting sources"))
    similarity = None if faces is None else similarity_of(faces, track, sources, model)
    bundle_writer.write_sources(folder, sources, crops, similarity)

    # 8: appearance
    if similarity is not None:
        textures = MouthTextures.of(
            track, read, similarity, mesh, sources, step("fitting the appearance")
        )
        fit = fit_appearance(textures, EXCLUSION_WINDOW_S * float(fps))
        if fit is not None:
            bundle_writer.write_appearance(folder, fit.appearance)

    # 9: jump graph
    step("finding jumps")
    jumps = jump_graph(track.landmarks, ingested.thumbnails, ~track.usable)
    bundle_writer.write_jumps(folder, jumps)

    # 10: speaking style
    first = int(np.flatnonzero(track.usable)[0])
    skin = cheek_color(i420_to_rgb(read(first)), track.landmarks[first])
    style = fit_style(track, fps, audio, mouth_of(model, track.geometry, skin))
    bundle_writer.write_track(folder, track, style, ingested.file.offsets)

    # 11: report
    step("writing the report")
    summary = Summary(
        name, path, "video", fps, track, sources, ingested.notes, rejected,
        *((audio.late_ms, audio.confidence) if audio else (None, 0.0)),
    )  # fmt: skip
    figures = summary.write_report(folder, reader)
    info = {**summary.provenance(options.consent), **figures}
    bundle_writer.write_info(folder, "video", (raw.width, raw.height), fps, info)

    # 12: sharpening, by what the engine paints from the bundle as it now stands
    step("fitting the sharpening")
    return {**figures, "sharpen": fit_sharpening(folder)}
