"""Self-reconstruction: how close a synthesised mouth is to the one that the camera saw.

Two modes. *tracked*: every frame is synthesised from mouth sources at least half a second away,
with the tracked expression of the frame itself, so it should equal the real frame pixel by pixel.
*voice*: the sound of the clip drives it in the order of the footage, as in a dub. The lips are then
those of the encoder and not those of the camera, and every method scores lower.

Methods compared in one run: the warp alone; the universal renderer; the renderer adapted to the
first part of the clip. Frames that adaptation used are not measured. Inside the mouth mask:

- psnr_db, ssim (7 × 7 windows, luma) against the real frame;
- sharpness: mean gradient of luma over that of the real frame; 1 is as sharp as the camera;
- flicker: the change from frame to frame that the motion of the mesh does not explain, over the
  same figure of the footage;
- lips: mean distance between the lip landmarks tracked in both, over the inter-ocular distance
  (tracked mode only).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.person.evaluation import compare_with
from lipstream.calibration.person.leave_one_out import EXCLUSION_WINDOW_S, LeaveOneOutPredictor
from lipstream.calibration.tracking.landmarker import Landmarker
from lipstream.engine.face.mesh import LIP_OUTLINE, FaceMesh, build_mesh
from lipstream.engine.face.model import INNER_LOWER_LIP, INNER_UPPER_LIP, face_model
from lipstream.engine.pipeline import Engine
from lipstream.engine.rendering.compositor import ComposedFrame, Compositor
from lipstream.engine.rendering.refiner import Renderer
from lipstream.engine.rendering.source_crossfade import SourceCrossfade
from lipstream.engine.target.appearance import Prediction
from lipstream.engine.target.bundle import Target
from lipstream.engine.target.sources import SourceWeights
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, U8, Expression, Lips, MatchedFrame
from lipstream.kernels.color import i420_region_to_rgb, i420_to_rgb
from lipstream.kernels.mesh import remap, warp_mesh

CLOSE_UPS: Final = 8  # of a clip
_CLOSE_UP: Final = 0.62  # half the side of a close-up, inter-ocular distances
_CLOSE_UP_PX: Final = 200
_MOUTH_MARGIN: Final = 0.15  # around the lips in voice mode, inter-ocular distances
MEASURES: Final = ("psnr_db", "ssim", "sharpness", "flicker", "lips")


@dataclass
class Method:
    """A way to synthesise the mouth, and its measurements."""

    renderer: Renderer | None
    rows: list[dict[str, float]] = field(default_factory=list)
    close_ups: list[U8] = field(default_factory=list)  # u8 [side, side, 3] each
    previous_output: U8 | None = None  # of the renderer
    last_frame: U8 | None = None  # RGB

    def figures(self) -> dict[str, dict[str, float]]:
        """Mean and spread over frames of each measure."""
        found = {}
        for name in MEASURES:
            values = [row[name] for row in self.rows if name in row]
            if values:
                found[name] = {
                    "mean": round(float(np.mean(values)), 4),
                    "spread": round(float(np.std(values)), 4),
                }
        return found


def reconstruct_tracked(
    target: Target,
    renderers: Mapping[str, Renderer | None],
    landmarker: Landmarker | None,
    frames: Sequence[int] | None = None,
    others: Mapping[str, Target] | None = None,
) -> dict[str, Method]:
    """Reconstruct every usable frame of `frames` from other parts of the clip, by each method.

    others: methods whose appearance prior comes from another target of the same clip.

    The key "real" of the result holds the close-ups of the footage.
    """
    mesh = build_mesh(face_model())
    methods = {name: Method(renderer) for name, renderer in renderers.items()}
    compositors = {
        name: Compositor(mesh, target.style.mouth, method.renderer)
        for name, method in methods.items()
    }
    methods["real"] = Method(None)
    track, decoder = target.track, target.frames.decoder()
    candidates = range(len(track)) if frames is None else frames
    good = [i for i in candidates if track.usable[i] and track.paintable[i]]
    predictor = LeaveOneOutPredictor(target, mesh)
    predictions = {i: predictor.predict(i, track.expression[i]) for i in good}
    weights = source_weights(target, predictions)
    # A method without a renderer has no use for an appearance prior.
    predictors = {
        name: predictor for name, method in methods.items() if method.renderer is not None
    }
    predictors |= {
        name: LeaveOneOutPredictor(other, mesh) for name, other in (others or {}).items()
    }
    shown = set(good[:: max(1, len(good) // CLOSE_UPS)][:CLOSE_UPS])
    previous: _RealFrame | None = None
    for index in good:
        picture, placement = decoder.read(index), track.placement(index)
        real = _RealFrame(index, i420_to_rgb(picture), track.landmarks[index], placement.scale)
        real_face = _face(landmarker, real.rgb)
        expression = track.expression[index]
        for name, compositor in compositors.items():
            method, prior = methods[name], None
            if name in predictors:
                one = predictors[name]
                own = predictions[index] if one is predictor else one.predict(index, expression)
                prior = one.picture(own, expression)
            frame = compositor.paint(
                picture, placement, expression, weights[index], prior, method.previous_output
            )
            rgb = i420_to_rgb(frame.frame)
            row = compare_with(rgb, real.rgb, _whole_mask(frame, rgb.shape[:2]))
            if previous is not None and method.last_frame is not None and previous.precedes(real):
                row["flicker"] = _flicker((method.last_frame, rgb), (previous, real), mesh)
            face = _face(landmarker, rgb) if real_face is not None else None
            if face is not None and real_face is not None:
                row["lips"] = _lip_distance(face, real_face, real.scale)
            method.rows.append(row)
            method.previous_output, method.last_frame = frame.previous_output, rgb
            if index in shown:
                method.close_ups.append(_close_up(rgb, real))
        if index in shown:
            methods["real"].close_ups.append(_close_up(real.rgb, real))
        previous = real
    return methods


@dataclass(frozen=True, slots=True)
class _RealFrame:
    """A frame of the footage."""

    index: int
    rgb: U8
    landmarks: F32  # f32 [vertices, 3], px
    scale: float  # px per inter-ocular distance

    def precedes(self, other: _RealFrame) -> bool:
        return self.index == other.index - 1


def reconstruct_by_voice(
    target: Target, sound: F32, late_s: float, backend: str = "auto"
) -> dict[str, Method]:
    """Drive the clip by its own sound in the order of the footage, by the warp and the renderer.

    sound: f32 [n] at 16 kHz; late_s: how much later it is than the picture.
    """
    start = max(0, round(late_s * SAMPLE_RATE_HZ))
    samples = sound[start:].astype(np.float32)
    decoder = target.frames.decoder()
    methods: dict[str, Method] = {}
    for name, choice in (("warp", "none"), ("renderer", "network")):
        engine = Engine(target, backend=backend, background="sequential", renderer=choice)
        session, method = engine.session(), Method(engine.renderer)
        for frame in [*session.push(samples), *session.flush()]:
            if frame.frame_index >= len(target.track):
                break
            index = frame.frame_index
            if not target.track.usable[index]:
                continue
            box = _mouth_box(target, index)
            ours, real = (
                i420_region_to_rgb(frame.i420, *box),
                i420_region_to_rgb(decoder.read(index), *box),
            )
            method.rows.append(compare_with(ours, real, np.ones(ours.shape[:2], bool)))
        methods[name] = method
    return methods


def summary_of(per_clip: Sequence[Mapping[str, Method]]) -> dict[str, dict[str, dict[str, float]]]:
    """{method: {measure: {mean, spread}}} over clips; for psnr_db and ssim also `wins`.

    `wins` is the share of frames that are better than those of the first method.
    """
    first, *others = (name for name in per_clip[0] if name != "real")
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for name in (first, *others):
        summary[name] = {}
        for measure in MEASURES:
            means = [
                float(np.mean(values))
                for methods in per_clip
                if (values := [row[measure] for row in methods[name].rows if measure in row])
            ]
            if not means:
                continue
            summary[name][measure] = {
                "mean": round(float(np.mean(means)), 4),
                "spread": round(float(np.std(means)), 4),
            }
            if name != first and measure in ("psnr_db", "ssim"):
                pairs = [
                    own[measure] > base[measure]
                    for methods in per_clip
                    for own, base in zip(methods[name].rows, methods[first].rows, strict=True)
                    if measure in own
                ]
                summary[name][measure]["wins"] = round(float(np.mean(pairs)), 3)
    return summary


def source_weights(
    target: Target, predictions: Mapping[int, Prediction | None]
) -> Mapping[int, SourceWeights]:
    """The mouth sources and weights that the engine chooses, without those nearby in time.

    predictions: by frame, in order, the texture predicted without the frames around it.
    """
    engine = Engine(target, background="sequential", renderer="none")
    selector, track, crossfade = engine.selector, target.track, SourceCrossfade()
    search, chosen = selector.search.init(), []
    for number, (index, own) in enumerate(predictions.items()):
        cost = selector.emission(_matched(number, index, track.expression[index]), own)
        near = np.abs(target.source_frames - index) < EXCLUSION_WINDOW_S * float(target.fps)
        cost = (cost + np.float32(1e6) * near).astype(np.float32)
        found, search = selector.search.step(search, cost)
        chosen += found
    chosen += selector.search.flush(search)
    weights = {}
    for index, source in zip(predictions, chosen, strict=True):
        crossfade = crossfade.to(source)
        weights[index] = engine.source_weights(crossfade, track.expression[index])
    return weights


def _matched(number: int, background: int, coefficients: F32) -> MatchedFrame:
    return MatchedFrame(number, background, Expression(coefficients, Lips(0, 0, 0), True, 0))


def _whole_mask(frame: ComposedFrame, shape: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    x, y, w, h = frame.box
    mask[y : y + h, x : x + w] = frame.mask > 0
    return mask


def _flicker(ours: tuple[U8, U8], real: tuple[_RealFrame, _RealFrame], mesh: FaceMesh) -> float:
    """Unexplained change from frame to frame, over that of the footage."""
    landmarks = real[0].landmarks, real[1].landmarks
    footage = _residual_change((real[0].rgb, real[1].rgb), landmarks, mesh)
    return _residual_change(ours, landmarks, mesh) / max(footage, 1e-3)


def _residual_change(frames: tuple[U8, U8], landmarks: tuple[F32, F32], mesh: FaceMesh) -> float:
    """Mean change of the lips that the motion of the mesh does not explain, 8-bit levels."""
    (last, rgb), (before, after) = frames, landmarks
    low = np.floor(after[list(LIP_OUTLINE), :2].min(0)).astype(int) - 2
    high = np.ceil(after[list(LIP_OUTLINE), :2].max(0)).astype(int) + 2
    low = np.maximum(low, 0)
    shape = int(high[1] - low[1]), int(high[0] - low[0])
    triangles = np.ascontiguousarray(
        np.concatenate([mesh.lip_triangles, mesh.model.triangles]), np.int32
    )
    at = np.ascontiguousarray(after[:, :2] - low, np.float32)
    moved, covered = warp_mesh(last, np.ascontiguousarray(before[:, :2]), at, triangles, shape)
    now = rgb[low[1] : low[1] + shape[0], low[0] : low[0] + shape[1]]
    h, w = now.shape[:2]
    change = np.abs(now.astype(np.float32) - moved[:h, :w]).mean(2)
    return float(change[covered[:h, :w] > 0].mean())


def _face(landmarker: Landmarker | None, rgb: U8) -> F32 | None:
    """Landmarks of the face; None without a landmarker, or where there is not exactly one face."""
    faces = landmarker.faces(rgb) if landmarker is not None else []
    return faces[0].landmarks if len(faces) == 1 else None


def _lip_distance(ours: F32, real: F32, scale: float) -> float:
    lips = list(LIP_OUTLINE + INNER_UPPER_LIP + INNER_LOWER_LIP)
    return float(np.linalg.norm(ours[lips, :2] - real[lips, :2], axis=1).mean() / scale)


def _mouth_box(target: Target, index: int) -> tuple[int, int, int, int]:
    """x, y, w, h around the mouth, even, inside the picture, px."""
    points = target.track.landmarks[index, list(LIP_OUTLINE), :2]
    margin = _MOUTH_MARGIN * target.track.placement(index).scale
    low = np.maximum(np.floor(points.min(0) - margin).astype(int), 0) & ~1
    high = (
        np.minimum(np.ceil(points.max(0) + margin).astype(int), (target.width, target.height)) & ~1
    )
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


def _close_up(rgb: U8, real: _RealFrame) -> U8:
    """The mouth, u8 [_CLOSE_UP_PX, _CLOSE_UP_PX, 3]."""
    x, y = real.landmarks[list(LIP_OUTLINE), :2].mean(0)
    side = np.arange(_CLOSE_UP_PX, dtype=np.float32)
    steps = ((side + 0.5) / (_CLOSE_UP_PX / 2) - 1) * np.float32(_CLOSE_UP * real.scale)
    grid = np.stack(np.meshgrid(steps + x, steps + y), -1).astype(np.float32)
    return remap(np.ascontiguousarray(rgb), grid)
