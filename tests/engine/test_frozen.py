"""Frozen objects: attributes are set while the object is made, and never after."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from lipstream.engine.frozen import Frozen


class Circle(Frozen):
    def __init__(self, radius: float) -> None:
        self.radius = radius
        self.radius = abs(radius)


class Ring(Circle):
    def __init__(self, radius: float, hole: float) -> None:
        super().__init__(radius)
        self.hole = hole


class Disc(Circle):
    """Without an __init__ of its own."""


@pytest.mark.parametrize("made", [Circle(-2), Ring(2, 1), Disc(2)])
def test_no_attribute_is_set_or_deleted_after_init(made: Circle) -> None:
    assert made.radius == 2
    for name in ("radius", "area"):
        with pytest.raises(FrozenInstanceError, match=f"{name!r} of a {type(made).__name__}"):
            setattr(made, name, 3.0)
    with pytest.raises(FrozenInstanceError):
        del made.radius
    assert made.radius == 2


def test_an_instance_that_failed_to_be_made_is_not_frozen_half_way() -> None:
    with pytest.raises(TypeError):
        Ring(2)  # type: ignore[call-arg]
