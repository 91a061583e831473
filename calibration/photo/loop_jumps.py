"""Jumps within the loop of a photo."""

from __future__ import annotations

from typing import Final

import numpy as np

from lipstream.calibration.footage.jump_graph import JumpGraph, JumpScales, jump_graph
from lipstream.calibration.photo.motion import Motion
from lipstream.engine.target.track import Track

_CLOSED: Final = 0.02  # of a lid
_RAISED: Final = 0.008  # of the brows, inter-ocular distances
_AWAY: Final = 0.014  # of the gaze, inter-ocular distances
_JUMPS: Final = 16  # kept for each frame
_CANDIDATES: Final = 120
_APART_FRAMES: Final = 4
_GESTURE_BONUS: Final = 0.5  # of cost, in the choice of jumps: to where a gesture begins


def loop_jumps(track: Track, motion: Motion) -> JumpGraph:
    """Jumps between frames of like pose, and the seam: the last frame leads to the first.

    A blink, a rise of the brows and a glance aside are shown whole: no jump enters or leaves them.
    """
    within = (motion.closed > _CLOSED) | (motion.brows > _RAISED)
    within |= np.abs(motion.gaze).max(1) > _AWAY
    graph = jump_graph(
        track.landmarks, None, within, _CANDIDATES, JumpScales(min_separation_frames=0)
    )
    gesture = motion.conduct.nods | motion.conduct.blinks
    indices = np.full((len(track), _JUMPS), -1, np.int32)
    cost = np.full(indices.shape, np.inf, np.float32)
    for frame, (targets, costs) in enumerate(zip(graph.indices, graph.cost, strict=True)):
        rank = np.where(targets >= 0, costs - _GESTURE_BONUS * gesture[targets], np.inf)
        for slot in range(_JUMPS):
            best = int(rank.argmin())
            if not np.isfinite(rank[best]):
                break
            indices[frame, slot], cost[frame, slot] = targets[best], costs[best]
            rank[np.abs(targets - targets[best]) < _APART_FRAMES] = np.inf
    indices[-1, -1], cost[-1, -1] = 0, 0
    return JumpGraph(indices, cost)
