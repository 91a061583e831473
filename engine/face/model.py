"""The face: vertices = pose ∘ (geometry + basis · expression).

468 vertices in MediaPipe's order. The canonical face is neutral and frontal, image-aligned
(x right, y down, z away from the camera), its unit the inter-ocular distance and its origin the
midpoint of the eyes. The camera is weak-perspective: one scale a frame. Reconstructed after
*Everybody's Talkin'* (arXiv 2001.05201, §III-A), which fits a 3D morphable model; ours learns its
expression basis from tracked speech instead (calibration/training/face_basis.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.types import F32, I32, Lips

VERTICES = 468
LEFT_EYE = (33, 133)  # corners of the eye on the image's left
RIGHT_EYE = (362, 263)
INNER_UPPER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)  # image left to right
INNER_LOWER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
OUTER_UPPER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
OUTER_LOWER_LIP = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
LIP_MIDDLES_AND_CORNERS = (13, 14, 0, 17, 61, 291)  # six vertices that describe a mouth's shape
CHIN = 152
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pose:
    """Weak-perspective pose of many frames: image = scale · R · vertex + translation."""

    scale: F32  # f32 [frames], px per inter-ocular distance
    rotation: F32  # f32 [frames, 3, 3]
    translation: F32  # f32 [frames, 3], px

    def apply(self, vertices: F32) -> F32:
        """Canonical f32 [frames, V, 3] (or [V, 3]) into the image, px."""
        moved = np.matmul(vertices, self.rotation.transpose(0, 2, 1))
        placed: F32 = (moved * self.scale[:, None, None] + self.translation[:, None]).astype(
            np.float32
        )
        return placed

    def remove(self, landmarks: F32) -> F32:
        """Image px f32 [frames, V, 3] back to the canonical face."""
        centred = (landmarks - self.translation[:, None]) / self.scale[:, None, None]
        canonical_vertices: F32 = np.matmul(centred, self.rotation).astype(np.float32)
        return canonical_vertices

    def angles_deg(self) -> F32:
        """Yaw, pitch, roll as f32 [frames, 3], degrees."""
        r = self.rotation
        yaw = np.arctan2(r[:, 0, 2], r[:, 2, 2])
        pitch = np.arcsin(np.clip(-r[:, 1, 2], -1, 1))
        roll = np.arctan2(r[:, 1, 0], r[:, 1, 1])
        return np.degrees(np.stack([yaw, pitch, roll], 1)).astype(np.float32)


def fit_pose(landmarks: F32, shape: F32, rigid: NDArray[np.int64]) -> Pose:
    """Least-squares similarity from `shape` f32 [468, 3] onto landmarks f32 [frames, ≥468, 3].

    Only the vertices `rigid`, which speech does not move, take part. Source: Umeyama 1991.
    """
    target = landmarks[:, rigid].astype(np.float64)
    model = shape[rigid].astype(np.float64)
    model_mean, target_mean = model.mean(0), target.mean(1)
    model_centred = model - model_mean
    target_centred = target - target_mean[:, None]
    covariance = np.einsum("tni,nj->tij", target_centred, model_centred) / len(rigid)
    u, d, vt = np.linalg.svd(covariance)
    sign = np.ones_like(d)
    sign[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = np.matmul(u * sign[:, None, :], vt)
    scale = (d * sign).sum(1) / model_centred.var(0).sum()
    translation = target_mean - scale[:, None] * np.einsum("tij,j->ti", rotation, model_mean)
    return Pose(
        scale.astype(np.float32), rotation.astype(np.float32), translation.astype(np.float32)
    )


@dataclass(frozen=True, slots=True)
class FaceModel:
    """The universal part: mean face, mesh, expression basis, and linear maps from expressions."""

    mean: F32  # f32 [468, 3], inter-ocular distances
    basis: F32  # f32 [K, 468, 3], orthonormal under the mouth's weighting
    spread: F32  # f32 [K], standard deviation of each coefficient in speech
    triangles: I32  # i32 [898, 3]
    rigid: NDArray[np.int64]  # i64 [R], vertices that speech does not move
    weight: F32  # f32 [468], how much each vertex counts in an expression fit
    arkit: F32  # f32 [52, K+1], map to ARKit weights, last column the negative thresholds
    from_arkit: F32  # f32 [K, 53], ridge map from MediaPipe's weights, last column the constant

    @property
    def size(self) -> int:
        """K, the number of coefficients."""
        return int(self.basis.shape[0])

    def displacement(self, coefficients: F32) -> F32:
        """Expression f32 [..., K] to vertex motion f32 [..., 468, 3]."""
        moved: F32 = np.tensordot(coefficients, self.basis, axes=1).astype(np.float32)
        return moved

    def encode(self, motion: F32) -> F32:
        """Vertex motion f32 [frames, 468, 3] to the nearest expression f32 [frames, K]."""
        flat = (motion * self.weight[:, None]).reshape(len(motion), -1)
        weighted = (self.basis * self.weight[:, None]).reshape(self.size, -1)
        fitted: F32 = np.linalg.lstsq(weighted.T, flat.T, rcond=None)[0].T.astype(np.float32)
        return fitted

    def opener(self) -> F32:
        """The most probable expression that opens the lips by an inter-ocular distance, f32 [K]."""
        opening = self.lip_rows()[0]
        wider = opening * self.spread**2
        wider /= opening @ wider
        return wider

    def lip_rows(self) -> F32:
        """The linear maps from an expression to opening, width and protrusion, f32 [3, K]."""
        e = self.basis
        opening = e[:, 14, 1] - e[:, 13, 1]
        width = e[:, 291, 0] - e[:, 61, 0]
        protrusion = -e[:, (0, 17, 13, 14), 2].mean(1)
        return np.stack([opening, width, protrusion]).astype(np.float32)

    def lip_motion(self) -> F32:
        """How far each coefficient moves the lips: squared, f32 [K]."""
        moved: F32 = (self.basis[:, LIP_MIDDLES_AND_CORNERS] ** 2).sum((1, 2)).astype(np.float32)
        return moved

    def rest_width(self) -> float:
        """Mouth width of the mean face at rest, inter-ocular distances."""
        return float(self.mean[291, 0] - self.mean[61, 0])

    def lips(self, coefficients: F32) -> Lips:
        """Opening, width and protrusion of one expression f32 [K].

        The opening is a gap: where the linear map is below zero, lips are pressed and it is 0.
        """
        opening, width, protrusion = (self.lip_rows() @ coefficients).tolist()
        return Lips(max(0.0, opening), self.rest_width() + width, protrusion)

    def arkit_weights(self, coefficients: F32) -> F32:
        """ARKit blendshape weights in [0, 1], f32 [..., 52], in the order of `ARKIT_NAMES`.

        They are relative to rest: an expression of 0 has weights of 0. Only those of jaw and mouth
        move.
        """
        linear = coefficients @ self.arkit[:, :-1].T + self.arkit[:, -1]
        clipped: F32 = np.clip(linear, 0.0, 1.0).astype(np.float32)
        return clipped


@cache
def face_model() -> FaceModel:
    """The model that ships with the package (74 kB), read once; its arrays are read-only."""
    from safetensors.numpy import load

    data = load(files("lipstream.engine.weights").joinpath("face_model.safetensors").read_bytes())
    triangles, rigid = (data.pop(name) for name in ("triangles", "rigid"))
    tables = {name: array.astype(np.float32) for name, array in data.items()}
    model = FaceModel(triangles=triangles.astype(np.int32), rigid=rigid.astype(np.int64), **tables)
    for name in FaceModel.__slots__:
        getattr(model, name).setflags(write=False)
    return model
