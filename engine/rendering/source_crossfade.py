"""From one mouth source to the next over a few frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lipstream.engine.face.retarget import gap_height
from lipstream.engine.target.sources import MouthSource, SourceWeights

_FADE_FRAMES = 3
_LARGEST_MISFIT = 0.03  # of the opening, inter-ocular distances


@dataclass(frozen=True, slots=True)
class SourceCrossfade:
    """The mouth source on show, and the one that it gradually replaces."""

    shown: int = -1  # -1 before the first frame
    previous: int = -1
    frames_left: int = 0

    def to(self, source: int) -> SourceCrossfade:
        """One frame later, with `source` selected."""
        if self.shown == -1:
            return SourceCrossfade(source)
        if source != self.shown:
            return SourceCrossfade(source, self.shown, _FADE_FRAMES)
        left = max(self.frames_left - 1, 0)
        return SourceCrossfade(source, self.previous if left else -1, left)

    def weights(self, sources: Sequence[MouthSource], opening: float) -> SourceWeights:
        """The sources to blend for a mouth `opening` inter-ocular distances wide, with weights.

        The previous source takes no part once the mouth has opened or closed since: it lacks the
        pixels of the new opening.
        """
        shown = sources[self.shown]
        if self.frames_left == 0:
            return [(shown, 1.0)]
        previous = sources[self.previous]
        gap = gap_height(previous.placement.canonical_vertices)
        if abs(gap - max(0.0, opening)) > _LARGEST_MISFIT:
            return [(shown, 1.0)]
        old = self.frames_left / (_FADE_FRAMES + 1)
        return [(previous, old), (shown, 1 - old)]
