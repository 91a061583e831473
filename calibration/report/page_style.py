"""The style sheet of report pages: report.css, which follows the reader's light or dark theme."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def style_sheet() -> str:
    """Its text, to be embedded in a page."""
    return files("lipstream.calibration.report").joinpath("report.css").read_text("utf-8")
