"""Compiled kernels are tested where they are built; elsewhere the tests say so and are skipped."""

import pytest

from lipstream.engine.errors import BackendUnavailable
from lipstream.kernels import compiled


@pytest.fixture(scope="session")
def library() -> None:
    try:
        compiled.library()
    except BackendUnavailable as missing:
        pytest.skip(str(missing))
