"""How the kernels are compiled. Standard library only: setup.py runs this before installation.

    python kernels/build.py            the CPU library, beside this file
    python kernels/build.py --gpu      lipstream.fatbin, with nvcc
    python kernels/build.py --sanitize FILE    the CPU library with AddressSanitizer and UBSan

setup.py declares the same sources and flags as an optional extension named EXTENSION_NAME, so a
machine without a compiler installs too and runs the NumPy twins.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent

EXTENSION_NAME = "lipstream.kernels._cpu"
HEADER = HERE / "lipstream_kernels.h"  # every entry point
SOURCES = [  # relative to the root of the project, as setuptools wants them
    "kernels/color.cpp",
    "kernels/composite.cpp",
    "kernels/convolution.cpp",
    "kernels/crop.cpp",
    "kernels/encoder.cpp",
    "kernels/face.cpp",
    "kernels/face_painter.cpp",
    "kernels/features.cpp",
    "kernels/interface.cpp",
    "kernels/mesh.cpp",
    "kernels/oral_cavity.cpp",
    "kernels/viterbi.cpp",
    "kernels/watermark.cpp",
]
HEADERS = [
    "kernels/cuda/common.cuh",
    "kernels/cuda/color.cuh",
    "kernels/cuda/viterbi.cuh",
    "kernels/cuda/mesh.cuh",
    "kernels/cuda/composite.cuh",
    "kernels/cuda/stage.cuh",
    "kernels/cuda/strip.cuh",
]
CPU_HEADERS = [  # the fat binary needs only HEADERS
    *HEADERS,
    "kernels/cpu.h",
    "kernels/face_math.h",
    "kernels/lipstream_kernels.h",
]
# No -march=native (wheels travel; the hot loops choose their instruction set at run time) and no
# -ffast-math; -ffp-contract=off keeps floats equal to NumPy's on machines that fuse, and
# -fno-trapping-math changes no value but lets comparisons of floats become vector code. A loop
# that crosses a cache line costs `min_plus` a fifth, and where loops begin changes with every edit.
COMPILE_FLAGS = [
    "-std=c++17",
    "-O3",
    "-ffp-contract=off",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-falign-loops=64",
]

# In place of -O3; a finding ends the process.
SANITIZE_FLAGS = [
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
]

FATBIN = "lipstream.fatbin"
# The oldest that knows all of these architectures: a driver compiles no PTX of a newer CUDA than
# its own, and one of 13.0 would refuse that of 13.1.
NVCC_RELEASE = "13.0"
# Ampere to Blackwell as machine code; the PTX serves what comes later.
GPU_FLAGS = [
    "-std=c++17",
    "-O3",
    "--fmad=false",
    "-fatbin",
    "--compress-mode=size",
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_86,code=sm_86",
    "-gencode=arch=compute_89,code=sm_89",
    "-gencode=arch=compute_90,code=[sm_90,compute_90]",
    "-gencode=arch=compute_100,code=sm_100",
    "-gencode=arch=compute_120,code=[sm_120,compute_120]",
]


def interface_digest() -> int:
    """64 bits of what the header declares; the library has it compiled in."""
    text = re.sub(r"//[^\n]*", "", HEADER.read_text(encoding="utf-8"))
    digest = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
    return int(digest[:16], 16)


def compile_flags() -> list[str]:
    """COMPILE_FLAGS and the header's digest."""
    return [*COMPILE_FLAGS, f"-DLS_INTERFACE={interface_digest():#x}"]


def compile_cpu(output: Path = HERE / "_cpu.so", extra_flags: Sequence[str] = ()) -> Path:
    """Compile the CPU library with $CXX (g++ if unset); returns its path."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise SystemExit(f"{compiler} is not on the path; install a C++ compiler (Debian: g++)")
    sources = [str(HERE.parent / source) for source in SOURCES]
    part = output.with_name(f"{output.stem}.{os.getpid()}.tmp")
    subprocess.run(
        [compiler, *compile_flags(), *extra_flags, "-shared", "-fPIC", "-o", str(part), *sources],
        check=True,
    )
    part.replace(output)  # a running process keeps the old one
    return output


def gpu_sources_digest() -> str:
    """SHA-256 over what the fat binary is made of; FATBIN.sha256 holds that of the last build."""
    names = [*HEADERS, "kernels/cuda/lipstream.cu"]
    content = b"".join((HERE.parent / name).read_bytes() for name in names)
    made_by = " ".join([f"nvcc {NVCC_RELEASE}", *GPU_FLAGS])
    return hashlib.sha256(content + made_by.encode()).hexdigest()


def compile_gpu() -> Path:
    """Compile the fat binary beside this file with nvcc; returns its path."""
    output = HERE / "cuda" / FATBIN
    if shutil.which("nvcc") is None:
        raise SystemExit("nvcc is not on the path; the fat binary in the repository needs none")
    said = subprocess.run(["nvcc", "--version"], check=True, capture_output=True, text=True).stdout
    if f"release {NVCC_RELEASE}," not in said:
        raise SystemExit(f"nvcc is not of CUDA {NVCC_RELEASE}: a driver takes no newer PTX")
    source = str(HERE / "cuda" / "lipstream.cu")
    subprocess.run(["nvcc", *GPU_FLAGS, "-o", str(output), source], check=True)
    (HERE / "cuda" / f"{FATBIN}.sha256").write_text(gpu_sources_digest() + "\n")
    return output


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="the fat binary instead")
    parser.add_argument("--sanitize", type=Path, metavar="FILE", help="with sanitizers, into FILE")
    options = parser.parse_args()
    if options.gpu:
        path = compile_gpu()
    elif options.sanitize:
        path = compile_cpu(options.sanitize, SANITIZE_FLAGS)
    else:
        path = compile_cpu()
    sys.stdout.write(f"{path} {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
