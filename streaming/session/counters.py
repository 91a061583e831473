"""What one conversation counts, for metrics."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class RunnerCounters:
    """For metrics; written by the worker, read by anybody."""

    frames: int = 0
    late_frames: int = 0  # finished after their release time
    dropped_frames: int = 0  # by subscribers that did not fetch them
    repeated_frames: int = 0  # showed the previous picture: there was no time
    slipped_samples: int = 0
    interruptions: int = 0
    queue_depth: int = 0  # samples of sound waiting
    dropped_samples: int = 0
    source_ppm: float = 0.0  # how much faster than ours a live source's clock runs
    source_margin_s: float = 0.0  # how much later than at best it is placed, for its jitter
    cpu_s: float = 0.0  # CPU time, of the encoder too
    compute_ms: deque[float] = field(default_factory=lambda: deque(maxlen=250))  # per push
