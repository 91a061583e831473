"""Training pairs for the renderer: a mouth as the engine paints it, and as the camera saw it.

A frame gives background, pose and expression; another frame of the same person, at another time or
in another clip, gives the mouth. What the compositor makes of the two is the input, the frame
itself is the ground truth (`person.reenactment`). The appearance prior, predicted without the
frame's exclusion window, is part of the input. Two neighbouring frames make one example, because
the renderer also sees its own previous output.

Few people may be trained on, so faces are varied: bent, stretched, mirrored, with other skin tones,
light and sharpness, and with light that does not match between lips and skin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lipstream.calibration.person.reenactment import Reenactment
from lipstream.engine.networks.signatures import CROP_SHAPE
from lipstream.engine.rendering.layers import Layers
from lipstream.engine.target.bundle import Target
from lipstream.engine.target.sources import MouthSource
from lipstream.engine.types import F32, U8
from lipstream.kernels.composite import blend
from lipstream.kernels.crop import prior_weight
from lipstream.kernels.mesh import remap

MIN_SEPARATION_FRAMES: Final = 6  # nearer in time, a source would be the ground truth itself
_CANDIDATES: Final = 32
_NEAREST: Final = 0.8  # fraction of examples whose source is the nearest of the candidates
_OTHER_CLIP: Final = 0.25
_TWO_SOURCES: Final = 0.2
_WITHOUT_PRIOR: Final = 0.15  # fraction of examples without an appearance prior, as in a photo
_BEND_PX: Final = 7.0


@dataclass(frozen=True, slots=True)
class Example:
    """Two neighbouring frames of one face."""

    seen: U8  # u8 [2, h, w, 9]: painted crop, conditioning maps, prior; h, w: `CROP_SHAPE`
    truth: U8  # u8 [2, h, w, 3]


class Person:
    """The calibrated clips of one person, as a source of examples.

    Of a clip, only the frames in `span` (first, end) are used; without `varied`, faces stay as
    they are.
    """

    def __init__(
        self,
        name: str,
        clips: Sequence[Target],
        span: tuple[int, int] | None = None,
        *,
        varied: bool = True,
    ) -> None:
        self.name = name
        self._varied = varied
        self._reenactment = Reenactment(clips, span)

    @property
    def pairs(self) -> int:
        """Pairs of neighbouring frames that examples are drawn from."""
        return self._reenactment.pairs

    def example(self, rng: np.random.Generator) -> Example:
        """Two frames, one source (or two that are crossfaded), one variation of both."""
        clip, frame = self._reenactment.draw_frame(rng)
        sources = self._sources(clip, frame, rng)
        variation = Variation.draw(rng) if self._varied else Variation.none()
        seen, truth = [], []
        has_prior = rng.random() >= _WITHOUT_PRIOR
        for index in (frame - 1, frame):
            layers, real = self._reenactment.paint(clip, index, sources, has_prior=has_prior)
            one, other = variation.apply(layers, real)
            seen.append(one)
            truth.append(other)
        return Example(np.stack(seen), np.stack(truth))

    def _sources(
        self, clip: int, frame: int, rng: np.random.Generator
    ) -> list[tuple[MouthSource, float]]:
        count = 2 if rng.random() < _TWO_SOURCES else 1
        weights = [1.0] if count == 1 else [float(w) for w in rng.dirichlet((1, 1))]
        return [(self._source(clip, frame, rng), weight) for weight in weights]

    def _source(self, clip: int, frame: int, rng: np.random.Generator) -> MouthSource:
        clips, source_clip = self._reenactment, clip
        if len(clips.clips) > 1 and rng.random() < _OTHER_CLIP:
            source_clip = int(rng.choice(len(clips.clips), p=clips.clip_weights))
        frames = clips.frames[source_clip]
        if source_clip == clip:
            frames = frames[np.abs(frames - frame) >= MIN_SEPARATION_FRAMES]
        candidates = rng.choice(frames, min(_CANDIDATES, len(frames)), replace=False)
        chosen = int(candidates[0])
        if rng.random() < _NEAREST:
            chosen = clips.nearest(clip, frame, source_clip, candidates)
        return clips.cut(source_clip, chosen)


@dataclass(frozen=True, slots=True)
class Variation:
    """One change of face, skin, light and lens, the same for all pictures of an example."""

    bend: F32  # f32 [h, w, 2], px of the crop
    mixing: F32  # f32 [3, 3], of colors
    gamma: F32  # f32 [3]
    gain: F32  # f32 [3]
    blur_px: float
    # f32 [2, 3, 3], levels by (1, x, y) and color channel: how the light of the lips, and of the
    # appearance prior, differs from that of the skin
    tilt: F32

    @classmethod
    def none(cls) -> Variation:
        """The face as it is."""
        bend = np.zeros((*CROP_SHAPE, 2), np.float32)
        one, off = np.ones(3, np.float32), np.zeros((2, 3, 3), np.float32)
        return cls(bend, np.eye(3, dtype=np.float32), one, one, 0.0, off)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Variation:
        """A random one; most of its changes are mild."""
        hue = rng.normal(0, 0.05, (3, 3)) + np.eye(3)
        grey = rng.uniform(0, 0.5) if rng.random() < 0.3 else 0.0
        mixing = (1 - grey) * hue + grey * np.array([0.3, 0.59, 0.11])
        tilted = rng.random() < 0.6
        return cls(
            _bend(rng),
            (mixing / mixing.sum(1, keepdims=True)).astype(np.float32),
            np.exp(rng.normal(0, 0.25) + rng.normal(0, 0.06, 3)).astype(np.float32),
            np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.06, 3)).astype(np.float32),
            float(rng.uniform(0.4, 2.0)) if rng.random() < 0.35 else 0.0,
            np.stack([tilted * size * _light(rng) for size in (1.0, 0.5)]).astype(np.float32),
        )

    def apply(self, layers: Layers, real: U8) -> tuple[U8, U8]:
        """Varied crops: u8 [h, w, 9] of the painted layers and u8 [h, w, 3] of the real patch."""
        crop = layers.crop
        assert crop is not None, "the layers are guided"
        bent = (crop.inward() + self.bend * np.float32(crop.step)).astype(np.float32)
        together = np.concatenate([layers.painted, layers.conditioning, real], axis=2)
        stack = remap(np.ascontiguousarray(together), bent)
        lips, conditioning = stack[..., :3], stack[..., 3:6]
        prior = lips
        if layers.prior is not None:
            size = np.array(layers.prior.shape[1::-1]) / real.shape[1::-1]
            layer = remap(layers.prior, (bent * size).astype(np.float32))
            prior = blend(
                np.ascontiguousarray(lips), layer, np.ascontiguousarray(conditioning[..., 0])
            )
            shown = prior_weight(conditioning[..., 2], layers.confidence)[..., None]
            change: F32 = shown * (prior.astype(np.float32) - lips)
            prior = _bytes(lips + change)
        pictures = [self._recolored(one) for one in (lips, prior, stack[..., 6:])]
        opacity = conditioning[..., :1].astype(np.float32) / 255
        down, across = (np.linspace(-1, 1, n, dtype=np.float32) for n in CROP_SHAPE)
        for one, tilt in zip(pictures, self.tilt, strict=False):
            light = tilt[0] + across[:, None] * tilt[1] + down[:, None, None] * tilt[2]
            one += opacity * light * (one / 128)
        if layers.prior is None:
            pictures[1] = pictures[0]
        if self.blur_px:
            spread = (self.blur_px, self.blur_px, 0)
            pictures = [gaussian_filter(one, spread) for one in pictures]
        painted, other, truth = (_bytes(one) for one in pictures)
        return np.concatenate([painted, conditioning, other], axis=2), truth

    def _recolored(self, picture: U8) -> F32:
        values = (picture.astype(np.float32) / 255) @ self.mixing.T
        lit = np.float32(255) * self.gain * np.clip(values, 1e-4, 1) ** self.gamma
        return lit.astype(np.float32)


def _bend(rng: np.random.Generator) -> F32:
    """Random displacement of the crop f32 [h, w, 2], px: another face shape, or a tilted head."""
    height, width = CROP_SHAPE
    y, x = np.mgrid[:height, :width].astype(np.float32) + np.float32(0.5)
    y, x = y - np.float32(height / 2), x - np.float32(width / 2)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    angle, size = rng.normal(0, 0.12), np.exp(rng.normal(0, 0.1))
    stretch = np.exp(rng.normal(0, 0.08))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * size
    turn = turn @ np.diag([mirror * stretch, 1 / stretch])
    shift = rng.normal(0, 5, 2)
    moved = np.stack([x, y], -1) @ turn.T + shift
    coarse = rng.normal(0, _BEND_PX / 2, (5, 5, 2)).astype(np.float32)
    return (moved - np.stack([x, y], -1) + _smooth(coarse)).astype(np.float32)


def _smooth(coarse: F32) -> F32:
    """Cubic-like interpolation of a coarse grid f32 [5, 5, 2] over the crop."""
    grid = np.arange(5, dtype=np.float32)
    weights = []
    for n in CROP_SHAPE:
        at = np.linspace(0, 4, n, dtype=np.float32)
        weight = np.exp(-((at[:, None] - grid) ** 2) / 0.8)
        weights.append(weight / weight.sum(1, keepdims=True))
    rows = np.einsum("ng,ghc->nhc", weights[0], coarse)
    return np.einsum("mh,nhc->nmc", weights[1], rows)


def _light(rng: np.random.Generator) -> NDArray[np.float64]:
    """Random light in levels, f64 [3, 3]: by (1, x, y) and color channel."""
    return rng.normal(0, 1, (3, 1)) * [[5], [6], [6]] * rng.normal(1, 0.2, (3, 3))


def _bytes(values: F32) -> U8:
    return np.clip(values + np.float32(0.5), 0, 255).astype(np.uint8)


def as_crops(examples: Sequence[Example]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Examples as one batch: seen u8 [B, 2, 9, h, w], truth u8 [B, 2, 3, h, w]."""
    seen = np.stack([e.seen for e in examples]).transpose(0, 1, 4, 2, 3)
    truth = np.stack([e.truth for e in examples]).transpose(0, 1, 4, 2, 3)
    return np.ascontiguousarray(seen), np.ascontiguousarray(truth)
