"""Options of calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lipstream.engine.errors import UsageError
from lipstream.engine.target.consent import Consent

Progress = Callable[[str, float], None]  # name of a step, and the fraction of it that is done


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """Checked when built."""

    start_s: float | None = None
    end_s: float | None = None
    consent: Consent | str | None = None  # "WHO; WHEN; FOR WHAT"; kept in the bundle
    progress: Progress | None = None
    adapt: bool = False  # learn the relevance of features on this footage; needs torch
    person: int | None = None  # whom to follow, from 1, in the order in which people appear
    seed: int | None = None  # of a photo's motion; None is 0
    still: bool = False  # a photo's head does not move

    def __post_init__(self) -> None:
        """Raises UsageError for what is out of range, contradicts itself or says nothing."""
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"--seed {self.seed}: expected 0 or more")
        if self.still and self.seed is not None:
            raise UsageError("--still moves nothing: leave out --seed")
        if self.person is not None and self.person < 1:
            raise UsageError(f"--person {self.person}: expected 1 for the first to appear, 2, ...")
        if isinstance(self.consent, str):
            Consent.stated(self.consent)
        start = self.start_s or 0.0
        if start < 0 or (self.end_s is not None and self.end_s <= start):
            raise UsageError(
                f"--start {start:g} --end {self.end_s}: expected 0 or more, and an end after it"
            )

    def report(self, step: str, fraction: float) -> None:
        """Report progress, where it is asked for."""
        if self.progress is not None:
            self.progress(step, fraction)

    def step(self, name: str) -> Callable[[float], None]:
        """Report the start of a step; what is returned takes the fraction of it that is done."""
        self.report(name, 0.0)
        return partial(self.report, name)
