"""When the loop of a photo goes elsewhere: costs that make a head nod as it begins to speak.

A frame of the wrong part of the loop (listening in speech, speaking in silence) costs a little. At
a *cue* each frame at which no gesture is about to begin costs more than a jump: at the onset of
speech and at a stressed vowel a nod or a rise of the brows is to follow, at a pause and some time
after the last blink a blink. Of several jumps, the one to what was not shown lately is taken, with
a liking for one stretch or another that changes every few seconds: what is shown does not repeat.
Source: ours. Nods and brows go with stress (Munhall et al. 2004; Cvejic, Kim and Davis 2010),
blinks with pauses (Condon and Ogston 1967).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np

from lipstream.engine.frozen import Frozen
from lipstream.engine.retrieval.motion_graph import MotionCosts
from lipstream.engine.types import F32, Conduct, Expression

_PAUSE_FRAMES: Final = 3  # silences up to this are closures of p, t, k
_STRESSED: Final = 1.5  # times the mean opening
_LEAST_OPENING: Final = 0.02  # inter-ocular distances
_MEAN_FRAMES: Final = 40  # over which the mean opening is taken
_BETWEEN_FRAMES: Final = 40  # from a cue to the next stress
_BLINK_FRAMES: Final = (60, 200)  # after a blink the next one is due; which, is random
_FADING: Final = 1 - 1 / 400  # per frame, of the cost of having been shown
_STRETCH_FRAMES: Final = 25  # of the loop, that are liked alike
_EPOCH_FRAMES: Final = 200  # of the output, in which a liking lasts
_KNOWN_FRAMES: Final = 25  # with a longer lag it is not known what was shown last,
_LIKING: Final = 0.05  # and the costs of so many frames add up


@dataclass(frozen=True, slots=True)
class CueState:
    """What is remembered of the sound and of the frames shown."""

    opening: float = 0.0  # mean while speaking, inter-ocular distances
    silent: int = _PAUSE_FRAMES + 1  # frames since the last speech
    since_cue: int = _BETWEEN_FRAMES  # frames
    blink_due: int = _BLINK_FRAMES[0]  # output frame
    shown: F32 | None = None  # f32 [N], 1 for the last frame, falling with the time since


class ConductCost(Frozen):
    """Costs of a loop's frames by what the person does in them."""

    def __init__(self, conduct: Conduct, costs: MotionCosts) -> None:
        """`conduct` of N frames."""
        wrong, cue = np.float32(costs.conduct), np.float32(costs.cue)
        self.listening: F32 = wrong * ~conduct.speaking  # f32 [N], cost of each frame in speech
        self.speaking: F32 = wrong * conduct.speaking  # f32 [N], cost of each frame in silence
        self._no_nod: F32 = cue * ~conduct.nods
        self._no_blink: F32 = cue * ~conduct.blinks
        self._again = costs.again
        self._blinks = conduct.blinks

    def shown(self, state: CueState, frames: list[int], frame_index: int) -> CueState:
        """The state after these frames were shown, the last as output frame `frame_index`."""
        if not frames:
            return state
        fading = np.zeros_like(self.speaking) if state.shown is None else state.shown
        fading = fading * np.float32(_FADING ** len(frames))
        fading[frames] = 1
        due = state.blink_due
        if self._blinks[frames].any():
            due = frame_index + int(np.random.default_rng(frame_index).integers(*_BLINK_FRAMES))
        return replace(state, shown=fading, blink_due=due)

    def step(
        self, state: CueState, item: Expression, frame_index: int, waiting: int
    ) -> tuple[F32, CueState]:
        """Cost f32 [N] of each frame for one wanted expression, while others are `waiting`."""
        mean, opening = state.opening, item.lips.opening
        silent = 0 if item.speech else state.silent + 1
        paused = silent > _PAUSE_FRAMES
        if item.speech:
            stressed = opening > max(_STRESSED * mean, _LEAST_OPENING)
            begins = state.silent > _PAUSE_FRAMES
            cue = begins or (stressed and state.since_cue >= _BETWEEN_FRAMES)
            mean += (opening - mean) / _MEAN_FRAMES
        else:
            cue = silent == _PAUSE_FRAMES + 1
        since = 0 if cue else state.since_cue + 1
        row = self.speaking if paused else self.listening
        known = waiting < _KNOWN_FRAMES
        if cue:
            row = row + (self._no_blink if paused else self._no_nod)
        elif known and frame_index >= state.blink_due:
            row = row + self._no_blink
        if known and state.shown is not None:
            row = row + np.float32(self._again) * state.shown
        liking = _dislike(frame_index // _EPOCH_FRAMES, len(row))
        row = row + np.float32(self._again if known else _LIKING) * liking
        return row, replace(state, opening=mean, silent=silent, since_cue=since)


@lru_cache(maxsize=64)
def _dislike(epoch: int, frames: int) -> F32:
    """Random costs f32 [N], 0 to 1, of the stretches of the loop, the same throughout an epoch."""
    stretches = np.random.default_rng(epoch).uniform(0, 1, frames // _STRETCH_FRAMES + 1)
    costs = np.repeat(stretches.astype(np.float32), _STRETCH_FRAMES)[:frames]
    costs.setflags(write=False)
    return costs
