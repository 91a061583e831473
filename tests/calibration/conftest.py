"""The face landmarker, for tests that need it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model() -> Path:
    """The landmarker's file; skips the test where it, or a library of it, is missing."""
    from lipstream.calibration import assets
    from lipstream.calibration.tracking.landmarker import Landmarker
    from lipstream.engine.errors import AssetError

    path = assets.find()
    if path is None:
        pytest.skip("no face landmarker here: lipstream assets fetch")
    try:
        with Landmarker(path):
            return path
    except AssetError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def landmarker(model: Path) -> Iterator[object]:
    from lipstream.calibration.tracking.landmarker import Landmarker

    with Landmarker(model) as made:
        yield made
