"""Stage: from one expression every 20 ms to one at the presentation time of each video frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from lipstream.engine.frozen import Frozen
from lipstream.engine.timebase import frames_covering
from lipstream.engine.types import SAMPLE_RATE_HZ, STEP_SAMPLES, Expression

_EASE_STEPS = 4  # 80 ms from any shape to rest


@dataclass(frozen=True, slots=True)
class SamplerState:
    """The expressions that frames are still sampled from."""

    expressions: tuple[Expression, ...]  # one a step, oldest first
    next_frame: int  # to sample
    end_sample: int | None = None  # first sample after the sound; None: not known


class FrameSampler(Frozen):
    """Interpolates linearly between the two nearest expressions.

    Its lag is 0 where every frame time is a whole number of steps, else one step.
    """

    def __init__(self, fps: Fraction) -> None:
        self._fps = fps
        step_frames = fps.numerator * STEP_SAMPLES
        exact = (SAMPLE_RATE_HZ * fps.denominator) % step_frames == 0
        self.lag_samples = 0 if exact else STEP_SAMPLES

    def init(self) -> SamplerState:
        """State before the first expression."""
        return SamplerState((), 0)

    def step(self, state: SamplerState, item: Expression) -> tuple[list[Expression], SamplerState]:
        """Consume one expression."""
        expressions = (*state.expressions, item)
        return self._sample(SamplerState(expressions, state.next_frame, state.end_sample), None)

    def flush(self, state: SamplerState) -> list[Expression]:
        """The frames that begin before `end_sample`; if that is not known, in the last step."""
        if not state.expressions:
            return []
        end = state.end_sample
        if end is None:
            end = state.expressions[-1].sample + STEP_SAMPLES
        return self._sample(state, frames_covering(end, self._fps))[0]

    def _sample(
        self, state: SamplerState, end: int | None
    ) -> tuple[list[Expression], SamplerState]:
        """Every frame whose expression is known, up to frame `end` when the sound has ended."""
        outputs: list[Expression] = []
        index, expressions = state.next_frame, state.expressions
        while end is None or index < end:
            sampled, expressions = interpolate(expressions, index, self._fps, ended=end is not None)
            if sampled is None:
                break
            outputs.append(sampled)
            index += 1
        return outputs, SamplerState(expressions, index, state.end_sample)


def interpolate(
    expressions: tuple[Expression, ...], index: int, fps: Fraction, *, ended: bool
) -> tuple[Expression | None, tuple[Expression, ...]]:
    """Expression at frame `index`, None if it is not known yet; and those still needed.

    ended: no expression follows the last one, which holds from then on.
    """
    time, unit = index * SAMPLE_RATE_HZ * fps.denominator, fps.numerator  # samples, exact
    steps, rest = divmod(time, unit * STEP_SAMPLES)
    before = steps * STEP_SAMPLES
    if not expressions or expressions[-1].sample < before:
        return None, expressions[-1:]  # the last one stays: an interruption eases from it
    keep = next(k for k, e in enumerate(expressions) if e.sample >= before)
    expressions = expressions[keep:]
    if rest == 0:
        return expressions[0], expressions
    if len(expressions) < 2:
        return (expressions[0] if ended else None), expressions
    first, second = expressions[:2]
    t = np.float32(rest / (unit * STEP_SAMPLES))
    coefficients = first.coefficients + t * (second.coefficients - first.coefficients)
    nearer = first if t < 0.5 else second
    activity = first.activity + float(t) * (second.activity - first.activity)
    coefficients = coefficients.astype(np.float32)
    return replace(nearer, coefficients=coefficients, activity=activity), expressions


def ease_to_rest(expressions: tuple[Expression, ...], until: int) -> list[Expression]:
    """From the oldest of `expressions` to rest, one a step, up to sample `until`."""
    if not expressions:
        return []
    first = expressions[0]
    eased = []
    for k in range(max(1, (until - first.sample) // STEP_SAMPLES)):
        weight = np.float32(max(0.0, 1 - k / _EASE_STEPS))
        eased.append(
            replace(
                first,
                coefficients=first.coefficients * weight,
                speech=False,
                sample=first.sample + k * STEP_SAMPLES,
                activity=first.activity * float(weight),
            )
        )
    return eased
