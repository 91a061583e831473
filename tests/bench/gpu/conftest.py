"""The kernels, compiled for the host once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lipstream.bench.gpu.card import Card, open_card
from lipstream.bench.gpu.host import compile_kernels


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `open_card` finds them."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not on the path")
    folder = tmp_path_factory.mktemp("proof")
    compile_kernels(folder / "kernels_on_host.so")
    return folder


@pytest.fixture
def card(folder: Path) -> Iterator[Card]:
    with open_card("host", folder) as opened:
        yield opened
        opened.free_all()
        assert opened.driver.used == 0, "what was taken is given back"
