"""What all tests share: where the pinned model and the real clips may lie."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.turns import ALONE, Turns

_BESIDE = Path(__file__).parents[2] / "shared" / "assets"
_RUN = "PYTEST_XDIST_TESTRUNUID"  # set in each process of pytest-xdist, and the same in all of them

# Before NumPy is loaded: its threads wait for one another by turning, and where processes share the
# cores that costs ten times the work.
if _RUN in os.environ:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

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


# Where several processes run the tests, `make test`, a test shares the machine with tests of its
# kind: those that compute, or calls, which play in real time and mostly wait. A test that holds the
# clock to account is marked `alone`.
_TESTS = Path(__file__).parent
_CALLS = _TESTS / "streaming"
_NO_CALLS = ("batch/", "files/", "marking/", "session/", "webrtc/test_networks.py")
_TURNS = Turns(gate=_TESTS, kinds={"computes": _TESTS / "engine", "calls": _CALLS})


def _kind(item: pytest.Item) -> str:
    if item.get_closest_marker(ALONE):
        return ALONE
    if not item.path.is_relative_to(_CALLS):
        return "computes"
    place = item.path.relative_to(_CALLS).as_posix()
    return "computes" if place.startswith(_NO_CALLS) else "calls"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of one kind follow one another."""
    if _RUN in os.environ:
        kinds: dict[Path, set[str]] = {}
        for item in items:
            kinds.setdefault(item.path, set()).add(_kind(item))
        # Those of both kinds go first.
        items.sort(key=lambda one: [kind not in kinds[one.path] for kind in _TURNS.kinds])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Each test in its turn."""
    if _RUN not in os.environ:
        return (yield)
    with _TURNS.take(_kind(item)):
        return (yield)
