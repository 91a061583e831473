"""Gathers what the proof needs on a machine that has a card, torch and NumPy, and no network.

    python -m lipstream.bench.gpu.kit -o DIR --python python3.12

DIR then holds the package, pycuda for that Python, and `run`, which starts the proof. `--python` is
a Python of the version that the other machine has, with its headers.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from lipstream.bench.commit import commit
from lipstream.bench.gpu.pycuda_wheel import build_wheel, install
from lipstream.engine.errors import BackendUnavailable

ROOT: Final = Path(__file__).resolve().parents[2]
MOST_BYTES: Final = 60 << 20  # that travel
_PACKAGES: Final = ("lipstream", "engine", "kernels", "bench")
_SUFFIXES: Final = (".py", ".onnx", ".safetensors", ".cu", ".cuh", ".h", ".fatbin", ".sha256")
_ALSO: Final = ("safetensors>=0.5",)  # reads the weights
_RUN: Final = """#!/bin/sh
# The proof on this machine's card; give -o DIR. PYTHON: a python with torch for CUDA 13 and NumPy.
here=$(cd "$(dirname "$0")" && pwd)
LIPSTREAM_COMMIT={commit} PYTHONPATH="$here:$here/site" \\
    exec "${{PYTHON:-python3}}" -m lipstream.bench.gpu "$@"
"""


def copy_package(onto: Path) -> None:
    """The modules and weights of a checkout, as they are installed: all below lipstream/; and
    `run`."""
    for name in _PACKAGES:
        base = ROOT / name
        for source in sorted(base.rglob("*")):
            inner = source.relative_to(base)
            linked = name == "lipstream" and inner.parts[0] in _PACKAGES + (
                "calibration", "streaming",
            )  # fmt: skip
            if source.suffix in _SUFFIXES and source.is_file() and not linked:
                copy = onto / "lipstream" / ("" if name == "lipstream" else name) / inner
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
    run = onto / "run"
    run.write_text(_RUN.format(commit=commit() or "unknown"))
    run.chmod(0o755)


def gather(onto: Path, python: str) -> int:
    """Everything into a new folder; its size in bytes.

    Raises: BackendUnavailable where pycuda cannot be built, or where it is too large to travel.
    """
    copy_package(onto)
    with tempfile.TemporaryDirectory() as work:
        wheel = build_wheel(python, Path(work))
        install(Path(work) / "environment" / "bin" / "python", wheel, onto / "site", _ALSO)
    shutil.rmtree(onto / "site" / "bin", ignore_errors=True)
    size = sum(path.stat().st_size for path in onto.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        raise BackendUnavailable(f"{onto} has {size} bytes, expected at most {MOST_BYTES}")
    return size


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m lipstream.bench.gpu.kit", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--python", default=sys.executable, help="of the other machine's version")
    options = parser.parse_args()
    onto: Path = options.output.resolve()
    if onto.exists() and any(onto.iterdir()):
        sys.stderr.write(f"error: {onto} is not empty\n")
        return 2
    try:
        size = gather(onto, options.python)
    except BackendUnavailable as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{onto} {size / 2**20:.1f} MiB; there: ./run -o DIR\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
