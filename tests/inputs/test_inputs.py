"""What people bring: each input gives a right result or one clear line, and leaves nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from lipstream.calibration.assets import find
from lipstream.self_test import TRIALS, Trial, judge
from tests.cli.conftest import Cli
from tests.inputs.pictures import REFUSED, WHOLE
from tests.inputs.sounds import SOUNDS

needs_landmarker = pytest.mark.skipif(
    find() is None, reason="no face_landmarker.task (lipstream assets fetch)"
)


def test_there_are_enough_and_each_is_another() -> None:
    trials = [*SOUNDS, *REFUSED, *WHOLE, *TRIALS]
    assert len(trials) >= 60
    assert len({(trial.command, trial.name) for trial in trials}) == len(trials)


def tried(trial: Trial, cli: Cli, target: Path, folder: Path) -> str:
    def call(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return cli(*arguments)

    return judge(trial, target, folder, call)


@pytest.mark.parametrize("trial", SOUNDS, ids=lambda trial: f"{trial.command}-{trial.name}")
def test_sound(cli_here: Cli, tiny_target: Path, tmp_path: Path, trial: Trial) -> None:
    assert tried(trial, cli_here, tiny_target, tmp_path)


@needs_landmarker
@pytest.mark.parametrize("trial", [*REFUSED, *WHOLE], ids=lambda trial: trial.name)
def test_footage_and_photos(cli_here: Cli, tmp_path: Path, trial: Trial) -> None:
    assert tried(trial, cli_here, tmp_path, tmp_path)


@needs_landmarker
@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)
def test_the_trials_of_the_self_test(
    cli_here: Cli, tiny_target: Path, tmp_path: Path, trial: Trial
) -> None:
    assert tried(trial, cli_here, tiny_target, tmp_path)
