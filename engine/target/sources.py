"""The mouth sources of a target: real pixels of its mouth, and the features they are chosen by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lipstream.engine.errors import UsageError
from lipstream.engine.face.mesh import LIPS
from lipstream.engine.face.retarget import Placement
from lipstream.engine.target.appearance import Appearance
from lipstream.engine.target.similarity import MouthSimilarity
from lipstream.engine.types import F32, I32, U8
from lipstream.kernels.mesh import remap

_MAX_SOURCES = 4096  # all pairs are compared once


@dataclass(frozen=True, slots=True)
class MouthSource:
    """Real pixels of one mouth."""

    rgb: U8  # u8 [h, w, 3]
    origin: tuple[float, float]  # x, y of the crop in the coordinates of `placement`, px
    zoom: float  # crop pixels per pixel of `placement`
    placement: Placement

    @property
    def lips(self) -> F32:
        """Inner upper and lower, outer upper and lower lip, canonical f32 [4, 11, 3]."""
        return self.placement.canonical_vertices[LIPS]

    def colors_at(self, points: F32) -> F32:
        """Colours f32 [n, 3], 0 to 255, at canonical points f32 [n, 3]; the border repeats."""
        at = self.placement.project(points.astype(np.float32)) - np.array(self.origin)
        size = np.array(self.rgb.shape[1::-1])
        xy = np.clip(at * self.zoom, 0.5, size - 0.5).astype(np.float32)
        return remap(self.rgb, xy[None])[0].astype(np.float32)


SourceWeights = Sequence[tuple[MouthSource, float]]  # sources to blend; the weights sum to 1


@dataclass(frozen=True, slots=True)
class MouthSources:
    """What is known of the S footage frames whose mouths can be chosen."""

    frames: I32  # i32 [S]
    expression: F32  # f32 [S, K]
    similarity: MouthSimilarity
    appearance: Appearance | None  # None: the features alone decide
    opening: F32  # f32 [K], how far each coefficient parts the lips, inter-ocular distances

    def __post_init__(self) -> None:
        """Check that the arrays belong together."""
        sources, similarity = len(self.frames), self.similarity
        if not 0 < sources <= _MAX_SOURCES:
            raise UsageError(f"{sources} mouth sources; expected 1 to {_MAX_SOURCES}")
        shapes, size = (self.expression.shape, self.opening.shape), similarity.projection.shape[1]
        if shapes != ((sources, size), (size,)):
            raise UsageError(
                f"expressions and opening of the sources have shapes {shapes}; expected "
                f"{((sources, size), (size,))}"
            )
        if self.appearance is not None and len(self.appearance.sources) != sources:
            raise UsageError(
                f"appearance of {len(self.appearance.sources)} mouths; expected that of {sources}"
            )
        if len(similarity.source_descriptors) != sources or self.frames.max() >= len(
            similarity.frame_offset
        ):
            raise UsageError(
                f"descriptors of {len(similarity.source_descriptors)} sources and offsets of "
                f"{len(similarity.frame_offset)} frames; "
                f"expected {sources}, and more than {self.frames.max()}"
            )
