"""pycuda, and a driver: none, one without a card, and one whose card is the host.

Building pycuda takes two minutes of processor time, so it is done when it is asked for:
LIPSTREAM_PYCUDA=1 builds it, and a path names a folder where `pip install --target` has put it.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from lipstream.bench.gpu.cases import KERNELS, Pictures, make_case
from lipstream.bench.gpu.host import HostDriver
from lipstream.bench.gpu.pycuda_wheel import build_stub, build_wheel, driver_functions, install
from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.networks.gpus import find_gpus

LOAD = "from lipstream.kernels.cuda import loader\nloader.load()\n"
OWN = Path(__file__).with_name("driver_on_host.c")


def test_a_driver_without_a_card_is_believed(tmp_path: Path) -> None:
    library = ctypes.CDLL(str(build_stub(tmp_path, ["cuDeviceGetCount"]) / "libcuda.so.1"))
    with pytest.raises(BackendUnavailable, match="finds no GPU .CUDA error 100"):
        find_gpus(library)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pycuda."""
    asked = os.environ.get("LIPSTREAM_PYCUDA", "")
    if not asked:
        pytest.skip("building pycuda takes minutes: LIPSTREAM_PYCUDA=1 does it")
    if asked != "1":
        return Path(asked)
    work = tmp_path_factory.mktemp("pycuda")
    wheel = build_wheel(sys.executable, work, ("-O0", "-g0", "-w"))
    install(Path(sys.executable), wheel, work / "site")
    return work / "site"


def python(program: str | list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["-c", program] if isinstance(program, str) else program
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def beside(site: Path, driver: Path) -> Mapping[str, str]:
    return {"PYTHONPATH": str(site), "LD_LIBRARY_PATH": str(driver)}


def test_without_a_driver_the_driver_is_named(site: Path, tmp_path: Path) -> None:
    done = python(LOAD, **beside(site, tmp_path))
    assert "there is no NVIDIA driver for pycuda (libcuda.so.1: cannot open" in done.stderr


def test_without_a_card_the_card_is_named(site: Path, tmp_path: Path) -> None:
    driver = build_stub(tmp_path, driver_functions(site))
    done = python(LOAD, **beside(site, driver))
    assert done.returncode == 1
    assert "BackendUnavailable: no CUDA device 0 (cuInit failed: no CUDA-capable" in done.stderr
    assert "check `nvidia-smi`" in done.stderr
    assert "ImportError" not in done.stderr


def test_the_stand_in_has_no_name_that_pycuda_has_not(site: Path, tmp_path: Path) -> None:
    driver = build_stub(tmp_path, driver_functions(site))
    names = [name for name in vars(HostDriver) if not name.startswith("_")]
    names = [name for name in names if name not in ("push", "pop", "detach")]  # a context's
    program = f"import pycuda.driver as d\nprint([n for n in {names} if not hasattr(d, n)])"
    assert python(program, **beside(site, driver)).stdout == "[]\n"


def test_the_proof_runs_through_pycuda_itself(site: Path, tmp_path: Path, folder: Path) -> None:
    """Real pycuda, the real loader, `--device cuda`; the driver's card is the host."""
    kinds = {}
    pictures = Pictures(np.random.default_rng(0), 1, (16, 24))
    for kernel in KERNELS:
        case = make_case(kernel, pictures)
        kinds[case.kernel] = "".join("P" if isinstance(a, str) else "i" for a in case.arguments)
    signatures = " ".join(f'{{"{name}", "{kind}"}},' for name, kind in kinds.items())
    built = tmp_path / "driver"
    build_stub(built, driver_functions(site))  # what this driver has not, so that pycuda loads
    others = built / "others.c"
    own = set(_defined(OWN.read_text()))
    missing = sorted(driver_functions(site) - own)
    others.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in missing))
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-w", f"-DSIGNATURES={signatures}", "-Wl,-soname,libcuda.so.1"]
        + ["-o", str(built / "libcuda.so.1"), str(OWN), str(others), "-ldl"],
        check=True,
    )
    where = {**beside(site, built), "KERNELS_ON_HOST": str(folder / "kernels_on_host.so")}
    for phase in ("ceilings", "kernels", "times"):
        command = ["-m", "lipstream.bench.gpu", "--phase", phase, "--small", "-o", str(tmp_path)]
        done = python(command, **where)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    ceilings = json.loads((tmp_path / "phase_ceilings.json").read_text())["result"]
    assert ceilings["device"]["card"] == "a host" and ceilings["to_card_gb_s"] > 0
    assert "products_failed" in ceilings, "torch has no such card, and the rest goes on"
    found = json.loads((tmp_path / "phase_kernels.json").read_text())["result"]
    assert found["wrong"] == []
    assert {row["kernel"] for row in found["checks"]} == set(kinds)
    times = json.loads((tmp_path / "phase_times.json").read_text())["result"]["kernels"]
    assert all(row["ms"] > 0 for row in times.values())


def _defined(source: str) -> list[str]:
    return [line.split("(")[0][4:] for line in source.splitlines() if line.startswith("int cu")]
