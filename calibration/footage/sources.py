"""Chooses and cuts out the mouth sources: few, and together they cover what the mouth does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.face.mesh import FaceMesh
from lipstream.engine.face.model import LIP_MIDDLES_AND_CORNERS, FaceModel
from lipstream.engine.face.retarget import Placement
from lipstream.engine.target.bundle import MAX_SOURCES
from lipstream.engine.target.sources import MouthSource
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, I32, U8
from lipstream.kernels.color import i420_to_rgb

_MAX_BYTES = 96 << 20
_MAX_SIDE_PX = 320
_POSE_WEIGHT_PER_DEGREE = 0.012  # against expression in inter-ocular distances of lip motion
_MARGIN_PX = 4
_MIN_DISTANCE = 0.004  # inter-ocular distances of lip motion, between two sources
_SHORT_FOOTAGE = 64  # sources that short footage keeps, however similar


def extract_sources(
    track: Track,
    sharpness: F32,
    read_i420: Callable[[int], U8],
    mesh: FaceMesh,
    report: Callable[[float], None] = lambda fraction: None,
) -> tuple[I32, list[MouthSource]]:
    """Choose the mouth sources, frames i32 [S], and cut them out.

    sharpness: f32 [N]. read_i420: frame number to u8 [h*3/2, w]. report: takes the fraction done.
    """
    chosen = choose_sources(track, mesh.model, sharpness, source_limit(track, mesh))
    crops = []
    for done, frame in enumerate(chosen.tolist(), 1):
        crops.append(cut_source(i420_to_rgb(read_i420(frame)), track.placement(frame), mesh))
        report(done / len(chosen))
    return chosen, crops


def choose_sources(track: Track, model: FaceModel, sharpness: F32, limit: int) -> I32:
    """Frames of the mouth sources, i32 [S], by greedy k-centre over expression × pose.

    sharpness: f32 [N]. Each next one is the usable frame farthest from all chosen so far; of its
    near neighbours the sharpest is taken. Source: Gonzalez 1985.
    """
    usable = np.flatnonzero(track.usable)
    features = source_features(track, model)[usable]
    sharp = np.nan_to_num(sharpness[usable], nan=0.0)
    limit = min(limit, MAX_SOURCES, max(len(usable) // 2, _SHORT_FOOTAGE), len(usable))
    # The median, the most closed and the most open mouth are always sources.
    opening = track.expression[usable] @ model.lip_rows()[0]
    median = np.linalg.norm(features - np.median(features, axis=0), axis=1).argmin()
    seeds = [int(k) for k in (median, np.abs(opening).argmin(), opening.argmax())]
    distance = np.full(len(usable), np.inf, np.float32)
    chosen: list[int] = []
    while len(chosen) < limit:
        if seeds:
            at = seeds.pop(0)
        else:
            at = int(distance.argmax())
            if distance[at] < _MIN_DISTANCE:
                break
            spread = np.linalg.norm(features - features[at], axis=1)
            near = np.flatnonzero((spread < 0.25 * distance[at]) & (distance > 0))
            at = int(near[sharp[near].argmax()])
        chosen.append(at)
        distance = np.minimum(distance, np.linalg.norm(features - features[at], axis=1))
    return np.unique(usable[chosen]).astype(np.int32)


def source_features(track: Track, model: FaceModel) -> F32:
    """Features f32 [N, K + 3] whose distance is that of two mouths, inter-ocular distances."""
    lips = np.abs(model.basis[:, LIP_MIDDLES_AND_CORNERS]).mean((1, 2))
    angles = track.pose.angles_deg() * _POSE_WEIGHT_PER_DEGREE
    return np.concatenate([track.expression * lips, angles], 1).astype(np.float32)


def source_limit(track: Track, mesh: FaceMesh) -> int:
    """Number of crops that fit into the bundle's budget."""
    one = cut_rectangle(track.placement(int(np.flatnonzero(track.usable)[0])), mesh)
    zoom = min(1.0, _MAX_SIDE_PX / max(one[2] - one[0], one[3] - one[1], 1))
    size = (one[2] - one[0]) * (one[3] - one[1]) * zoom * zoom * 3
    return max(16, min(MAX_SOURCES, int(_MAX_BYTES / max(size, 1.0))))


def cut_rectangle(placement: Placement, mesh: FaceMesh) -> tuple[int, int, int, int]:
    """Rectangle (x0, y0, x1, y1), px, round the lip mesh with a margin."""
    points = placement.project(placement.canonical_vertices)[np.unique(mesh.lip_triangles)]
    low = np.floor(points.min(0)).astype(int) - _MARGIN_PX
    high = np.ceil(points.max(0)).astype(int) + _MARGIN_PX
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def cut_source(rgb: U8, placement: Placement, mesh: FaceMesh) -> MouthSource:
    """Cut a mouth out of a frame u8 [h, w, 3]; one larger than 320 px is scaled down."""
    x0, y0, x1, y1 = cut_rectangle(placement, mesh)
    x0, y0 = max(x0, 0), max(y0, 0)
    crop = rgb[y0 : max(y1, y0 + 4), x0 : max(x1, x0 + 4)]
    zoom = min(1.0, _MAX_SIDE_PX / max(crop.shape[:2]))
    if zoom < 1.0:
        from skimage.transform import resize

        size = (round(crop.shape[0] * zoom), round(crop.shape[1] * zoom))
        small: NDArray[np.float64] = resize(crop, size, anti_aliasing=True, preserve_range=True)
        crop = (small + 0.5).astype(np.uint8)
    return MouthSource(np.ascontiguousarray(crop), (float(x0), float(y0)), zoom, placement)
