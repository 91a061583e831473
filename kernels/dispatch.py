"""The one choice of compiled code or NumPy twin: made once a process, explicitly, and logged."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, ParamSpec, TypeVar

from lipstream.kernels import native
from lipstream.kernels.errors import BackendUnavailable, UsageError

logger = logging.getLogger(__name__)

Implementation = Literal["compiled", "numpy"]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

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


@dataclass(frozen=True, slots=True)
class Kernel(Generic[Arguments, Result]):
    """A kernel's two implementations; a call runs the one that was chosen."""

    native: Callable[Arguments, Result]
    reference: Callable[Arguments, Result]

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Run the chosen one."""
        return (self.native if use_native() else self.reference)(*args, **kwargs)


def kernel(
    reference: Callable[Arguments, Result],
) -> Callable[[Callable[Arguments, Result]], Kernel[Arguments, Result]]:
    """Decorates the call of a compiled kernel with its NumPy twin."""
    return lambda native: Kernel(native, reference)
