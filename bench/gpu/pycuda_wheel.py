"""Builds a wheel of pycuda without a card, a driver or nvcc.

pycuda comes as source alone. It needs CUDA's headers, which NVIDIA serves as wheels, and something
to link against: a library that is called as the driver and has no card. The same stand-in, with
every function that the wheel asks for, then shows that the wheel imports and what it says of a
machine without a card.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from lipstream.engine.errors import BackendUnavailable

PYCUDA: Final = "pycuda==2026.1"
# 13.0, the oldest of CUDA 13: newer headers ask a driver for functions that it may not have.
_HEADERS: Final = ("nvidia-cuda-runtime==13.0.96", "nvidia-cuda-profiler-api==13.0.85")
_TOOLS: Final = ("setuptools==84.2.1", "wheel", "numpy>=2.0")
_DRIVER: Final = "libcuda.so.1"
_NO_DEVICE: Final = 100  # CUDA_ERROR_NO_DEVICE
_STUB: Final = """
#include <stddef.h>
int cuGetErrorString(int error, const char **text) {
    *text = error == %(code)d ? "no CUDA-capable device is detected" : "unknown error";
    return 0;
}
int cuGetErrorName(int error, const char **text) { return cuGetErrorString(error, text); }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
"""
_OWN: Final = ("cuGetErrorString", "cuGetErrorName", "cuDriverGetVersion")


def build_stub(folder: Path, names: Iterable[str]) -> Path:
    """A driver in `folder` whose functions all say that there is no card; returns the folder.

    Raises: BackendUnavailable without a C compiler.
    """
    if shutil.which("gcc") is None:
        raise BackendUnavailable("gcc is not on the path; it compiles a driver without a card")
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "no_card.c"
    others = sorted({"cuInit", *names} - set(_OWN))
    source.write_text(
        _STUB % {"code": _NO_DEVICE}
        + "".join(f"int {name}(void) {{ return {_NO_DEVICE}; }}\n" for name in others)
    )
    library = folder / _DRIVER
    _run(["gcc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{_DRIVER}", "-o", library, source])
    plain = folder / "libcuda.so"  # what the linker looks for
    plain.unlink(missing_ok=True)
    plain.symlink_to(_DRIVER)
    return folder


def driver_functions(site: Path) -> set[str]:
    """The driver's functions that the compiled part of pycuda in `site` asks for."""
    (library,) = (site / "pycuda").glob("_driver*.so")
    listed = _run(["nm", "-D", "--undefined-only", library])
    return set(re.findall(r"\bU (cu[A-Z]\w+)", listed))


def build_wheel(python: str, folder: Path, flags: Sequence[str] = ("-O1", "-g0", "-w")) -> Path:
    """A wheel for `python` (a program with its headers), in `folder`; minutes.

    Raises: BackendUnavailable where a step fails, with the end of what it said.
    """
    environment = folder / "environment"
    _run([python, "-m", "venv", "--clear", environment])
    own = environment / "bin" / "python"
    pip = [own, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _run([*pip, "install", *_TOOLS, *_HEADERS])
    _run([*pip, "download", "--no-deps", "--no-build-isolation", "--no-binary", "pycuda",
          "--dest", folder, PYCUDA])  # fmt: skip
    (archive,) = folder.glob("pycuda-*.tar.gz")
    with tarfile.open(archive) as packed:
        # Python below 3.11.4, Debian 12's own among them, has no filters and ignores this.
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(folder)
    source = folder / archive.name.removesuffix(".tar.gz")
    (headers,) = environment.glob("lib/python*/site-packages/nvidia/cu13")
    stub = build_stub(folder / "stub", ())
    _run([own, "configure.py", f"--cuda-root={headers}", "--no-cuda-enable-curand",
          f"--cudadrv-lib-dir={stub}", f"--cxxflags={','.join(flags)}"], source)  # fmt: skip
    _run([*pip, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, "."], source)
    (wheel,) = folder.glob("pycuda-*.whl")
    return wheel


def install(python: Path, wheel: Path, site: Path, also: Sequence[str] = ()) -> None:
    """The wheel with what it needs, and `also`, unpacked into `site`."""
    _run([python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-compile",
          "--target", site, wheel, *also])  # fmt: skip


def _run(command: Sequence[object], folder: Path | None = None) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        said = done.stdout.strip()[-600:]
        raise BackendUnavailable(f"`{' '.join(words[:4])} …` fails: {said}")
    return done.stdout


def main() -> None:
    """Build for the running Python, into the folder that is named."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"{build_wheel(sys.executable, folder)}\n")


if __name__ == "__main__":
    main()
