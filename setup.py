"""Where the packages lie, and the optional compiled kernels; everything else is in pyproject.toml.

The folders stay at the root of the repository and install as `lipstream.engine`, …. Every
subpackage must be named here: tests/packaging/test_layout.py fails when one is not.
"""

from __future__ import annotations

import os
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

PACKAGES = [
    "lipstream",
    "lipstream.bench",
    "lipstream.bench.gpu",
    "lipstream.bench.measure",
    "lipstream.bench.report",
    "lipstream.calibration",
    "lipstream.calibration.fitting",
    "lipstream.calibration.footage",
    "lipstream.calibration.media",
    "lipstream.calibration.person",
    "lipstream.calibration.photo",
    "lipstream.calibration.report",
    "lipstream.calibration.tracking",
    "lipstream.calibration.training",
    "lipstream.calibration.training.encoder",
    "lipstream.calibration.training.renderer",
    "lipstream.calibration.training.speech",
    "lipstream.engine",
    "lipstream.engine.face",
    "lipstream.engine.networks",
    "lipstream.engine.rendering",
    "lipstream.engine.retrieval",
    "lipstream.engine.speech",
    "lipstream.engine.target",
    "lipstream.engine.watermark",
    "lipstream.engine.weights",
    "lipstream.kernels",
    "lipstream.kernels.cuda",
    "lipstream.kernels.reference",
    "lipstream.streaming",
    "lipstream.streaming.batch",
    "lipstream.streaming.cluster",
    "lipstream.streaming.devices",
    "lipstream.streaming.files",
    "lipstream.streaming.integrations",
    "lipstream.streaming.marking",
    "lipstream.streaming.server",
    "lipstream.streaming.remote",
    "lipstream.streaming.session",
    "lipstream.streaming.webrtc",
    "lipstream.streaming.workers",
]

FOLDERS = {
    "lipstream": "lipstream",
    "lipstream.engine": "engine",
    "lipstream.kernels": "kernels",
    "lipstream.calibration": "calibration",
    "lipstream.streaming": "streaming",
    "lipstream.bench": "bench",
}


# What to compile and how: the same file that `python kernels/build.py` runs.
KERNELS = runpy.run_path(str(Path(__file__).parent / "kernels" / "build.py"))


class BuildKernels(build_ext):
    """Builds the kernels as a plain shared library that ctypes loads: no Python headers.

    Without a C++ compiler the install goes on and the NumPy twins run; `lipstream doctor`
    says which of the two a machine has.
    """

    def build_extensions(self) -> None:
        """Sources are compiled side by side."""
        compile_in_turn = self.compiler.compile

        def compile(sources: list[str], *given: Any, **named: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                made = pool.map(lambda one: compile_in_turn([one], *given, **named), sources)
                return [path for objects in made for path in objects]

        self.compiler.compile = compile
        super().build_extensions()

    def get_ext_filename(self, fullname: str) -> str:
        """The library's name carries no interpreter tag, because it needs no interpreter."""
        return fullname.replace(".", "/") + (".dll" if sys.platform == "win32" else ".so")


class WheelForEveryPython(bdist_wheel):
    """Tied to the machine by the kernels, but to no version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """py3-none-PLATFORM."""
        return "py3", "none", super().get_tag()[2]


setup(
    packages=PACKAGES,
    package_dir=FOLDERS,
    package_data={
        "lipstream": ["py.typed"],
        "lipstream.engine.weights": ["*.safetensors", "*.onnx"],
        "lipstream.kernels": ["*.cpp", "*.h"],
        "lipstream.kernels.cuda": ["*.cu", "*.cuh", "*.fatbin", "*.sha256"],
        "lipstream.calibration": ["*.ogg", "*.safetensors"],
        "lipstream.calibration.report": ["*.html", "*.css"],
        "lipstream.streaming.server": ["*.json", "web/*"],
    },
    ext_modules=[
        Extension(
            KERNELS["EXTENSION_NAME"],
            sources=KERNELS["SOURCES"],
            depends=KERNELS["CPU_HEADERS"],
            extra_compile_args=KERNELS["compile_flags"](),
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": WheelForEveryPython},
)
