"""Objects that cannot be changed once they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from functools import wraps
from typing import Any


class Frozen:
    """Base of classes whose instances several sessions share.

    `__init__` sets attributes as usual; when it returns, assignment and deletion raise
    FrozenInstanceError, as for a frozen dataclass.
    """

    _is_frozen = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" in cls.__dict__:
            # Through __dict__: mypy does not allow an access to __init__ on an instance's class.
            cls.__init__ = _then_frozen(cls, cls.__dict__["__init__"])  # type: ignore[method-assign]

    def __setattr__(self, name: str, value: object) -> None:
        if self._is_frozen:
            raise FrozenInstanceError(f"cannot assign to {name!r} of a {type(self).__name__}")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete {name!r} of a {type(self).__name__}")


def _then_frozen(cls: type, init: Callable[..., None]) -> Callable[..., None]:
    """`init`, after which an instance of `cls` itself is frozen; one of a subclass is not yet."""

    @wraps(init)
    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if type(self).__init__ is run:
            object.__setattr__(self, "_is_frozen", True)

    return run
