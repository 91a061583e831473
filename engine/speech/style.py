"""Stage: the universal expression in the speaking style of one person."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np

from lipstream.engine.face.model import FaceModel
from lipstream.engine.frozen import Frozen
from lipstream.engine.target.style import Style
from lipstream.engine.target.track import Track
from lipstream.engine.types import F32, Expression

_PHOTO_WIDEST, _LEAST_WIDEST = 0.34, 0.15  # inter-ocular distances of opening
_PRESSED = -0.03  # inter-ocular distances: lips meet from corner to corner
_PERCENTILE = 99.5  # of the openings in the footage
_LINEAR = 0.7  # of the widest opening, up to which openings are not compressed


class SpeakingStyle(Frozen):
    """Adds a person's rest pose and gain, and keeps the opening within the range of their mouth."""

    lag_samples: Final = 0

    def __init__(self, style: Style, openings: tuple[float, float], model: FaceModel) -> None:
        """`openings`: least and widest, from `opening_range`."""
        self._style, (self._least, self._widest) = style, openings
        self._opening, self._opener = model.lip_rows()[0], model.opener()

    def init(self) -> None:
        """No state."""

    def step(self, state: None, item: Expression) -> tuple[list[Expression], None]:
        """Consume one expression; one styled expression."""
        return [self.apply(item)], None

    def flush(self, state: None) -> list[Expression]:
        """Nothing: no expression is held back."""
        return []

    def apply(self, expression: Expression) -> Expression:
        """The universal expression in this person's style.

        No footage shows a wider opening than their widest: openings are compressed towards it.
        Nor are lips pressed harder than they ever were, or their meshes would fold.
        """
        style = self._style
        styled = style.rest + np.float32(style.gain) * expression.coefficients
        styled = styled + np.float32(expression.activity) * style.speaking
        opening, linear = float(self._opening @ styled), _LINEAR * self._widest
        limited = max(opening, self._least)
        if opening > linear:
            left = self._widest - linear
            limited = linear + left * math.tanh((opening - linear) / left)
        styled = styled + np.float32(limited - opening) * self._opener
        return replace(expression, coefficients=styled.astype(np.float32))

    def at_rest(self, expression: Expression) -> Expression:
        """The person's rest pose in place of a styled expression."""
        return replace(expression, coefficients=self._style.rest, speech=False, activity=0.0)


def opening_range(track: Track, kind: str, opening: F32) -> tuple[float, float]:
    """Least (lips pressed) and widest opening of a mouth, inter-ocular distances.

    kind: of the target; a photo has no range of its own. opening: f32 [K], its row of the model.
    """
    if kind == "photo":
        return _PRESSED, _PHOTO_WIDEST
    openings = track.expression[track.usable] @ opening
    pressed, widest = np.percentile(openings, [100 - _PERCENTILE, _PERCENTILE]).tolist()
    return min(pressed, _PRESSED), max(widest, _LEAST_WIDEST)
