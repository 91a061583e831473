"""Finds where the lips of an open mouth end in a photo, and moves the inner lip landmarks there.

The landmarker places the inner edges of open lips up to half a lip's thickness inside the visible
ones, above all in smiles and wide mouths. Teeth and shadow that count as lip stay in sight when the
mouth closes. Lips and what lies between them differ in color: both are sampled where the landmarks
are sure of them, and each edge is the path from corner to corner that parts them best. Paths are
found by dynamic programming, as in `lip_contact`. An edge moves outwards only: pixels of lip that
count as mouth are lost in a closed mouth, and nobody misses them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from lipstream.calibration.fitting.lip_contact import cheapest_path
from lipstream.engine.face.mesh import LIPS
from lipstream.engine.face.model import VERTICES, FaceModel, fit_pose
from lipstream.engine.types import F32, U8
from lipstream.kernels.mesh import remap

F64 = NDArray[np.float64]
_OPEN: Final = 0.06  # inter-ocular distances; a smaller gap is too thin to sample
_COLUMNS: Final = 61
_CORNERS: Final = 0.08  # of the width at either end, where an edge returns to the landmarks
_STEPS: Final = 32  # candidates
_OUTWARD: Final = 0.5  # of the thickness of a lip: how far an edge may move into it
_MAX_SHIFT: Final = 0.07  # inter-ocular distances
_SLOPE_COST: Final = 0.01  # Lab distance times inter-ocular distances, a squared step
_MAX_SLOPE: Final = 4  # steps from column to column; more costs no more
_SHIFT_COST: Final = 0.05  # Lab distance times inter-ocular distances, at the largest shift
_SMOOTH: Final = 1.5  # columns
_LIP_COLORS, _SKIN_COLORS, _INNER_COLORS = 3, 2, 5  # clusters; the last shows teeth and shadow
_SKIN: Final = (0.03, 0.1)  # inter-ocular distances beyond the outline, where it is sampled
_SURE: Final = 25.0  # CIE Lab distance beyond which a pixel is no surer to be lip, or not


def snap_to_lip_edges(photo: U8, landmarks: F32, model: FaceModel) -> F32:
    """Landmarks f32 [≥468, 3], px, with the inner edges of open lips moved to where they are in the
    photo u8 [h, w, 3]; unchanged if the lips are closed."""
    from skimage.color import rgb2lab

    pose = fit_pose(landmarks[None], model.mean, model.rigid)
    free = pose.remove(landmarks[None, :VERTICES])[0].astype(np.float64)
    upper, lower, outer_upper, outer_lower = free[LIPS]
    if (lower - upper)[:, 1].max() < _OPEN:
        return landmarks
    across = np.linspace(upper[0, 0], upper[-1, 0], _COLUMNS)

    def lines(at: F64) -> tuple[F64, ...]:
        """y f64 [columns] of outer upper lip, inner upper, inner lower, outer lower; and depth."""
        y = [np.interp(at, k[:, 0], k[:, 1]) for k in (outer_upper, upper, lower, outer_lower)]
        return (*y, np.interp(at, upper[:, 0], upper[:, 2]))

    def colors(at: F64, y: F64) -> F64:
        """CIE Lab f64 [columns, n, 3] at canonical x f64 [columns] and y f64 [columns, n]."""
        points = np.broadcast_arrays(at[:, None], y, lines(at)[-1][:, None])
        placed = pose.apply(np.stack(points, -1).reshape(1, -1, 3).astype(np.float32))[..., :2]
        lab: F64 = rgb2lab(remap(photo, np.ascontiguousarray(placed))[0])
        return lab.reshape(*y.shape, 3)

    high, above, below, low, _ = lines(across)
    unlike_lip = _color_test(lambda y: colors(across, y), (high, above, below, low))
    step = np.linspace(0, 1, _STEPS + 1)
    inward = np.minimum(across - across[0], across[-1] - across) / (across[-1] - across[0])
    moved = free.copy()
    for edge, outline, side in ((above, high, -1.0), (below, low, 1.0)):
        reach = np.clip(_OUTWARD * side * (outline - edge), 1e-6, _MAX_SHIFT)
        shift = step * reach[:, None]
        # What an edge passes on its way outwards should not be lip.
        passed = (
            unlike_lip(colors(across, edge[:, None] + side * shift)) * (reach / _STEPS)[:, None]
        )
        cost = _SHIFT_COST * (shift / _MAX_SHIFT) ** 2 - np.cumsum(passed, axis=1)
        path = cheapest_path(cost.astype(np.float32), _SLOPE_COST, _MAX_SLOPE)
        found = gaussian_filter1d(shift[np.arange(_COLUMNS), path], _SMOOTH, mode="nearest")
        found *= np.clip(inward / _CORNERS, 0, 1)
        _move_lip(moved, across, (edge, outline), side * found)
    snapped = landmarks.copy()
    snapped[:VERTICES] = pose.apply(moved[None].astype(np.float32))[0]
    return snapped


def _color_test(
    colors: Callable[[F64], F64], lines: tuple[F64, F64, F64, F64]
) -> Callable[[F64], F64]:
    """A map from CIE Lab f64 [..., 3] to how far a color is from lips and skin, less how far it is
    from what lies between the lips, f64 [...].

    colors: CIE Lab f64 [columns, n, 3] at y f64 [columns, n]. lines: y f64 [columns] of outer upper
    lip, inner upper, inner lower and outer lower.
    """
    from scipy.cluster.vq import kmeans2

    high, above, below, low = lines
    middle = slice(len(high) // 6, -(len(high) // 6))

    def between(a: F64, b: F64, first: float, last: float) -> F64:
        return colors(a[:, None] + np.linspace(first, last, 12) * (b - a)[:, None])

    near, far = _SKIN
    bands = [between(high, above, 0.2, 0.6)[middle], between(low, below, 0.2, 0.6)[middle]]
    skin = [between(high - near, high - far, 0, 1), between(low + near, low + far, 0, 1)]
    gap = between(above, below, 0.04, 0.96)[below - above > _OPEN / 2]

    def clusters(sample: F64, count: int) -> F64:
        """f64 [count, 3]; fewer of a drawing, which has few colors."""
        own = sample.reshape(-1, 3)
        count = min(count, len(np.unique(own, axis=0)))
        found: F64 = kmeans2(own, count, minit="++", rng=np.random.default_rng(0))[0]
        return found

    lips = clusters(np.concatenate(bands), _LIP_COLORS)
    skins = clusters(np.concatenate(skin), _SKIN_COLORS)
    inner = clusters(gap, _INNER_COLORS)
    outer = np.concatenate([lips, skins])

    def unlike_lip(lab: F64) -> F64:
        to_lip, to_inner = (
            np.linalg.norm(lab[..., None, :] - known, axis=-1).min(-1) for known in (outer, inner)
        )
        return np.clip(to_lip - to_inner, -_SURE, _SURE)

    return unlike_lip


def _move_lip(moved: F64, across: F64, lines: tuple[F64, F64], shift: F64) -> None:
    """Shift one lip's vertices f64 [468, 3], in place: all of it at its edge, nothing at its
    outline; `lines` are those two, y f64 [columns]."""
    x, y = moved[:, 0], moved[:, 1]
    edge, outline = (np.interp(x, across, line) for line in lines)
    span = np.where(np.abs(edge - outline) < 1e-6, 1e-6, edge - outline)
    nearness = (y - outline) / span  # 0 at the outline, 1 at the edge
    own = (x > across[0]) & (x < across[-1]) & (nearness > 0) & (nearness < 1.001)
    moved[own, 1] += (np.interp(x, across, shift) * nearness)[own]
