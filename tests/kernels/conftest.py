"""Compiled kernels are tested where they are built; elsewhere the tests say so and are skipped."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lipstream.engine.errors import BackendUnavailable
from lipstream.kernels import build, dispatch, native

ROOT = Path(build.__file__).resolve().parents[1]
SANITIZED = "LIPSTREAM_SANITIZED_KERNELS"  # `make sanitize`: the library to test in place of both


@pytest.fixture(scope="session", autouse=True)
def sanitized():
    """Where $LIPSTREAM_SANITIZED_KERNELS names a library, all tests run that one."""
    if SANITIZED not in os.environ:
        yield
        return
    loaded = native.open_library(Path(os.environ[SANITIZED]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "library", lambda: loaded)
        yield


@pytest.fixture(scope="session")
def baseline(made_once):
    """The library built for plain x86-64, as an old machine runs it."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not on the path")
    return native.open_library(made_once("kernels", _build_baseline) / "_cpu.so")


def _build_baseline(folder):
    sources = [str(ROOT / source) for source in build.SOURCES]
    flags = [*build.compile_flags(), "-DLS_BASELINE_ONLY", "-shared", "-fPIC"]
    if SANITIZED in os.environ:
        flags += build.SANITIZE_FLAGS
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command = ["g++", *flags, "-o", str(folder / "_cpu.so"), *sources]
    subprocess.run(command, check=True, env=environment)


@pytest.fixture(scope="module", params=["installed", "baseline"])
def library(request):
    """The library as installed, and the one for plain x86-64."""
    if request.param == "installed":
        try:
            native.library()
        except BackendUnavailable as missing:
            pytest.skip(str(missing))
        yield
        return
    loaded = request.getfixturevalue("baseline")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "library", lambda: loaded)
        yield


@pytest.fixture(params=["compiled", "numpy"], scope="module")
def kernels(request):
    """Each implementation in turn, as a process chooses it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(dispatch.ENVIRONMENT_VARIABLE, request.param)
        dispatch.implementation.cache_clear()
        try:
            dispatch.implementation()
        except BackendUnavailable as missing:
            dispatch.implementation.cache_clear()
            pytest.skip(str(missing))
        yield request.param
    dispatch.implementation.cache_clear()
