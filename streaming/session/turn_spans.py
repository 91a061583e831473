"""Where the sound of the turn that goes on lies on the session's clock: what of it was played."""

from __future__ import annotations

from typing import Final

_MOST_SPANS: Final = 64  # pauses in a turn beyond these: the oldest sound is no longer counted


class TurnSpans:
    """Stretches of session samples, in order. Not locked: the owner is."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []  # (start, end)

    @property
    def end_sample(self) -> int | None:
        """Where its last sound ends; None without any."""
        return self._spans[-1][1] if self._spans else None

    def add(self, start_sample: int, end_sample: int) -> None:
        """More sound, behind what there is."""
        if self._spans and self._spans[-1][1] >= start_sample:
            self._spans[-1] = (self._spans[-1][0], end_sample)
        else:
            self._spans = [*self._spans[1 - _MOST_SPANS :], (start_sample, end_sample)]

    def begin(self, first_sample: int) -> None:
        """A turn begins here: what lies before is another's."""
        self._spans = [
            (max(start, first_sample), end) for start, end in self._spans if end > first_sample
        ]

    def clear(self) -> None:
        """A turn without sound."""
        self._spans = []

    def played_samples(self, left_sample: int) -> int:
        """How much of its sound lies before a sample."""
        return sum(max(0, min(end, left_sample) - start) for start, end in self._spans)
