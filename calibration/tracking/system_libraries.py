"""Libraries of the system that the wheels of OpenCV and MediaPipe load and do not contain."""

from __future__ import annotations

import ctypes
from typing import Final

# Library -> Debian package; .ci/system-packages has the same list for the shell.
SYSTEM_LIBRARIES: Final = {
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libGL.so.1": "libgl1",
    "libxcb.so.1": "libxcb1",
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
}


def loads(library: str) -> bool:
    """Whether the system has it."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def missing_libraries() -> dict[str, str]:
    """Those that are not here, with the Debian package of each."""
    return {lib: package for lib, package in SYSTEM_LIBRARIES.items() if not loads(lib)}


def missing_packages() -> list[str]:
    """Debian packages of the libraries that are not here."""
    return list(missing_libraries().values())
