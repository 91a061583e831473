"""The one shape of every streaming part.

A stage is a pure function over a stream, cut into steps:

    state = stage.init()
    outputs, state = stage.step(state, item)      # any number of outputs, also none
    outputs = stage.flush(state)                  # what the lag still holds back

and the contract, which tests hold every stage to, is

    concat(step(x₀), step(x₁), …, flush())  ==  offline(x₀ ++ x₁ ++ …)

for every way of cutting the input. A state is a value: `step` returns a new one and leaves its
argument as it was, so a state may be kept, compared and resumed.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

State = TypeVar("State")
In = TypeVar("In", contravariant=True)
Out = TypeVar("Out")


class Stage(Protocol[State, In, Out]):
    """A streaming part with explicit state and a stated lag."""

    @property
    def lag_samples(self) -> int:
        """How much later than its own time an output leaves, in samples at 16 kHz."""
        ...

    def init(self) -> State:
        """State before the first item."""
        ...

    def step(self, state: State, item: In) -> tuple[list[Out], State]:
        """Consume one item."""
        ...

    def flush(self, state: State) -> list[Out]:
        """Outputs still owed when the input has ended."""
        ...
