"""Where the packages lie, and the optional compiled kernels; everything else is in pyproject.toml.

The folders stay at the root of the repository and install as `lipstream.engine`, …. Every
subpackage must be named here: tests/packaging/test_layout.py fails when one is not.
"""

from __future__ import annotations

import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGES = [
    "lipstream",
    "lipstream.engine",
    "lipstream.engine.backends",
    "lipstream.engine.weights",
    "lipstream.kernels",
    "lipstream.calibration",
    "lipstream.calibration.pretrain",
    "lipstream.streaming",
    "lipstream.bench",
]

FOLDERS = {
    "lipstream": "lipstream",
    "lipstream.engine": "engine",
    "lipstream.kernels": "kernels",
    "lipstream.calibration": "calibration",
    "lipstream.streaming": "streaming",
    "lipstream.bench": "bench",
}


class BuildKernels(build_ext):
    """Builds kernels/cpu.cpp as a plain shared library that ctypes loads: no Python headers.

    Without a C++ compiler the install goes on and the NumPy twins run; `lipstream doctor`
    says which of the two a machine has.
    """

    def get_ext_filename(self, fullname: str) -> str:
        """The library's name carries no interpreter tag, because it needs no interpreter."""
        return fullname.replace(".", "/") + (".dll" if sys.platform == "win32" else ".so")


setup(
    packages=PACKAGES,
    package_dir=FOLDERS,
    package_data={
        "lipstream": ["py.typed"],
        "lipstream.engine.weights": ["*.safetensors", "*.onnx", "*.json", "*.npz"],
        "lipstream.kernels": ["*.cpp", "*.h", "*.cu"],
        "lipstream.calibration": ["*.flac", "*.safetensors", "*.npz", "*.html", "*.json", "data/*"],
        "lipstream.streaming": ["*.flac"],
    },
    ext_modules=[
        Extension(
            "lipstream.kernels._cpu",
            sources=["kernels/cpu.cpp"],
            language="c++",
            extra_compile_args=["-O3", "-std=c++17", "-fno-math-errno", "-ffp-contract=off"],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
)
