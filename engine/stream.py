"""The one shape of every streaming part, and the chain of them.

A stage is a pure function over a stream, cut into steps:

    state = stage.init()
    outputs, state = stage.step(state, item)      # any number of outputs, also none
    outputs = stage.flush(state)                  # what the lag still holds back

and the contract, which `tests/contract.py` verifies for each stage, is

    concat(step(x₀), step(x₁), …, flush())  ==  offline(x₀ ++ x₁ ++ …)

for every way of cutting the input. A state is a value: `step` returns a new one and leaves its
argument as it was, so a state may be kept, compared and resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from lipstream.engine.frozen import Frozen

State = TypeVar("State")
In = TypeVar("In", contravariant=True)
Out = TypeVar("Out")
States = TypeVar("States", bound="tuple[Any, ...]")
First = TypeVar("First")
Last = TypeVar("Last")


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


class Chain(Frozen, Generic[States, First, Last]):
    """Stages one after another, each consuming what the one before it puts out: itself a stage.

    lag(chain) = lag(stage₀) + lag(stage₁) + …
    """

    def __init__(
        self,
        states: Callable[..., States],
        first: Stage[Any, First, Any],
        *others: Stage[Any, Any, Any],
    ) -> None:
        """`states`: a NamedTuple with one field for the state of each stage, in their order."""
        self._states = states
        self._stages: tuple[Stage[Any, Any, Any], ...] = (first, *others)

    @property
    def lag_samples(self) -> int:
        """The sum of the stages' lags."""
        return sum(stage.lag_samples for stage in self._stages)

    def init(self) -> States:
        """The state of each stage before the first item."""
        return self._states(*(stage.init() for stage in self._stages))

    def step(self, state: States, item: First) -> tuple[list[Last], States]:
        """Consume one item."""
        return self.feed(state, [item], 0)

    def feed(self, state: States, items: list[Any], index: int) -> tuple[list[Last], States]:
        """Consume items of the kind that stage `index` takes; the stages before it see nothing."""
        after = list(state)
        for position, stage in enumerate(self._stages[index:], index):
            items, after[position] = _step_all(stage, after[position], items)
        return items, self._states(*after)

    def flush(self, state: States) -> list[Last]:
        """Flush the stages in order, each after it has consumed the last of the one before it."""
        items: list[Any] = []
        for stage, last in zip(self._stages, state, strict=True):
            outputs, after = _step_all(stage, last, items)
            items = outputs + stage.flush(after)
        return items


def _step_all(stage: Stage[Any, Any, Any], state: Any, items: list[Any]) -> tuple[list[Any], Any]:
    outputs: list[Any] = []
    for item in items:
        more, state = stage.step(state, item)
        outputs += more
    return outputs, state
