"""How true the painted mouth is: each clip of a person reconstructs itself, and is compared.

Two readings. *tracked*: every frame is painted over from mouths at least half a second away, with
the expression that the tracker saw in it, so picture and truth are to agree pixel by pixel.
*voice*: the clip's own sound drives it in the footage's order, as a dub would; lips then move as
the encoder thinks, not as the camera saw, and the figures are lower for all alike.

Ways compared in the same run: the plain warp, the universal network, and the network adapted to
the first part of the clip; all judged on what adapting did not use. Inside the mouth mask:

- psnr_db, ssim (7 × 7 windows, luma) against the real frame;
- sharpness: mean gradient of luma over the real one; 1 is as sharp as the camera;
- flicker: what is left of the change from frame to frame after the mesh has moved the last frame
  onto this one, over the same figure of the real footage;
- lips: mean distance of the lip landmarks that the tracker finds in both, over the inter-ocular
  distance (tracked reading only).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

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
from lipstream.kernels.mesh import warp_mesh

STRIP_FRAMES: Final = 8
_STRIP_EYES: Final = 0.62  # half side of a strip's picture, inter-ocular distances
MEASURES: Final = ("psnr_db", "ssim", "sharpness", "flicker", "lips")


@dataclass
class Method:
    """One way to paint, and what was measured of it."""

    renderer: Renderer | None
    rows: list[dict[str, float]] = field(default_factory=list)
    strip: list[U8] = field(default_factory=list)
    previous: U8 | None = None  # the renderer's
    last: U8 | None = None  # the frame before, RGB

    def figures(self) -> dict[str, dict[str, float]]:
        """Mean and spread over frames of each measure."""
        told = {}
        for name in MEASURES:
            values = [row[name] for row in self.rows if name in row]
            if values:
                told[name] = {
                    "mean": round(float(np.mean(values)), 4),
                    "spread": round(float(np.std(values)), 4),
                }
        return told


def reconstruct_tracked(
    target: Target,
    renderers: Mapping[str, Renderer | None],
    landmarker: Landmarker | None,
    frames: Sequence[int] | None = None,
    others: Mapping[str, Target] | None = None,
) -> dict[str, Method]:
    """Every paintable frame (of `frames`) from mouths elsewhere in the clip, by each way.

    others: ways that are told what to expect by another target of the same clip.

    The key "real" of the result holds the footage's own strip.
    """
    mesh = build_mesh(face_model())
    ways = {name: Method(renderer) for name, renderer in renderers.items()}
    compositors = {
        name: Compositor(mesh, target.style.mouth, way.renderer) for name, way in ways.items()
    }
    ways["real"] = Method(None)
    track, decoder = target.track, target.frames.decoder()
    wanted = range(len(track)) if frames is None else frames
    good = [i for i in wanted if track.usable[i] and track.paintable[i]]
    usual = LeaveOneOutPredictor(target, mesh)
    prediction = {i: usual.predict(i, track.expression[i]) for i in good}
    lent = _sources(target, prediction)
    # A way without a renderer has no use for what is expected.
    told = {name: usual for name, way in ways.items() if way.renderer is not None}
    told |= {name: LeaveOneOutPredictor(other, mesh) for name, other in (others or {}).items()}
    shown = set(good[:: max(1, len(good) // STRIP_FRAMES)][:STRIP_FRAMES])
    before = -2
    for index in good:
        picture, placement = decoder.read(index), track.placement(index)
        real = i420_to_rgb(picture)
        painted: dict[str, ComposedFrame] = {}
        expression = track.expression[index]
        for name, compositor in compositors.items():
            prior = None
            if name in told:
                known = told[name]
                own = prediction[index] if known is usual else known.predict(index, expression)
                prior = known.picture(own, expression)
            painting = compositor.paint(
                picture, placement, expression, lent[index], prior, ways[name].previous
            )
            ways[name].previous = painting.previous_output
            painted[name] = painting
        seen = landmarker.faces(real) if landmarker is not None else []
        for name, painting in painted.items():
            way, rgb = ways[name], i420_to_rgb(painting.frame)
            row = compare_with(rgb, real, _whole_mask(painting, rgb.shape[:2]))
            if way.last is not None and ways["real"].last is not None and before == index - 1:
                moved = track.landmarks[before], track.landmarks[index]
                ours = _change(way.last, rgb, *moved, mesh)
                theirs = _change(ways["real"].last, real, *moved, mesh)
                row["flicker"] = ours / max(theirs, 1e-3)
            if landmarker is not None and len(seen) == 1:
                found = landmarker.faces(rgb)
                if len(found) == 1:
                    row["lips"] = _lip_distance(
                        found[0].landmarks, seen[0].landmarks, placement.scale
                    )
            way.rows.append(row)
            way.last = rgb
        ways["real"].last, before = real, index
        if index in shown:
            for name, way in ways.items():
                rgb = real if name == "real" else i420_to_rgb(painted[name].frame)
                way.strip.append(_close_up(rgb, track.landmarks[index], placement.scale))
    return ways


def reconstruct_by_voice(
    target: Target, sound: F32, late_s: float, backend: str = "auto"
) -> dict[str, Method]:
    """The clip says its own sound in its own order, warped and with the network."""
    start = max(0, round(late_s * SAMPLE_RATE_HZ))
    samples = sound[start:].astype(np.float32)
    decoder = target.frames.decoder()
    ways: dict[str, Method] = {}
    for name, choice in (("warp", "none"), ("network", "network")):
        engine = Engine(target, backend=backend, background="sequential", renderer=choice)
        session, way = engine.session(), Method(engine.renderer)
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
            way.rows.append(compare_with(ours, real, np.ones(ours.shape[:2], bool)))
        ways[name] = way
    return ways


def summary_of(per_clip: Sequence[Mapping[str, Method]]) -> dict[str, dict[str, dict[str, float]]]:
    """By way and measure: the mean over clips and their spread; for psnr_db and ssim also `wins`,
    the share of frames that are better than the first way's."""
    first, *others = (name for name in per_clip[0] if name != "real")
    told: dict[str, dict[str, dict[str, float]]] = {}
    for name in (first, *others):
        told[name] = {}
        for measure in MEASURES:
            means = [
                float(np.mean(values))
                for ways in per_clip
                if (values := [row[measure] for row in ways[name].rows if measure in row])
            ]
            if not means:
                continue
            told[name][measure] = {
                "mean": round(float(np.mean(means)), 4),
                "spread": round(float(np.std(means)), 4),
            }
            if name != first and measure in ("psnr_db", "ssim"):
                pairs = [
                    own[measure] > base[measure]
                    for ways in per_clip
                    for own, base in zip(ways[name].rows, ways[first].rows, strict=True)
                    if measure in own
                ]
                told[name][measure]["wins"] = round(float(np.mean(pairs)), 3)
    return told


def _sources(
    target: Target, prediction: Mapping[int, Prediction | None]
) -> Mapping[int, SourceWeights]:
    """The mouths that the engine would lend to each frame, were none to be had nearby in time.

    foretold: by frame, in order, what to expect of it had its moment not been filmed.
    """
    engine = Engine(target, background="sequential", renderer="none")
    selector, track, crossfade = engine.selector, target.track, SourceCrossfade()
    search, chosen = selector.search.init(), []
    for place, (index, own) in enumerate(prediction.items()):
        cost = selector.emission(_wanted(place, index, track.expression[index]), own)
        near = np.abs(target.source_frames - index) < EXCLUSION_WINDOW_S * float(target.fps)
        cost = (cost + np.float32(1e6) * near).astype(np.float32)
        found, search = selector.search.step(search, cost)
        chosen += found
    chosen += selector.search.flush(search)
    lent = {}
    for index, source in zip(prediction, chosen, strict=True):
        crossfade = crossfade.to(source)
        lent[index] = engine.source_weights(crossfade, track.expression[index])
    return lent


def _wanted(place: int, background: int, coefficients: F32) -> MatchedFrame:
    return MatchedFrame(place, background, Expression(coefficients, Lips(0, 0, 0), True, 0))


def _whole_mask(painting: ComposedFrame, shape: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    x, y, w, h = painting.box
    mask[y : y + h, x : x + w] = painting.mask > 0
    return mask


def _change(last: U8, rgb: U8, before: F32, after: F32, mesh: FaceMesh) -> float:
    """Mean change of the lips that the motion of the mesh does not explain, levels."""
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


def _lip_distance(ours: F32, real: F32, scale: float) -> float:
    lips = list(LIP_OUTLINE + INNER_UPPER_LIP + INNER_LOWER_LIP)
    return float(np.linalg.norm(ours[lips, :2] - real[lips, :2], axis=1).mean() / scale)


def _mouth_box(target: Target, index: int) -> tuple[int, int, int, int]:
    """x, y, w, h round the mouth, even, inside the picture."""
    points, reach = target.track.landmarks[index, list(LIP_OUTLINE), :2], 0.15
    margin = reach * target.track.placement(index).scale
    low = np.maximum(np.floor(points.min(0) - margin).astype(int), 0) & ~1
    high = (
        np.minimum(np.ceil(points.max(0) + margin).astype(int), (target.width, target.height)) & ~1
    )
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


def _close_up(rgb: U8, landmarks: F32, scale: float) -> U8:
    """The mouth, u8 [200, 200, 3]."""
    from lipstream.kernels.mesh import remap

    x, y = landmarks[list(LIP_OUTLINE), :2].mean(0)
    steps = ((np.arange(200, dtype=np.float32) + 0.5) / 100 - 1) * np.float32(_STRIP_EYES * scale)
    grid = np.stack(np.meshgrid(steps + x, steps + y), -1).astype(np.float32)
    return remap(np.ascontiguousarray(rgb), grid)


Report = Callable[[str, float], None]


def strips_page(clips: Mapping[str, Mapping[str, Method]], figures: Mapping[str, Any]) -> str:
    """One self-contained HTML page: a table, then a strip a clip with a row a way."""
    import html

    from lipstream.calibration.report.page_style import style_sheet
    from lipstream.calibration.report.pictures import data_uri

    parts = [f"<h1>Mouths, real and painted</h1>{_table(figures)}"]
    for name, ways in clips.items():
        parts.append(f"<section><h2>{html.escape(name)}</h2>")
        for way in ("real", *[n for n in ways if n != "real"]):
            strip = np.concatenate(ways[way].strip, axis=1)
            parts.append(
                f'<p class="eyebrow">{html.escape(way)}</p>'
                f'<img alt="{html.escape(way)}" style="width:100%" src="{data_uri(strip)}">'
            )
        parts.append("</section>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>lipstream: mouths</title>'
        f"<style>{style_sheet()}</style><main>{''.join(parts)}</main></html>"
    )


def _table(figures: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> str:
    rows = []
    for reading, ways in figures.items():
        for way, measures in ways.items():
            cells = "".join(
                f"<td>{measures[m]['mean']:.3f} ± {measures[m]['spread']:.3f}</td>"
                if m in measures
                else "<td></td>"
                for m in MEASURES
            )
            rows.append(f"<tr><td>{reading}</td><td>{way}</td>{cells}</tr>")
    heads = "".join(f"<th>{m}</th>" for m in ("reading", "way", *MEASURES))
    return f'<table style="border-spacing:14px 4px"><tr>{heads}</tr>{"".join(rows)}</table>'
