"""Which implementation of the kernels runs: chosen once, explicitly, and logged."""

from __future__ import annotations

import functools
import logging
import os
from typing import Literal

from lipstream.kernels import native
from lipstream.kernels.errors import BackendUnavailable, UsageError

logger = logging.getLogger(__name__)

Implementation = Literal["compiled", "numpy"]

ENVIRONMENT_VARIABLE = "LIPSTREAM_KERNELS"  # compiled | numpy; unset means compiled if present


@functools.cache
def implementation() -> Implementation:
    """The implementation that this process uses, decided at the first call.

    Raises:
        UsageError: $LIPSTREAM_KERNELS names none.
        BackendUnavailable: it names the compiled one, which cannot be loaded.
    """
    wanted = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if wanted not in ("", "compiled", "numpy"):
        raise UsageError(
            f"{ENVIRONMENT_VARIABLE} is {wanted!r}; expected 'compiled' or 'numpy', or unset it"
        )
    if wanted == "numpy":
        logger.info("kernels chosen", extra={"kernels": "numpy", "reason": ENVIRONMENT_VARIABLE})
        return "numpy"
    try:
        native.library()
    except BackendUnavailable as missing:
        if wanted == "compiled":
            raise
        logger.warning(
            "no compiled kernels: the NumPy twins run, slower (`lipstream doctor` says why)",
            extra={"kernels": "numpy", "reason": str(missing)},
        )
        return "numpy"
    logger.info("kernels chosen", extra={"kernels": "compiled", "reason": wanted or "present"})
    return "compiled"


def use_native() -> bool:
    """Whether the compiled code runs."""
    return implementation() == "compiled"
