"""An engine for the frameworks' own pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest

from lipstream.engine.pipeline import Engine
from lipstream.engine.target.bundle import load_target


@pytest.fixture(scope="module")
def engine(target: Path) -> Engine:
    return Engine(load_target(target), renderer="none")
