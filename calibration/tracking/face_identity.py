"""Describes a face so that two people can be told apart, whatever they say and however they stand.

Three descriptors, each independent of light or nearly so: the shape of the head without pose and
expression, histograms of oriented gradients (Dalal and Triggs 2005), and histograms of uniform
local binary patterns (Ahonen, Hadid and Pietikäinen 2006) of the upright face. The sum of their
distances is at most 0.95 between two parts of one clip, and at least 1.09 between two people
(docs/calibration.md).
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.face.model import LEFT_EYE, RIGHT_EYE, face_model
from lipstream.engine.types import F32, U8

SAME_PERSON: Final = 1.02  # largest distance within one person

_SIDE_PX: Final = 112
_WIDTH_IOD: Final = 2.8  # of the upright face
_CENTRE_IOD: Final = 0.45  # below the eyes
_CELLS: Final = 6
_PATTERNS: Final = 59  # 58 uniform patterns, and one for all others
# Vertices of forehead, nose, eyes' corners and cheekbones, which speech does not move.
_RIGID: Final = (168, 6, 197, 195, 5, 4, 1, 33, 133, 362, 263, 10, 151, 9, 8, 107, 336, 70, 300,
                 127, 356, 234, 454, 2, 98, 327, 117, 346, 50, 280)  # fmt: skip
_SHAPE: Final = slice(0, 468 * 3)
_GRADIENTS: Final = slice(_SHAPE.stop, _SHAPE.stop + 900)
_TEXTURE: Final = slice(_GRADIENTS.stop, _GRADIENTS.stop + _CELLS * _CELLS * _PATTERNS)
# What each distance is between most pairs of two people (shape: root mean square over vertices).
_USUAL_SHAPE: Final = 0.037
_USUAL_GRADIENTS: Final = 0.1
_USUAL_TEXTURE: Final = 4.0
_WEIGHT: Final = 0.3  # of shape and gradients, which tell less than texture


def describe(rgb: U8, landmarks: F32) -> NDArray[np.float16]:
    """The face at landmarks f32 [478, 3] px in u8 [h, w, 3], f16 [4428]."""
    import cv2

    grey = cv2.cvtColor(_upright(rgb, landmarks), cv2.COLOR_RGB2GRAY)
    inner = np.ascontiguousarray(grey[8:104, 8:104])
    gradients = cv2.HOGDescriptor((96, 96), (32, 32), (16, 16), (16, 16), 9).compute(inner)
    parts = (_shape(landmarks), np.ravel(gradients), _texture(grey))
    return np.concatenate(parts).astype(np.float16)


def distance(one: F32, other: F32) -> float:
    """Between two means of descriptors, f32 [4428]; above `SAME_PERSON` they are two people."""
    apart = one - other
    shape = float(np.linalg.norm(apart[_SHAPE])) / 468**0.5
    texture = float(np.linalg.norm(apart[_TEXTURE]))
    a, b = one[_GRADIENTS], other[_GRADIENTS]
    gradients = 1.0 - float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-6)
    return (
        _WEIGHT * shape / _USUAL_SHAPE
        + _WEIGHT * gradients / _USUAL_GRADIENTS
        + texture / _USUAL_TEXTURE
    )


def _upright(rgb: U8, landmarks: F32) -> U8:
    import cv2

    left = landmarks[list(LEFT_EYE), :2].mean(axis=0)
    right = landmarks[list(RIGHT_EYE), :2].mean(axis=0)
    iod = max(float(np.linalg.norm(right - left)), 1e-3)
    across = (right - left) / iod
    down = np.array([-across[1], across[0]])
    scale = _SIDE_PX / (_WIDTH_IOD * iod)
    turn = np.stack([across, down]) * scale
    shift = _SIDE_PX / 2 - turn @ ((left + right) / 2 + down * (_CENTRE_IOD * iod))
    if scale < 0.6:  # or sampling would alias
        reach = _WIDTH_IOD * iod
        x0, y0 = np.maximum((left + right) / 2 - reach, 0).astype(int)
        x1, y1 = ((left + right) / 2 + reach).astype(int)
        part = np.ascontiguousarray(rgb[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])
        if part.size:
            size = round(1 / scale)
            rgb = cv2.blur(part, (size, size)).astype(np.uint8)
            shift = shift + turn @ np.array([x0, y0])
    out = cv2.warpAffine(
        rgb,
        np.concatenate([turn, shift[:, None]], axis=1),
        (_SIDE_PX, _SIDE_PX),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(out, np.uint8)


@cache
def _expressions() -> NDArray[np.float64]:
    """Orthonormal directions of expression, f64 [1404, K]."""
    basis = face_model().basis
    return np.linalg.qr(basis.reshape(basis.shape[0], -1).T.astype(np.float64))[0]


def _shape(landmarks: F32) -> NDArray[np.float64]:
    """Vertices minus those of the mean face, without pose, size and expression, f64 [1404]."""
    mean, rigid = face_model().mean.astype(np.float64), list(_RIGID)
    points = landmarks[:468].astype(np.float64)
    middle, mean_middle = points[rigid].mean(axis=0), mean[rigid].mean(axis=0)
    centred = points[rigid] - middle
    # Least squares of rotation and scale (Umeyama 1991).
    u, sizes, v = np.linalg.svd(centred.T @ (mean[rigid] - mean_middle))
    proper = np.array([1.0, 1.0, np.sign(np.linalg.det(v.T @ u.T))])
    scale = float((sizes * proper).sum() / (centred**2).sum())
    placed = scale * (points - middle) @ (v.T * proper @ u.T).T + mean_middle
    rest = (placed - mean).ravel()
    directions = _expressions()
    free: NDArray[np.float64] = rest - directions @ (directions.T @ rest)
    return free


@cache
def _uniform_patterns() -> NDArray[np.int64]:
    """Index of each 8-bit pattern, i64 [256]: those with at most two changes have their own."""
    patterns = np.arange(256)
    turned = patterns ^ ((patterns >> 1) | ((patterns & 1) << 7))
    uniform = np.array([int(value).bit_count() <= 2 for value in turned])
    return np.where(uniform, np.cumsum(uniform) - 1, _PATTERNS - 1)


def _texture(grey: U8) -> F32:
    """Square roots of histograms of patterns in 6 × 6 cells, f32 [2124] (so that their Euclidean
    distance is Hellinger's)."""
    import cv2

    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0).astype(np.int16)
    centre = smooth[1:-1, 1:-1]
    height, width = centre.shape
    pattern = np.zeros(centre.shape, np.uint8)
    around = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
    for bit, (y, x) in enumerate(around):
        higher = smooth[y : y + height, x : x + width] >= centre + 1
        pattern |= (higher << bit).astype(np.uint8)
    kinds = _uniform_patterns()[pattern][6:96, 8:102]
    cells = [
        np.bincount(cell.ravel(), minlength=_PATTERNS) / cell.size
        for row in np.array_split(kinds, _CELLS, axis=0)
        for cell in np.array_split(row, _CELLS, axis=1)
    ]
    return np.sqrt(np.concatenate(cells)).astype(np.float32)
