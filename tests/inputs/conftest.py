"""The command line of the other tests, and a small target that is ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from lipstream.calibration.consent import state_consent
from lipstream.engine.target.consent import Consent
from tests.cli.conftest import cli_here as cli_here
from tests.fuzz.bundles import tiny_bundle


@pytest.fixture(scope="session")
def tiny_target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny_bundle(tmp_path_factory.mktemp("tiny"))
    state_consent(made, Consent.stated("Nobody; today; tests"))
    return made
