"""Executors of the renderer's stage, for tests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernels.test_gpu import driver, install, library  # noqa: F401  # fixtures


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Any:
    """`stage_rows.executor`, with kernels compiled for the host where they are asked for."""
    from tests.engine.networks.stage_rows import executor

    def make(body: str, *arguments: Any) -> Any:
        if body == "kernels":
            request.getfixturevalue("driver")
        return executor(body, *arguments)

    return make
