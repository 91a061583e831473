"""Stage: the footage in its own order, in place of the background matcher."""

from __future__ import annotations

from typing import Final

from lipstream.engine.errors import UsageError
from lipstream.engine.frozen import Frozen
from lipstream.engine.types import Expression, MatchedFrame


class SequentialBackground(Frozen):
    """Output frame i shows footage frame i, back and forth where the sound is longer.

    The state is the index of the next output frame.
    """

    lag_samples: Final = 0

    def __init__(self, frames: int) -> None:
        """`frames`: of the footage."""
        self._frames = frames

    def init(self) -> int:
        """State before the first frame."""
        return 0

    def step(self, state: int, item: Expression) -> tuple[list[MatchedFrame], int]:
        """Consume the wanted expression of one output frame."""
        return [MatchedFrame(state, sequential(state, self._frames), item)], state + 1

    def flush(self, state: int) -> list[MatchedFrame]:
        """Nothing: no frame is held back."""
        return []


def sequential(frame_index: int, frames: int) -> int:
    """Track frame of output frame `frame_index` in the footage's own order, back and forth."""
    if frames < 1 or frame_index < 0:
        raise UsageError(f"frame {frame_index} of {frames}; expected a frame of at least one")
    if frames == 1:
        return 0
    there_and_back = 2 * (frames - 1)
    return frames - 1 - abs(frames - 1 - frame_index % there_and_back)
