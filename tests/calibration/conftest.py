"""The face landmarker, for tests that need it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def landmarker_file() -> Path:
    """Where it lies; skips the test where it is not, or where its libraries cannot be loaded."""
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
def landmarker(landmarker_file: Path) -> Iterator[object]:
    from lipstream.calibration.tracking.landmarker import Landmarker

    with Landmarker(landmarker_file) as made:
        yield made
