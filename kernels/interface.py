"""What `lipstream_kernels.h` declares, as Python reads it.

The header keeps to a small part of C, and the parser to that part: a text that it does not
understand is an error, never a declaration left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

SCALARS: Final = (
    "uint8_t", "uint16_t", "int8_t", "int16_t", "int32_t", "int64_t", "uint64_t", "float", "double",
)  # fmt: skip
LETS_GO, HOLDS, EITHER = "LS_API", "LS_BRIEF", "LS_EITHER"  # of the interpreter's lock

_STRUCTURE = re.compile(r"typedef struct (\w+) \{([^{}]*)\} \1;")
_FUNCTION = re.compile(r"(LS_API|LS_BRIEF|LS_EITHER) (\w+) (ls_\w+)\(([^()]*)\);")
_VARIABLE = re.compile(r"(const )?(\w+) ?((?:\* ?(?:const )?)*)(\w+)(?:\[(\d+)\])?")


@dataclass(frozen=True, slots=True)
class Variable:
    """A parameter of a function or a field of a structure."""

    name: str
    type: str  # one of SCALARS, or a structure
    pointers: int
    is_const: bool  # what the pointer points at is only read
    length: int | None  # of an array inside a structure


@dataclass(frozen=True, slots=True)
class Function:
    """An entry point."""

    name: str
    result: str  # one of SCALARS, or void
    parameters: tuple[Variable, ...]
    lock: str  # LETS_GO, HOLDS or EITHER


@dataclass(frozen=True, slots=True)
class Interface:
    """All that a header declares, in its order."""

    structures: dict[str, tuple[Variable, ...]]
    functions: dict[str, Function]


def parse(header: str) -> Interface:
    """The declarations of a header.

    Raises: ValueError for a text outside of the part of C that is understood.
    """
    text = re.sub(r"//[^\n]*|^\s*#[^\n]*", "", header, flags=re.MULTILINE)
    text = " ".join(text.split()).replace("( ", "(")
    structures: dict[str, tuple[Variable, ...]] = {}
    for name, fields in _STRUCTURE.findall(text):
        structures[name] = tuple(
            field for line in fields.split(";") if line.strip() for field in _fields(line)
        )
    functions = {
        name: Function(
            name, result,
            () if given == "void" else tuple(_variable(one) for one in given.split(",")), lock,
        )
        for lock, result, name, given in _FUNCTION.findall(text)
    }  # fmt: skip
    rest = _FUNCTION.sub("", _STRUCTURE.sub("", text)).strip()
    if rest:
        raise ValueError(f"the header has {rest[:60]!r}, which is no declaration that Python reads")
    known = {*SCALARS, *structures}
    for variable in [
        *(field for fields in structures.values() for field in fields),
        *(one for function in functions.values() for one in function.parameters),
    ]:
        if variable.type not in known:
            raise ValueError(f"{variable.name} is a {variable.type}; expected {', '.join(known)}")
    return Interface(structures, functions)


def _fields(line: str) -> list[Variable]:
    """`int32_t a, b` are two."""
    first, *others = line.split(",")
    kind = first.split()[0]
    return [_variable(first), *(_variable(f"{kind} {other.strip()}") for other in others)]


def _variable(text: str) -> Variable:
    found = _VARIABLE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"the header has {text.strip()!r}; expected a type and a name")
    const, kind, pointers, name, length = found.groups()
    return Variable(
        name, kind, pointers.count("*"), const is not None, None if length is None else int(length)
    )
