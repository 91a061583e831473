"""Footage or photo in, target bundle out: the steps of calibration in their order."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration import bundle_writer
from lipstream.calibration.options import CalibrationOptions
from lipstream.calibration.person.speaking_style import EncodedAudio, opening_gain, speaking_pose
from lipstream.engine.errors import CalibrationError
from lipstream.engine.face.model import face_model
from lipstream.engine.types import F32

__all__ = ["CalibrationOptions", "calibrate"]

_UNPAINTABLE = ("no_face", "occlusion", "profile", "outside", "other_person")
_THUMBNAIL_PX = 32


def calibrate(path: str | Path, output: str | Path, options: CalibrationOptions) -> dict[str, Any]:
    """Calibrate a video or a photo into `output`; returns the figures of `--json`.

    Raises:
        MediaError: the footage cannot be read, or the bundle not written.
        CalibrationError: no usable face.
        UsageError: `output` is something else already, or adapting needs what is not here.
    """
    from lipstream.calibration.media.video import is_photo
    from lipstream.calibration.photo.target import calibrate_photo

    path, output = Path(path), Path(output)
    if options.adapt:
        from lipstream.calibration.person.relevance import check

        check(path)  # a missing library is told before the work
    began = time.monotonic()
    with bundle_writer.bundle_folder(output) as folder:
        if is_photo(path):
            result = calibrate_photo(path, folder, output.name, options)
        else:
            result = _calibrate_video(path, folder, output.name, options)
            result["sharpen"] = _sharpen(folder, options)
        if options.adapt:
            from lipstream.calibration.person.relevance import adapt

            result["adapted"] = adapt(folder, options.report)
    seconds = time.monotonic() - began
    return {
        "target": str(output),
        **result,
        "seconds": round(seconds, 3),
        "realtime_factor": round(result["duration_s"] / seconds, 3),
    }


def _calibrate_video(
    path: Path, folder: Path, name: str, options: CalibrationOptions
) -> dict[str, Any]:
    from lipstream.calibration import assets
    from lipstream.calibration.fitting.face_windows import FaceWindows
    from lipstream.calibration.fitting.factorise import factorise, openings
    from lipstream.calibration.fitting.registration import registered
    from lipstream.calibration.footage.jump_graph import jump_graph
    from lipstream.calibration.footage.sources import choose_sources, cut_source, source_limit
    from lipstream.calibration.media.video import open_footage
    from lipstream.calibration.person.appearance_fit import MouthTextures, learn
    from lipstream.calibration.person.leave_one_out import EXCLUSION_WINDOW_S
    from lipstream.calibration.person.similarity_features import similarity_of
    from lipstream.calibration.report.data import Summary, skin_colour
    from lipstream.calibration.tracking.rejection import reject_frames, usable
    from lipstream.calibration.tracking.tracker import track as follow
    from lipstream.engine.face.mesh import build_mesh
    from lipstream.engine.target.frames import FrameReader, FrameWriter
    from lipstream.engine.target.oral_cavity import mouth_of
    from lipstream.engine.target.style import Style
    from lipstream.kernels.color import i420_to_rgb

    model = face_model()
    mesh = build_mesh(model)
    frames_path = folder / "frames.mjpeg"
    thumbnails: list[NDArray[np.uint8]] = []
    with open_footage(path, options.start_s, options.end_s) as footage:
        fps, expected = footage.fps, footage.expected_frames
        with FrameWriter(frames_path, footage.width, footage.height) as frames:

            def keep(frame: Any) -> None:
                frames.append(frame.i420)
                thumbnails.append(_thumbnail(frame.i420))

            def tell(done: int) -> None:
                options.report("tracking the face", done / max(expected or done, done, 1))

            raw = follow(footage, keep, assets.fetch(), tell)
        notes = (*footage.notes, *raw.warnings)
    rejected = reject_frames(raw)
    good = usable(raw, rejected)
    if not good.any():
        counts = Counter(r.reason for r in rejected).most_common(3)
        raise CalibrationError(
            f"{path}: none of {raw.frames} frames can be used ("
            + ", ".join(f"{reason}: {count}" for reason, count in counts)
            + "); expected a face seen from the front, with nothing over the mouth"
        )
    paintable = np.ones(raw.frames, bool)
    paintable[[r.frame for r in rejected if r.reason in _UNPAINTABLE]] = False
    options.report("separating geometry, pose and expression", 0.0)
    track = factorise(raw.landmarks, raw.cuts, good, paintable, fps, model)

    reader = FrameReader(frames_path, np.asarray(frames.offsets, np.int64), raw.width, raw.height)
    decoder = reader.decoder()
    faces = FaceWindows.look(
        track,
        lambda frame: decoder.read(frame)[: raw.height],
        model,
        lambda share: options.report("laying mouths to the pixel", share),
    )
    if faces is not None:
        track, faces = registered(track, faces)
    chosen = choose_sources(track, model, raw.sharpness, source_limit(track, mesh))
    crops = []
    for done, frame in enumerate(chosen.tolist()):
        crops.append(cut_source(i420_to_rgb(decoder.read(frame)), track.placement(frame), mesh))
        options.report("cutting out mouths", done / len(chosen))
    similarity = None if faces is None else similarity_of(faces, track, chosen, model)
    bundle_writer.write_sources(folder, chosen, crops, similarity)
    if similarity is not None:
        looks = MouthTextures.of(
            track, decoder.read, similarity, mesh, chosen,
            lambda share: options.report("learning what mouths look like", share),
        )  # fmt: skip
        learned = learn(looks, EXCLUSION_WINDOW_S * float(fps))
        if learned is not None:
            bundle_writer.write_appearance(folder, learned.appearance)
    options.report("finding jumps", 0.0)
    bundle_writer.write_jumps(
        folder, jump_graph(track.landmarks, np.stack(thumbnails), ~track.usable)
    )

    opening = openings(track)
    voice = _voice(path, options, np.where(raw.found, opening, np.nan), fps)
    first = int(np.flatnonzero(track.usable)[0])
    skin = skin_colour(i420_to_rgb(decoder.read(first)), track.landmarks[first])
    rest, gain = np.zeros(model.size, np.float32), opening_gain(opening[track.usable])
    speaking = speaking_pose(track.expression, track.usable, fps, gain, voice)
    style = Style(rest, gain, speaking, mouth_of(model, track.geometry, skin))
    bundle_writer.write_track(folder, track, style, frames.offsets)
    options.report("writing the report", 0.0)
    late_ms, confidence = (voice.late_ms, voice.confidence) if voice else (None, 0.0)
    summary = Summary(name, path, "video", fps, track, chosen, notes, rejected, late_ms, confidence)
    summary.write_report(folder, reader)
    result = summary.figures()
    info = {**summary.provenance(options.consent), **result}
    bundle_writer.write_info(folder, "video", (raw.width, raw.height), fps, info)
    return result


def _sharpen(folder: Path, options: CalibrationOptions) -> float:
    """How much the universal renderer has to sharpen for this person; noted in the bundle."""
    from lipstream.calibration.person.evaluation import Evaluator
    from lipstream.engine.networks.registry import shipped
    from lipstream.engine.rendering.refiner import load_renderer
    from lipstream.engine.target.bundle import load_target
    from lipstream.engine.target.style import SHARPEN

    options.report("comparing painted mouths with real ones", 0.0)
    renderer = load_renderer("auto", "auto")
    if renderer is None:
        return SHARPEN
    amount = Evaluator(load_target(folder)).sharpening(renderer)
    bundle_writer.note_sharpen(folder, amount, shipped("renderer").safetensors)
    return amount


def _thumbnail(i420: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma in small, u8 [32, 32]: enough to see whether two backgrounds agree."""
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    rows = np.linspace(0, height, _THUMBNAIL_PX + 1).astype(int)
    columns = np.linspace(0, width, _THUMBNAIL_PX + 1).astype(int)
    luma = i420[:height].astype(np.float32)
    sums = np.add.reduceat(np.add.reduceat(luma, rows[:-1], 0), columns[:-1], 1)
    area = np.diff(rows)[:, None] * np.diff(columns)[None]
    return (sums / area + 0.5).astype(np.uint8)


def _voice(path: Path, options: CalibrationOptions, opening: F32, fps: Any) -> EncodedAudio | None:
    from lipstream.calibration.media.video import read_sound
    from lipstream.calibration.person.av_offset import estimate_offset_ms, listen, predicted_opening

    sound = read_sound(path, options.start_s, options.end_s)
    if sound is None:
        return None
    options.report("comparing sound and picture", 0.0)
    heard = listen(sound)
    late_ms, confidence = estimate_offset_ms(
        opening.astype(np.float32), fps, sound, predicted_opening(heard)
    )
    return EncodedAudio(heard, late_ms, confidence)
