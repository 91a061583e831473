"""What all tests share: where the pinned model and the real clips may lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[2] / "shared" / "assets"

# Before any test module asks for it: a copy beside the checkout saves the download.
if "LIPSTREAM_ASSETS" not in os.environ and _BESIDE.is_dir():
    os.environ["LIPSTREAM_ASSETS"] = str(_BESIDE)


@pytest.fixture(scope="session", autouse=True)
def own_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The key that signs files is made here, not in the home of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("config")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo target."""
    from lipstream.calibration.demo import build_demo_target

    return build_demo_target(tmp_path_factory.mktemp("demo"))
