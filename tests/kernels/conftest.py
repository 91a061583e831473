"""Compiled kernels are tested where they are built; elsewhere the tests say so and are skipped."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lipstream.engine.errors import BackendUnavailable
from lipstream.kernels import build, native

ROOT = Path(build.__file__).resolve().parents[1]


@pytest.fixture(scope="module", params=["installed", "baseline"])
def library(request, tmp_path_factory):
    """The library as installed, and built for plain x86-64, as an old machine would run it."""
    if request.param == "installed":
        try:
            native.library()
        except BackendUnavailable as missing:
            pytest.skip(str(missing))
        yield
        return
    if shutil.which("g++") is None:
        pytest.skip("g++ is not on the path")
    path = tmp_path_factory.mktemp("kernels") / "_cpu.so"
    sources = [str(ROOT / source) for source in build.SOURCES]
    flags = [*build.COMPILE_FLAGS, "-DLS_BASELINE_ONLY", "-shared", "-fPIC"]
    subprocess.run(["g++", *flags, "-o", str(path), *sources], check=True)
    loaded = native.open_library(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "library", lambda: loaded)
        yield
