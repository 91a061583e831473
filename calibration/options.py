"""What a person may choose when calibrating."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lipstream.engine.errors import UsageError

Progress = Callable[[str, float], None]  # what is being done, and the share of it that is done


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """Checked when built."""

    start_s: float | None = None
    end_s: float | None = None
    consent: str | None = None  # who agreed to what; kept in the bundle
    progress: Progress | None = None
    adapt: bool = False  # fine-tune the renderer on this footage; needs torch

    def __post_init__(self) -> None:
        """Raises UsageError for a span that is no span."""
        start = self.start_s or 0.0
        if start < 0 or (self.end_s is not None and self.end_s <= start):
            raise UsageError(
                f"--start {start:g} --end {self.end_s}: expected 0 or more, and an end after it"
            )

    def report(self, what: str, share: float) -> None:
        """Tell the progress, if anyone listens."""
        if self.progress is not None:
            self.progress(what, share)
