"""Long measurements are left out unless they are asked for; each says so in the summary."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("LIPSTREAM_SLOW"):
        return
    leave_out = pytest.mark.skip(reason="a long measurement: LIPSTREAM_SLOW=1 runs it")
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("slow"):
            item.add_marker(leave_out)
