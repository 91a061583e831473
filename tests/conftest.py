"""What all tests share: where the pinned model and the real clips may lie."""

from __future__ import annotations

import os
from pathlib import Path

_BESIDE = Path(__file__).parents[2] / "shared" / "assets"

# Before any test module asks for it: a copy beside the checkout saves the download.
if "LIPSTREAM_ASSETS" not in os.environ and _BESIDE.is_dir():
    os.environ["LIPSTREAM_ASSETS"] = str(_BESIDE)
