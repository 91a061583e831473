"""Where the sound that an engine session was fed lies on the session's clock.

An engine session takes one unbroken stream of sound and counts its samples. The session's clock
goes on when time is skipped, so the same sample has two numbers. They differ by the slip that was
in force when the sample was fed, and frames come out some 200 ms after that.
"""

from __future__ import annotations

from collections import deque


class FedSound:
    """The engine's sample count, and the slip of every stretch that frames may still refer to.

    Not locked: the owner is.
    """

    def __init__(self) -> None:
        self.end_sample = 0  # of the engine: what is fed next
        self._slips: deque[tuple[int, int]] = deque([(0, 0)])  # (from engine sample, slip)

    @property
    def slip_samples(self) -> int:
        """How far the session's clock is ahead of the engine's count, for what is fed next."""
        return self._slips[-1][1]

    @property
    def next_sample(self) -> int:
        """Session sample of what is fed next."""
        return self.end_sample + self.slip_samples

    def skip(self, samples: int) -> None:
        """Leave time out; what was fed keeps its place."""
        slip = self.slip_samples + samples
        if self._slips[-1][0] == self.end_sample:
            self._slips.pop()
        self._slips.append((self.end_sample, slip))

    def feed(self, samples: int) -> None:
        """So many more were fed."""
        self.end_sample += samples

    def session_sample(self, engine_sample: int) -> int:
        """Session sample of one that was fed; asked for in rising order, older ones are forgotten.

        Of a frame, pass its first sample: a frame that a slip cuts in two keeps its beginning.
        """
        while len(self._slips) > 1 and self._slips[1][0] <= engine_sample:
            self._slips.popleft()
        return engine_sample + self._slips[0][1]
