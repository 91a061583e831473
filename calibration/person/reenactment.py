"""Self-reenactment: a person's own frames, painted as the engine does with a mouth of another time.

The frame itself is the ground truth of what is painted, so pairs of the two measure a renderer
(`evaluation`) and train one (`training.renderer`). The background's own mouth never reaches the
painted picture: the lip layer covers it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lipstream.calibration.footage.sources import cut_source
from lipstream.calibration.person.leave_one_out import EXCLUSION_WINDOW_S, LeaveOneOutPredictor
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import face_model
from lipstream.engine.rendering.compositor import Compositor
from lipstream.engine.rendering.layers import Layers, WantedMouth
from lipstream.engine.retrieval.source_selector import SourceCosts
from lipstream.engine.target.bundle import Target, mouth_sources
from lipstream.engine.target.frames import FrameDecoder
from lipstream.engine.target.sources import MouthSource
from lipstream.engine.types import U8
from lipstream.kernels import color

_COSTS: Final = SourceCosts()


class Reenactment:
    """The calibrated clips of one person, any frame of which can be painted anew.

    Of each clip, frames are drawn from `span` only (first, end); sources come from all of it.
    """

    def __init__(self, clips: Sequence[Target], span: tuple[int, int] | None = None) -> None:
        self.clips = list(clips)
        self._decoders: dict[int, FrameDecoder] = {}  # made in the process that uses them
        self._mesh = build_mesh(face_model())
        self._compositors = [Compositor(self._mesh, clip.style.mouth) for clip in clips]
        self._similarities = [mouth_sources(clip).similarity for clip in clips]
        self._predictors: dict[int, LeaveOneOutPredictor] = {}
        self._whole = [_good_frames(clip, None) for clip in clips]
        self.frames = [_good_frames(clip, span) for clip in clips]  # i64, of each clip
        # Frames whose predecessor is good as well.
        self._pairs = [frames[1:][np.diff(frames) == 1] for frames in self.frames]
        self.pairs = sum(len(pairs) for pairs in self._pairs)
        lengths = zip(self._whole, clips, strict=True)
        self.seconds = min(float(len(frames) / clip.fps) for frames, clip in lengths)
        self.clip_weights = np.array([len(pairs) for pairs in self._pairs]) / max(self.pairs, 1)

    def draw_frame(self, rng: np.random.Generator) -> tuple[int, int]:
        """A clip and one of its frames whose predecessor is good as well."""
        clip = int(rng.choice(len(self.clips), p=self.clip_weights))
        return clip, int(rng.choice(self._pairs[clip]))

    def draw_painted(self, rng: np.random.Generator) -> tuple[Layers, U8]:
        """A drawn frame, painted with the nearest mouth outside its exclusion window, and the real
        patch u8 [h, w, 3]."""
        clip, frame = self.draw_frame(rng)
        window = math.ceil(EXCLUSION_WINDOW_S * self.clips[clip].fps)
        others = self._whole[clip][np.abs(self._whole[clip] - frame) >= window]
        source = self.cut(clip, self.nearest(clip, frame, clip, others))
        return self.paint(clip, frame, [(source, 1.0)], has_prior=True)

    def paint(
        self,
        clip: int,
        frame: int,
        sources: Sequence[tuple[MouthSource, float]],
        *,
        has_prior: bool,
    ) -> tuple[Layers, U8]:
        """A frame painted with weighted sources, and the real patch u8 [h, w, 3].

        With `has_prior`, the appearance prior is predicted without the frame's exclusion window.
        """
        track, i420 = self.clips[clip].track, self._read(clip, frame)
        expression = track.expression[frame]
        prior = None
        if has_prior:
            predictor = self._predictor(clip)
            prior = predictor.picture(predictor.predict(frame, expression), expression)
        compositor, placement = self._compositors[clip], track.placement(frame)
        wanted = WantedMouth(placement, expression, sources, prior)
        layers = compositor.layers(i420, wanted, compositor.crop(placement))
        assert layers is not None, "a usable frame has its face inside the picture"
        return layers, color.i420_region_to_rgb(i420, *layers.box)

    def nearest(
        self, clip: int, frame: int, source_clip: int, candidates: NDArray[np.int64]
    ) -> int:
        """Of frames `candidates` of one clip, the one whose mouth has the least cost as a source
        for a frame of another, by the costs of the engine's source search."""
        similarity, wanted = self._similarities[source_clip], self.clips[clip].track.expression
        expression = self.clips[source_clip].track.expression[candidates]
        difference = (expression - wanted[frame]) @ similarity.projection.T
        texture_cost = None
        if source_clip == clip:
            offset = similarity.frame_offset
            difference = difference + offset[candidates] - offset[frame]
            predictor = self._predictor(clip)
            prediction = predictor.predict(frame, wanted[frame])
            texture_cost = predictor.texture_distance(prediction, candidates)
        cost = (difference**2).sum(1)
        if texture_cost is not None:
            cost = _COSTS.features * cost + _COSTS.texture * texture_cost
        return int(candidates[cost.argmin()])

    def cut(self, clip: int, frame: int) -> MouthSource:
        """The mouth of a frame as a source."""
        rgb = color.i420_to_rgb(self._read(clip, frame))
        return cut_source(rgb, self.clips[clip].track.placement(frame), self._mesh)

    def _predictor(self, clip: int) -> LeaveOneOutPredictor:
        if clip not in self._predictors:
            self._predictors[clip] = LeaveOneOutPredictor(self.clips[clip], self._mesh)
        return self._predictors[clip]

    def _read(self, clip: int, frame: int) -> U8:
        if clip not in self._decoders:
            self._decoders[clip] = self.clips[clip].frames.decoder()
        return self._decoders[clip].read(frame)


def _good_frames(clip: Target, span: tuple[int, int] | None) -> NDArray[np.int64]:
    good = np.flatnonzero(clip.track.usable & clip.track.paintable)
    if span is None:
        return good
    return good[(good >= span[0]) & (good < span[1])]
