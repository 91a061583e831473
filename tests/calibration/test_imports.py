"""Training is a leaf: only the command line and the benchmarks import it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAINING = "lipstream.calibration.training"
ALLOWED = (
    "lipstream/cli_train.py",
    "bench/",
    "calibration/training/",
    "tests/calibration/training/",
    "tests/bench/",
    "tests/random_encoder.py",  # writes the files of a model
)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "folder", ["kernels", "engine", "calibration", "streaming", "bench", "lipstream", "tests"]
)
def test_only_the_command_line_and_bench_import_training(folder: str) -> None:
    paths = [p for p in sorted((ROOT / folder).rglob("*.py")) if not p.is_symlink()]
    assert paths
    wrong = []
    for path in paths:
        place = path.relative_to(ROOT).as_posix()
        if place.startswith(ALLOWED):
            continue
        if any(name.startswith(TRAINING) for name in imported(path)):
            wrong.append(place)
    assert wrong == []
