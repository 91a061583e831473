"""Synthetic footage of a head with known geometry, pose, expression and pixels.

The head is the face model's mean with a smooth change of identity; its motion is a few sines, with
rest at either end. Landmarks are the projected vertices, so fits to them can be compared with the
truth. OpenCV paints the frames triangle by triangle, not the code under test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.draw import disk, ellipse, polygon
from skimage.measure import points_in_poly

from lipstream.calibration.media.video import FootageFrame
from lipstream.engine.face.model import (
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    LEFT_EYE,
    OUTER_LOWER_LIP,
    OUTER_UPPER_LIP,
    RIGHT_EYE,
    FaceModel,
    Pose,
    face_model,
)
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, U8

LANDMARKS = 478  # MediaPipe's 468, and five for each iris
_FRACTION = 4  # binary places of a pixel
SKIN = np.array([205, 160, 138], np.float32)
LIPS = np.array([176, 86, 88], np.float32)
TEETH = np.array([232, 226, 214], np.float32)
CAVITY = np.array([52, 20, 22], np.float32)
LEFT_EYE_RING = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
RIGHT_EYE_RING = (
    362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382,
)  # fmt: skip
BROWS = (
    (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
)


@dataclass(frozen=True)
class SyntheticFootage:
    """A moving head, with its ground truth."""

    model: FaceModel
    width: int  # px
    height: int  # px
    fps: Fraction
    geometry: F32  # f32 [468, 3], canonical, at rest
    expression: F32  # f32 [T, K]
    pose: Pose  # of T frames
    noise_px: float = 0.0  # standard deviation, of landmarks only
    seed: int = 0

    def __len__(self) -> int:
        """T."""
        return len(self.expression)

    @cached_property
    def free(self) -> F32:
        """Canonical vertices of each frame, f32 [T, 468, 3]."""
        return (self.geometry + self.model.displacement(self.expression)).astype(np.float32)

    @cached_property
    def exact(self) -> F32:
        """Projected vertices without noise, f32 [T, 468, 3], px."""
        return self.pose.apply(self.free)

    @cached_property
    def landmarks(self) -> F32:
        """Landmarks as a tracker gives them, with noise, f32 [T, 478, 3], px."""
        rng = np.random.default_rng(self.seed + 1)
        irises = []
        for corners, around in ((LEFT_EYE, LEFT_EYE_RING), (RIGHT_EYE, RIGHT_EYE_RING)):
            middle = self.exact[:, around].mean(axis=1, keepdims=True)
            reach = 0.22 * np.linalg.norm(
                self.exact[:, corners[0]] - self.exact[:, corners[1]], axis=1
            )
            ring = np.array([[0, 0, 0], [1, 0, 0], [0, -1, 0], [-1, 0, 0], [0, 1, 0]], np.float32)
            irises.append(middle + ring[None] * reach[:, None, None])
        points = np.concatenate([self.exact, *irises], axis=1)
        return (points + rng.normal(0, self.noise_px, points.shape)).astype(np.float32)

    @cached_property
    def opening(self) -> F32:
        """True gap between the inner lips, f32 [T], over the inter-ocular distance."""
        gap = np.linalg.norm(self.free[:, 13] - self.free[:, 14], axis=1)
        return gap.astype(np.float32)

    def track(self) -> Track:
        """The exact track, which calibration should recover."""
        from lipstream.calibration.footage.jump_graph import head_speed

        whole = np.ones(len(self), np.bool_)
        return Track(
            landmarks=self.exact,
            pose=self.pose,
            expression=self.expression,
            geometry=self.geometry,
            usable=whole,
            paintable=whole.copy(),
            head_speed=head_speed(self.exact, float(self.fps)),
        )

    def frame(self, index: int) -> U8:
        """A frame, u8 [h, w, 3], with teeth, lips and cavity at the vertices."""
        if index not in self._painted:
            self._painted[index] = _paint(self, index)
        return self._painted[index].copy()

    @cached_property
    def _painted(self) -> dict[int, U8]:
        return {}

    def frames(self) -> Iterator[FootageFrame]:
        """All frames, as `calibration.media.video` yields them."""
        from lipstream.kernels.color import rgb_to_i420

        for index in range(len(self)):
            rgb = self.frame(index)
            yield FootageFrame(index, rgb, rgb_to_i420(rgb), repeated=False)


def make_footage(  # noqa: PLR0913 - each is one property of the footage
    frames: int = 50,
    *,
    size: tuple[int, int] = (256, 256),
    fps: Fraction = Fraction(25),
    seed: int = 0,
    noise_px: float = 0.0,
    still: bool = False,
) -> SyntheticFootage:
    """A head that speaks and rests; equal arguments give equal footage.

    The first and the last eighth are at rest (expression 0, lips closed). `still` holds the head.
    """
    model = face_model()
    rng = np.random.default_rng(seed)
    width, height = size
    expression = speech_like(model, frames, float(fps), rng)
    yaw, pitch, roll = (
        np.zeros(frames) if still else _sway(rng, frames, float(fps), amplitude)
        for amplitude in (9.0, 6.0, 4.0)
    )
    unit = min(width, height)
    scale = np.full(frames, 0.27 * unit)
    place = np.tile([width / 2, height * 0.45, 0.0], (frames, 1))
    if not still:
        scale *= 1 + 0.03 * _sway(rng, frames, float(fps), 1.0)
        place[:, 0] += 0.02 * unit * _sway(rng, frames, float(fps), 1.0)
        place[:, 1] += 0.015 * unit * _sway(rng, frames, float(fps), 1.0)
    pose = Pose(
        scale.astype(np.float32),
        rotations(np.stack([yaw, pitch, roll], axis=1)),
        place.astype(np.float32),
    )
    return SyntheticFootage(
        model, width, height, fps, identity(model, rng), expression, pose, noise_px, seed
    )


def identity(model: FaceModel, rng: np.random.Generator) -> F32:
    """A neutral face f32 [468, 3]: the mean, stretched smoothly by up to 6 %."""
    mean = model.mean.astype(np.float64)
    x, y = mean[:, 0], mean[:, 1]
    a = rng.uniform(-0.06, 0.06, 5)
    changed = mean.copy()
    changed[:, 0] *= 1 + a[0] + a[1] * (y - 0.6)
    changed[:, 1] *= 1 + a[2]
    changed[:, 2] *= 1 + a[3] + a[4] * np.abs(x)
    eyes = [changed[list(e)].mean(axis=0) for e in (LEFT_EYE, RIGHT_EYE)]
    # Back to the definition: unit between the eyes, origin at their middle.
    changed = (changed - (eyes[0] + eyes[1]) / 2) / np.linalg.norm(eyes[1] - eyes[0])
    return changed.astype(np.float32)


def speech_like(model: FaceModel, frames: int, fps: float, rng: np.random.Generator) -> F32:
    """Expression f32 [T, K]: syllables that open and close, lips spread and rounded, and rest."""
    rows = model.lip_rows()
    # The smallest expression that moves opening alone, or width alone.
    basis = np.linalg.pinv(rows)
    time_s = np.arange(frames) / fps
    opening = 0.11 * np.maximum(0, np.sin(2 * np.pi * 3.1 * time_s + rng.uniform(0, 6)))
    opening += 0.06 * np.maximum(0, np.sin(2 * np.pi * 1.3 * time_s + rng.uniform(0, 6)))
    spread = 0.07 * np.sin(2 * np.pi * 0.9 * time_s + rng.uniform(0, 6))
    edge = np.clip(np.minimum(np.arange(frames), np.arange(frames)[::-1]) / (frames / 8) - 1, 0, 1)
    lips = np.stack([opening, spread, np.zeros(frames)], axis=1) * edge[:, None]
    return (lips @ basis.T).astype(np.float32)


def rotations(degrees: NDArray[np.float64]) -> F32:
    """f32 [T, 3, 3] from yaw, pitch, roll f64 [T, 3]; `Pose.angles_deg` reads the same back."""
    yaw, pitch, roll = np.radians(degrees).T
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)

    def stacked(*rows: tuple[NDArray[np.float64], ...]) -> NDArray[np.float64]:
        return np.stack([np.stack(row, axis=1) for row in rows], axis=1)

    turn = stacked(
        (np.cos(yaw), zero, np.sin(yaw)), (zero, one, zero), (-np.sin(yaw), zero, np.cos(yaw))
    )
    nod = stacked(
        (one, zero, zero),
        (zero, np.cos(pitch), -np.sin(pitch)),
        (zero, np.sin(pitch), np.cos(pitch)),
    )
    tilt = stacked(
        (np.cos(roll), -np.sin(roll), zero), (np.sin(roll), np.cos(roll), zero), (zero, zero, one)
    )
    return np.matmul(turn, np.matmul(nod, tilt)).astype(np.float32)


def _sway(
    rng: np.random.Generator, frames: int, fps: float, amplitude: float
) -> NDArray[np.float64]:
    time_s = np.arange(frames) / fps
    first, second = rng.uniform(0.2, 0.45), rng.uniform(0.5, 0.8)
    phases = rng.uniform(0, 2 * np.pi, 2)
    wave = 0.7 * np.sin(2 * np.pi * first * time_s + phases[0])
    wave += 0.3 * np.sin(2 * np.pi * second * time_s + phases[1])
    return amplitude * wave


def _paint(footage: SyntheticFootage, index: int) -> U8:
    zoom = 2  # painted at twice the size and averaged: soft edges
    shape = (footage.height * zoom, footage.width * zoom)
    image = _backdrop(shape, footage.seed).copy()
    vertices = footage.exact[index] * zoom
    _paint_body(image, vertices)
    _paint_skin(image, vertices, footage.model)
    _paint_eyes(image, vertices)
    _paint_mouth(image, vertices, footage, index, zoom)
    small = image.reshape(footage.height, zoom, footage.width, zoom, 3).mean(axis=(1, 3))
    grain = np.random.default_rng((footage.seed, index)).normal(0, 1.2, small.shape[:2])
    return np.clip(small + grain[..., None] + 0.5, 0, 255).astype(np.uint8)


@cache
def _backdrop(shape: tuple[int, int], seed: int) -> F32:
    """A wall with a smooth pattern, equal in every frame."""
    rng = np.random.default_rng(seed + 2)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / min(shape)
    a, b, c, d = rng.uniform(2, 9, 4)
    pattern = np.sin(a * x + b * y) + np.sin(c * x - d * y)
    colour = np.array([92, 112, 128], np.float32)
    return (colour + pattern[..., None] * np.array([9, 7, 11])).astype(np.float32)


def _fill(image: F32, points: NDArray[np.floating], colour: F32) -> None:
    fine = np.round(points * (1 << _FRACTION)).astype(np.int32)
    cv2.fillPoly(image, [fine], colour.tolist(), shift=_FRACTION)


def _paint_body(image: F32, vertices: F32) -> None:
    shape = image.shape[:2]
    iod = float(np.linalg.norm(vertices[133] - vertices[362])) * 2.0
    chin, brow = vertices[152], vertices[10]
    rows, columns = ellipse(chin[1] + 1.5 * iod, chin[0], 1.1 * iod, 1.6 * iod, shape=shape)
    image[rows, columns] = (66, 74, 96)
    neck = np.array([[-0.42, -0.5], [0.42, -0.5], [0.5, 0.6], [-0.5, 0.6]]) * iod + chin[:2]
    _fill(image, neck, SKIN * 0.78)
    middle = (chin + brow) / 2
    rows, columns = ellipse(middle[1] - 0.35 * iod, middle[0], 1.25 * iod, 1.0 * iod, shape=shape)
    image[rows, columns] = (58, 42, 36)


def _paint_skin(image: F32, vertices: F32, model: FaceModel) -> None:
    """Triangles from back to front, lit from above on the left."""
    outline = model.mean[list(OUTER_UPPER_LIP + OUTER_LOWER_LIP[::-1]), :2]
    on_lips = points_in_poly(model.mean[model.triangles][:, :, :2].mean(axis=1), outline)
    corners = vertices[model.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    normals *= np.where(normals[:, 2:] > 0, -1, 1)  # towards the camera, which is at smaller z
    light = np.array([-0.35, -0.5, -0.79])
    shade = 0.62 + 0.42 * np.maximum(0, normals @ light)
    colours = np.where(on_lips[:, None], LIPS, SKIN) * shade[:, None]
    # Slightly enlarged, so that no gaps remain between neighbours.
    middles = corners[:, :, :2].mean(axis=1, keepdims=True)
    grown = middles + (corners[:, :, :2] - middles) * 1.12
    gap = np.isin(model.triangles, INNER_UPPER_LIP + INNER_LOWER_LIP).all(axis=1)
    for k in np.argsort(-corners[:, :, 2].mean(axis=1)):
        if not gap[k]:
            _fill(image, grown[k], colours[k])


def _paint_eyes(image: F32, vertices: F32) -> None:
    for ring in (LEFT_EYE_RING, RIGHT_EYE_RING):
        outline = vertices[list(ring), :2]
        _fill(image, outline, np.array([236, 234, 230], np.float32))
        middle = outline.mean(axis=0)
        radius = 0.21 * float(np.ptp(outline[:, 0]))
        inside = np.zeros(image.shape[:2], np.bool_)
        inside[polygon(outline[:, 1], outline[:, 0], image.shape[:2])] = True
        for size, colour in ((radius, (78, 58, 44)), (radius * 0.5, (18, 16, 16))):
            rows, columns = disk((middle[1], middle[0]), max(1.0, size), shape=image.shape[:2])
            seen = inside[rows, columns]
            image[rows[seen], columns[seen]] = colour
    for brow in BROWS:
        _fill(image, vertices[list(brow), :2], np.array([64, 46, 38], np.float32))


def _paint_mouth(
    image: F32, vertices: F32, footage: SyntheticFootage, index: int, zoom: int
) -> None:
    """The cavity inside the inner lips; upper teeth move with the head, lower ones with the jaw."""
    gap = vertices[list(INNER_UPPER_LIP + INNER_LOWER_LIP[::-1]), :2]
    inside = np.zeros(image.shape[:2], np.bool_)
    inside[polygon(gap[:, 1], gap[:, 0], image.shape[:2])] = True
    if not inside.any():
        return
    image[inside] = CAVITY
    rest = footage.geometry
    jaw = footage.free[index, 152] - rest[152]
    for ring, moved, side in ((INNER_UPPER_LIP, np.zeros(3), 1.0), (INNER_LOWER_LIP, jaw, -1.0)):
        edge = rest[list(ring)[2:-2]] + moved + np.array([0, -0.012 * side, 0.05])
        tip = edge + np.array([0, 0.055 * side, 0])
        outline = np.concatenate([edge, tip[::-1]])
        pose = footage.pose
        placed = outline @ pose.rotation[index].T * pose.scale[index] + pose.translation[index]
        points = placed[:, :2] * zoom
        teeth = np.zeros_like(inside)
        teeth[polygon(points[:, 1], points[:, 0], image.shape[:2])] = True
        image[teeth & inside] = TEETH if side > 0 else TEETH * 0.86
