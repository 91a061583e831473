"""Stage: the universal expression in the speaking style of one person."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np

from lipstream.engine.face.mesh import smoothstep
from lipstream.engine.face.model import LIP_MIDDLES_AND_CORNERS, FaceModel
from lipstream.engine.frozen import Frozen
from lipstream.engine.target.style import Style
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, Expression

_PHOTO_WIDEST, _LEAST_WIDEST = 0.34, 0.15  # inter-ocular distances of opening
_AJAR = 0.05  # inter-ocular distances: from there on lips that should meet do not look it
_PRESSED = -0.03  # inter-ocular distances: lips meet from corner to corner
_PERCENTILE = 99.5  # of the openings in the footage
_LINEAR = 0.7  # of the widest opening, up to which openings are not compressed


@dataclass(frozen=True, slots=True)
class Articulation:
    """How lips move whose own motion no footage shows.

    The encoder puts out the mean over many people, which closes, opens and rounds less than each of
    them does.
    """

    opening_gain: float
    closing: float  # inter-ocular distances by which speech closes the lips further
    pressing: float  # the same for lips that meet, and less for those ajar
    narrowing: float  # gain where lips are narrower than at rest, as in o, u and w
    spreading: float  # of that narrowing, what is lost where lips meet
    thinning: float  # inter-ocular distances: the lower lip is thinner where lips meet, as at rest
    speed: float  # inter-ocular distances a second: no lip moves faster, but to meet the other


# Gains: seven people with sound (talkers, GRID, White House) whose photo speaks their own sound.
# The photo's lips then move nearly as fast as theirs (99th percentile over theirs 0.83 -> 0.95),
# and lips that should meet are nearer (docs/experiments/034-lips-of-a-photo.md). Speed: 99th
# percentile of the fastest lip vertex in 2171 frames of GRID and White House speakers; 0.2 m/s.
# Spreading and thinning: lips that meet have at least 0.89 of their usual width (5th percentile)
# and are thinner than lips ajar, by 0.025 below and 0.008 above (five clips). Full, round lips that
# touch look ajar (docs/experiments/037-lips-that-meet.md).
PHOTO_ARTICULATION: Final = Articulation(1.2, 0.01, 0.03, 1.5, 0.5, 0.025, 3.3)
_THINNER_UPPER: Final = 0.4  # of what the lower lip gets thinner


class SpeakingStyle(Frozen):
    """Adds a person's rest pose and gain, and keeps the opening within the range of their mouth.

    With an `Articulation` its state is the last styled expression f32 [K]; without, None.
    """

    lag_samples: Final = 0

    def __init__(
        self,
        style: Style,
        openings: tuple[float, float],
        model: FaceModel,
        articulation: Articulation | None = None,
        fps: Fraction = Fraction(25),
    ) -> None:
        """`openings`: least and widest, from `opening_range`."""
        self._style, (self._least, self._widest) = style, openings
        self._opening, self._opener = model.lip_rows()[0], model.opener()
        self._articulation = articulation
        self._width, self._wider = model.lip_rows()[1], _wider(model)
        # Lips of a photo are thinner at rest, and as thick as it shows them where they part.
        thinning = 0.0 if articulation is None else articulation.thinning
        self._rest = style.rest + np.float32(thinning) * _thinner(model)
        self._thicker = style.rest - self._rest
        # What may not move farther in a frame: six vertices of the lips, and the gap.
        six = model.basis[:, LIP_MIDDLES_AND_CORNERS, :2]  # f32 [K, 6, 2]
        gap = np.stack([self._opening, np.zeros_like(self._opening)], 1)[:, None]
        self._motion = np.concatenate([six, gap], 1).astype(np.float32)
        self._farthest = np.inf if articulation is None else articulation.speed / float(fps)

    def init(self) -> F32 | None:
        """Before the first frame."""
        return None

    def step(self, state: F32 | None, item: Expression) -> tuple[list[Expression], F32 | None]:
        """Consume one expression; one styled expression."""
        styled = self.apply(item)
        if self._articulation is None:
            return [styled], None
        reached = self._reached(state, styled.coefficients)
        return [replace(styled, coefficients=reached)], reached

    def flush(self, state: F32 | None) -> list[Expression]:
        """Nothing: no expression is held back."""
        return []

    def apply(self, expression: Expression) -> Expression:
        """The universal expression in this person's style.

        No footage shows a wider opening than their widest: openings are compressed towards it.
        Nor are lips pressed harder than they ever were, or their meshes would fold.
        """
        style = self._style
        styled = self._rest + np.float32(style.gain) * self._articulated(expression)
        styled = styled + np.float32(expression.activity) * style.speaking
        opening, linear = float(self._opening @ styled), _LINEAR * self._widest
        limited = max(opening, self._least)
        if opening > linear:
            left = self._widest - linear
            limited = linear + left * math.tanh((opening - linear) / left)
        styled = styled + np.float32(limited - opening) * self._opener
        return replace(expression, coefficients=styled.astype(np.float32))

    def _articulated(self, expression: Expression) -> F32:
        """The universal expression with more of what lips do, f32 [K]."""
        coefficients, how = expression.coefficients, self._articulation
        if how is None:
            return coefficients
        opening, width = float(self._opening @ coefficients), float(self._width @ coefficients)
        wanted = how.opening_gain * opening - how.closing * expression.activity
        meet = 1 - float(smoothstep(wanted / _AJAR))
        more = wanted - opening - how.pressing * meet * expression.activity
        narrower = (how.narrowing * (1 - how.spreading * meet) - 1) * min(width, 0.0)
        return (
            coefficients
            + np.float32(more) * self._opener
            + np.float32(narrower) * self._wider
            + np.float32(1 - meet) * self._thicker
        )

    def _reached(self, last: F32 | None, wanted: F32) -> F32:
        """How far lips get towards `wanted` within a frame, f32 [K].

        Only opening waits: lips that close for p, b and m must meet in time.
        """
        if last is None:
            return wanted
        moved = np.tensordot(wanted - last, self._motion, axes=1)  # f32 [7, 2]
        distance = float(np.sqrt((moved * moved).sum(1).max()))
        if distance <= self._farthest:
            return wanted
        reached = last + np.float32(self._farthest / distance) * (wanted - last)
        late = min(float(self._opening @ (wanted - reached)), 0.0)
        return (reached + np.float32(late) * self._opener).astype(np.float32)

    def at_rest(self, expression: Expression) -> Expression:
        """The person's rest pose in place of a styled expression."""
        return replace(expression, coefficients=self._rest, speech=False, activity=0.0)


def photo_articulation(track: Track, opening: F32) -> Articulation:
    """How the lips of a photo move. Those that meet in it are as thin as they get; those it shows
    parted are thinner when they meet.

    track: of the photo. opening: f32 [K], its row of the model.
    """
    parted = float(smoothstep(opening @ track.expression[0] / _AJAR))
    return replace(PHOTO_ARTICULATION, thinning=parted * PHOTO_ARTICULATION.thinning)


def opening_range(track: Track, kind: str, opening: F32) -> tuple[float, float]:
    """Least (lips pressed) and widest opening of a mouth, inter-ocular distances.

    kind: of the target; a photo has no range of its own. opening: f32 [K], its row of the model.
    """
    if kind == "photo":
        return _PRESSED, _PHOTO_WIDEST
    openings = track.expression[track.usable] @ opening
    pressed, widest = np.percentile(openings, [100 - _PERCENTILE, _PERCENTILE]).tolist()
    return min(pressed, _PRESSED), max(widest, _LEAST_WIDEST)


def _wider(model: FaceModel) -> F32:
    """The most probable expression that widens the mouth by an inter-ocular distance and leaves
    its opening, f32 [K]."""
    return _most_probable(model, model.lip_rows()[:2], (0.0, 1.0))


def _thinner(model: FaceModel) -> F32:
    """The most probable expression that makes the lower lip thinner by an inter-ocular distance,
    the upper one by a part of it, and leaves opening and width, f32 [K]."""
    y = model.basis[:, LIP_MIDDLES_AND_CORNERS[:4], 1]  # f32 [K, 4]: inner lips, outer lips
    thickness = np.stack([y[:, 0] - y[:, 2], y[:, 3] - y[:, 1]])
    rows = np.concatenate([model.lip_rows()[:2], thickness])
    return _most_probable(model, rows, (0.0, 0.0, -_THINNER_UPPER, -1.0))


def _most_probable(model: FaceModel, rows: F32, values: tuple[float, ...]) -> F32:
    """The most probable expression f32 [K] that the maps f32 [n, K] take to n values."""
    likely = rows * model.spread**2
    found: F32 = (likely.T @ np.linalg.solve(likely @ rows.T, values)).astype(np.float32)
    return found
