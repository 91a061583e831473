"""What all tests share: where the pinned model and the real clips may lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[2] / "shared" / "assets"

# Before any test module asks for it: a copy beside the checkout saves the download.
if "LIPSTREAM_ASSETS" not in os.environ and _BESIDE.is_dir():
    os.environ["LIPSTREAM_ASSETS"] = str(_BESIDE)


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo target."""
    from lipstream.calibration.demo import build_demo_target

    return build_demo_target(tmp_path_factory.mktemp("demo"))
