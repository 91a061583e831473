"""What all tests share: where the pinned model and the real clips may lie."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Generator, Iterator
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


_RUN = "PYTEST_XDIST_TESTRUNUID"  # set in each process of pytest-xdist, and the same in all of them


@pytest.fixture(scope="session")
def made_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, Callable[[Path], object]], Path]:
    """`made_once(name, make)`: a folder that `make` fills, once for all processes of a run."""
    here = tmp_path_factory.getbasetemp()
    shared = here.parent if _RUN in os.environ else here

    def made_once(name: str, make: Callable[[Path], object]) -> Path:
        folder = shared / name
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (shared / f"{name}.made").exists():
                folder.mkdir()
                make(folder)
                (shared / f"{name}.made").touch()
        return folder

    return made_once


@pytest.fixture(scope="session")
def target(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The demo target."""
    from lipstream.calibration.demo import build_demo_target

    return made_once("demo", build_demo_target) / "demo.target"


# Tests that hold the clock to account. Beside another test they would measure that one too, so
# `make test`, which runs two tests at a time, runs these last and one by one.
_ON_THE_CLOCK = (
    "bench/measure/test_capacity.py",
    "bench/measure/test_kernels.py",
    "bench/measure/test_latency.py",
    "bench/measure/test_matcher.py",
    "bench/test_suite.py",
    "cli/test_cli.py",
    "cli/test_first_hour.py",
    "engine/test_prefetch.py",
    "engine/test_profiling.py",
    "inputs/test_self_test.py",
    "streaming/",
    "test_end_to_end.py",
    "test_examples.py",
)
_OFF_THE_CLOCK = ("streaming/files/", "streaming/marking/")
_TESTS = Path(__file__).parent


def _on_the_clock(item: pytest.Item) -> bool:
    place = item.path.relative_to(_TESTS).as_posix()
    return place.startswith(_ON_THE_CLOCK) and not place.startswith(_OFF_THE_CLOCK)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is on the clock comes last, where two tests run at a time."""
    if _RUN in os.environ:
        items.sort(key=_on_the_clock)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """A test on the clock has the machine to itself: the others share a lock, it holds it alone."""
    if _RUN not in os.environ:
        return (yield)
    with open(__file__) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if _on_the_clock(item) else fcntl.LOCK_SH)
        return (yield)
