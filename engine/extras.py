"""Optional dependencies: which are missing, and the command that installs them into this Python."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lipstream.engine.errors import UsageError

# Extra of pyproject.toml -> modules that it brings.
MODULES: Final = {
    "calibrate": ("mediapipe", "cv2", "skimage", "scipy", "PIL", "jinja2"),
    "torch": ("torch", "onnx"),
    "present": ("sdl2", "pyvirtualcam"),
    "ray": ("ray",),
    "remote": ("fsspec",),
}


def pip_install(extra: str) -> str:
    """The command, for the interpreter that runs this: a bare `pip` may belong to another one."""
    pip = shutil.which("pip")
    own = pip is not None and Path(pip).parent == Path(sys.executable).parent
    command = "pip" if own else f"{shlex.quote(sys.executable)} -m pip"
    return f"{command} install 'lipstream[{extra}]'"


def missing(modules: Iterable[str]) -> list[str]:
    """Those of the modules that are not installed; none is imported."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def require(extra: str, what: str, *modules: str) -> None:
    """Check that `what` has these modules of an extra, or all of them.

    Raises: UsageError, with the command to run.
    """
    absent = missing(modules or MODULES[extra])
    if absent:
        raise UsageError(f"{what} needs {absent[0]}, which is not installed: {pip_install(extra)}")


def extra_of(module: str) -> str | None:
    """The extra that brings a module, by its name; None for modules of the base install."""
    root = module.partition(".")[0]
    return next((extra for extra, modules in MODULES.items() if root in modules), None)
