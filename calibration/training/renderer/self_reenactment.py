"""Pairs for the renderer: a mouth as the engine would paint it, and as the camera saw it.

A frame lends its background, pose and expression; another frame of the same person, from another
moment or another clip, lends the mouth. What the compositor makes of the two is the input, the
frame itself is the truth. The background's own mouth never reaches the input: the lip layer covers
it. Beside it lies what the clip's other moments let expect. Two neighbouring frames make one
example, because the network sees its own last output.

Few people may be trained on, so faces are varied: bent, stretched, mirrored, in other skin tones,
light and sharpness, and with light that does not match between lips and skin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lipstream.calibration.footage.sources import cut_source
from lipstream.calibration.person.leave_one_out import EXCLUSION_WINDOW_S, LeaveOneOutPredictor
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import face_model
from lipstream.engine.networks.signatures import CROP_SHAPE
from lipstream.engine.rendering.compositor import Compositor
from lipstream.engine.rendering.layers import Layers, WantedMouth
from lipstream.engine.retrieval.source_selector import SourceCosts
from lipstream.engine.target.bundle import Target, mouth_sources
from lipstream.engine.target.frames import FrameDecoder
from lipstream.engine.target.sources import MouthSource, SourceWeights
from lipstream.engine.types import F32, U8
from lipstream.kernels import color
from lipstream.kernels.composite import blend
from lipstream.kernels.crop import prior_weight
from lipstream.kernels.mesh import remap

APART_FRAMES: Final = 6  # nearer in time, a source would be the truth itself
_CANDIDATES = 32
_NEAREST = 0.8  # share of examples whose source is the nearest of the candidates in expression
_OTHER_CLIP = 0.25
_TWO_SOURCES = 0.2
_UNEXPECTED = 0.15  # share of examples without an appearance, as in a photo
_BEND_PX = 7.0
_COSTS: Final = SourceCosts()


@dataclass(frozen=True, slots=True)
class Example:
    """Two neighbouring frames of one face."""

    seen: U8  # u8 [2, h, w, 9], painted crop, guides, expected; h, w: `renderer.CROP_SHAPE`
    truth: U8  # u8 [2, h, w, 3]


class Person:
    """The calibrated clips of one person.

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
        self._clips = list(clips)
        self._decoders: dict[int, FrameDecoder] = {}  # made in the process that uses them
        self._mesh = build_mesh(face_model())
        self._compositors = [Compositor(self._mesh, clip.style.mouth) for clip in clips]
        self._alike = [mouth_sources(clip).similarity for clip in clips]
        self._elsewhen: dict[int, LeaveOneOutPredictor] = {}
        self._lenders = [_good_frames(clip, None) for clip in clips]
        self._good = [_good_frames(clip, span) for clip in clips]
        self._pairs = [frame_offset[1:][np.diff(frame_offset) == 1] for frame_offset in self._good]
        self.pairs = sum(len(pairs) for pairs in self._pairs)
        lengths = zip(self._lenders, clips, strict=True)
        self.seconds = min(float(len(frame_offset) / clip.fps) for frame_offset, clip in lengths)
        self._share = np.array([len(pairs) for pairs in self._pairs]) / max(self.pairs, 1)

    def example(self, rng: np.random.Generator) -> Example:
        """Two frames, one source (or two that fade), one variation of it all."""
        at, frame = self._drawn(rng)
        sources = self._sources(at, frame, rng)
        variation = Variation.draw(rng) if self._varied else Variation.none()
        seen, truth = [], []
        told = rng.random() >= _UNEXPECTED
        for index in (frame - 1, frame):
            one, other = variation.apply(*self._painted(at, index, sources, told))
            seen.append(one)
            truth.append(other)
        return Example(np.stack(seen), np.stack(truth))

    def painted(self, rng: np.random.Generator) -> tuple[Layers, U8]:
        """One frame of the span: the mouth of the clip's likest other moment laid on it, as the
        engine would, and the real patch u8 [h, w, 3]."""
        at, frame = self._drawn(rng)
        apart = math.ceil(EXCLUSION_WINDOW_S * self._clips[at].fps)
        others = self._lenders[at][np.abs(self._lenders[at] - frame) >= apart]
        likest = self._cut(at, self._likest(at, frame, at, others))
        return self._painted(at, frame, [(likest, 1.0)], told=True)

    def _drawn(self, rng: np.random.Generator) -> tuple[int, int]:
        at = int(rng.choice(len(self._clips), p=self._share))
        return at, int(rng.choice(self._pairs[at]))

    def _painted(
        self, at: int, frame: int, sources: SourceWeights, told: bool
    ) -> tuple[Layers, U8]:
        """told: whether there is something expected."""
        track, picture = self._clips[at].track, self._read(at, frame)
        expression = track.expression[frame]
        known = self._known(at)
        prior = None
        if told:
            prior = known.picture(known.predict(frame, expression), expression)
        compositor, placement = self._compositors[at], track.placement(frame)
        wanted = WantedMouth(placement, expression, sources, prior)
        layers = compositor.layers(picture, wanted, compositor.crop(placement))
        assert layers is not None, "a usable frame has its face inside the picture"
        return layers, color.i420_region_to_rgb(picture, *layers.box)

    def _known(self, at: int) -> LeaveOneOutPredictor:
        if at not in self._elsewhen:
            self._elsewhen[at] = LeaveOneOutPredictor(self._clips[at], self._mesh)
        return self._elsewhen[at]

    def _read(self, clip: int, frame: int) -> U8:
        if clip not in self._decoders:
            self._decoders[clip] = self._clips[clip].frames.decoder()
        return self._decoders[clip].read(frame)

    def _sources(
        self, at: int, frame: int, rng: np.random.Generator
    ) -> list[tuple[MouthSource, float]]:
        count = 2 if rng.random() < _TWO_SOURCES else 1
        weights = [1.0] if count == 1 else [float(s) for s in rng.dirichlet((1, 1))]
        return [(self._source(at, frame, rng), share) for share in weights]

    def _source(self, at: int, frame: int, rng: np.random.Generator) -> MouthSource:
        clip = at
        if len(self._clips) > 1 and rng.random() < _OTHER_CLIP:
            clip = int(rng.choice(len(self._clips), p=self._share))
        frame_offset = self._good[clip]
        if clip == at:
            frame_offset = frame_offset[np.abs(frame_offset - frame) >= APART_FRAMES]
        candidates = rng.choice(frame_offset, min(_CANDIDATES, len(frame_offset)), replace=False)
        chosen = int(candidates[0])
        if rng.random() < _NEAREST:
            chosen = self._likest(at, frame, clip, candidates)
        return self._cut(clip, chosen)

    def _likest(self, at: int, frame: int, clip: int, lenders: NDArray[np.int64]) -> int:
        """Of these frames of `clip`, the one whose mouth is likest to that of a frame of `at`, as
        the engine counts it."""
        similarity, wanted = self._alike[clip], self._clips[at].track.expression[frame]
        apart = (self._clips[clip].track.expression[lenders] - wanted) @ similarity.projection.T
        looks = None
        if clip == at:
            apart = apart + similarity.frame_offset[lenders] - similarity.frame_offset[frame]
            known = self._known(at)
            looks = known.unlike(known.predict(frame, wanted), lenders)
        unlike = (apart**2).sum(1)
        if looks is not None:
            unlike = _COSTS.features * unlike + _COSTS.texture * looks
        return int(lenders[unlike.argmin()])

    def _cut(self, clip: int, frame: int) -> MouthSource:
        rgb = color.i420_to_rgb(self._read(clip, frame))
        return cut_source(rgb, self._clips[clip].track.placement(frame), self._mesh)


@dataclass(frozen=True, slots=True)
class Variation:
    """One change of face, skin, light and lens, the same for all pictures of an example."""

    bend: F32  # f32 [h, w, 2], px of the crop
    mixing: F32  # f32 [3, 3], of colours
    gamma: F32  # f32 [3]
    gain: F32  # f32 [3]
    blur_px: float
    # f32 [2, 3, 3], levels: light of the lips and of what is expected off that of the skin, as 1,
    # x, y by colour
    tilt: F32

    @classmethod
    def none(cls) -> Variation:
        """The face as it is."""
        bend = np.zeros((*CROP_SHAPE, 2), np.float32)
        one, off = np.ones(3, np.float32), np.zeros((2, 3, 3), np.float32)
        return cls(bend, np.eye(3, dtype=np.float32), one, one, 0.0, off)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Variation:
        """Everything at once, most of it mild."""
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
        """Crops u8 [h, w, 9] of what was painted and u8 [h, w, 3] of the real patch."""
        crop = layers.crop
        assert crop is not None, "the layers are guided"
        bent = (crop.inward() + self.bend * np.float32(crop.step)).astype(np.float32)
        both = np.concatenate([layers.painted, layers.conditioning, real], axis=2)
        stack = remap(np.ascontiguousarray(both), bent)
        lips, guides = stack[..., :3], stack[..., 3:6]
        prior = lips
        if layers.prior is not None:
            size = np.array(layers.prior.shape[1::-1]) / real.shape[1::-1]
            layer = remap(layers.prior, (bent * size).astype(np.float32))
            prior = blend(np.ascontiguousarray(lips), layer, np.ascontiguousarray(guides[..., 0]))
            shown = prior_weight(guides[..., 2], layers.confidence)[..., None]
            change: F32 = shown * (prior.astype(np.float32) - lips)
            prior = _bytes(lips + change)
        pictures = [self._recoloured(one) for one in (lips, prior, stack[..., 6:])]
        opacity = guides[..., :1].astype(np.float32) / 255
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
        return np.concatenate([painted, guides, other], axis=2), truth

    def _recoloured(self, picture: U8) -> F32:
        values = (picture.astype(np.float32) / 255) @ self.mixing.T
        lit = np.float32(255) * self.gain * np.clip(values, 1e-4, 1) ** self.gamma
        return lit.astype(np.float32)


def _good_frames(clip: Target, span: tuple[int, int] | None) -> NDArray[np.int64]:
    good = np.flatnonzero(clip.track.usable & clip.track.paintable)
    if span is None:
        return good
    return good[(good >= span[0]) & (good < span[1])]


def _bend(rng: np.random.Generator) -> F32:
    """A displacement of the crop f32 [h, w, 2], px: another face, or the head tilted."""
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
    """Levels by 1, x and y, and colour, [3, 3]."""
    return rng.normal(0, 1, (3, 1)) * [[5], [6], [6]] * rng.normal(1, 0.2, (3, 3))


def _bytes(values: F32) -> U8:
    return np.clip(values + np.float32(0.5), 0, 255).astype(np.uint8)


def as_crops(examples: Sequence[Example]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Examples as one batch: seen u8 [B, 2, 9, h, w] and truth u8 [B, 2, 3, h, w]."""
    seen = np.stack([e.seen for e in examples]).transpose(0, 1, 4, 2, 3)
    truth = np.stack([e.truth for e in examples]).transpose(0, 1, 4, 2, 3)
    return np.ascontiguousarray(seen), np.ascontiguousarray(truth)
