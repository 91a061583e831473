"""The compiled library: found, held to its header, and its functions ready to take arrays.

The types of every call come from `lipstream_kernels.h`. A parameter that points at numbers takes
an array of just that dtype, contiguous, and writable unless the header says `const`; None stands
for a null pointer. Shapes and ranges are the wrappers' business.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lipstream.kernels import interface
from lipstream.kernels.build import HEADER, interface_digest
from lipstream.kernels.errors import BackendUnavailable

_REMEDY: Final = (
    "run `python kernels/build.py` in the source tree, or reinstall with a C++ compiler"
)
_SCALARS: Final[dict[str, Any]] = {
    "uint8_t": ctypes.c_uint8, "uint16_t": ctypes.c_uint16, "int8_t": ctypes.c_int8,
    "int16_t": ctypes.c_int16, "int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64, "float": ctypes.c_float, "double": ctypes.c_double,
}  # fmt: skip


@functools.cache
def library() -> Any:
    """The shared library: a function for each entry point.

    Raises:
        BackendUnavailable: it was not built, does not load, or was made from another header.
    """
    # setuptools writes _cpu.<platform>.so, build.py writes _cpu.so; the newest is meant.
    found = [p for p in Path(__file__).parent.glob("_cpu*") if p.suffix in (".so", ".dll")]
    if not found:
        raise BackendUnavailable(f"compiled kernels were not built; {_REMEDY}")
    path = max(found, key=lambda candidate: candidate.stat().st_mtime)
    return open_library(path)


def open_library(path: Path) -> Any:
    """The library in this file.

    Raises:
        BackendUnavailable: it does not load, or was made from another header.
    """
    try:
        # A long kernel lets go of the interpreter's lock, a short one would wait longer to have it
        # back than it runs: docs/decisions/002-kernel-calls.md.
        letting_go, holding = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
        holding.ls_interface.restype = ctypes.c_uint64
        digest = holding.ls_interface()
    except (OSError, AttributeError) as error:
        raise BackendUnavailable(f"{path.name} does not load ({error}); {_REMEDY}") from error
    if digest != interface_digest():
        raise BackendUnavailable(f"{path.name} was made from another {HEADER.name}; {_REMEDY}")
    functions = {}
    for name, function in declared().functions.items():
        if function.lock != interface.HOLDS:
            functions[name] = _callable(letting_go, function)
        if function.lock != interface.LETS_GO:
            brief = f"{name}_brief" if function.lock == interface.EITHER else name
            functions[brief] = _callable(holding, function)
    return SimpleNamespace(**functions)


@functools.cache
def declared() -> interface.Interface:
    """What the header declares."""
    return interface.parse(HEADER.read_text(encoding="utf-8"))


@functools.cache
def structure(name: str) -> Any:
    """A structure of the header, as ctypes knows it."""
    fields = [(field.name, _field_type(field)) for field in declared().structures[name]]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def array_fields(name: str) -> dict[str, np.dtype[Any]]:
    """The dtypes of the arrays that a structure points at, by name."""
    return {
        field.name: np.dtype(_SCALARS[field.type])
        for field in declared().structures[name]
        if field.pointers
    }


def address(array: NDArray[Any]) -> int:
    """Where its data lies, for a field of a structure."""
    try:
        return ctypes.addressof(_from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # not to be written to, or empty
        where: int = array.__array_interface__["data"][0]
        return where


def empty(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Memory that a kernel writes. The tests put guard bytes round it."""
    return np.empty(shape, dtype)


def zeros(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Memory that a kernel writes in part."""
    return np.zeros(shape, dtype)


def _callable(library: ctypes.CDLL, function: interface.Function) -> Any:
    found = getattr(library, function.name)
    found.argtypes = [_parameter_type(one) for one in function.parameters]
    found.restype = _SCALARS.get(function.result)
    return found


def _parameter_type(parameter: interface.Variable) -> Any:
    if not parameter.pointers:
        return _SCALARS[parameter.type]
    if parameter.pointers > 1:
        return ctypes.c_void_p
    if parameter.type in _SCALARS:
        return _array_type(parameter.type, parameter.is_const)
    return ctypes.POINTER(structure(parameter.type))


def _field_type(field: interface.Variable) -> Any:
    if field.pointers:
        return ctypes.c_void_p
    kind = _SCALARS.get(field.type) or structure(field.type)
    return kind if field.length is None else kind * field.length


@functools.cache
def _array_type(name: str, is_const: bool) -> Any:
    """A type of parameter that takes arrays of one dtype; ctypes calls `from_param`."""
    dtype = np.dtype(_SCALARS[name])

    class Array:
        @staticmethod
        def from_param(array: NDArray[Any] | None) -> Any:
            if array is None:
                return None
            if array.dtype is not dtype and array.dtype != dtype:
                raise TypeError(f"an array of {array.dtype}; expected {dtype}")
            try:
                return _by_reference(_from_buffer(array))  # type: ignore[arg-type]
            except (TypeError, ValueError):  # not contiguous, not to be written to, or empty
                if not array.flags.c_contiguous or not (is_const or array.flags.writeable):
                    raise
                return ctypes.c_void_p(address(array))

    return Array


# A fifth of what `array.ctypes.data` takes, sixty times a frame.
_from_buffer, _by_reference = ctypes.c_char.from_buffer, ctypes.byref
