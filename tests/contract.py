"""The contract of a stage (`engine.stream`), verified for one stage over one stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from lipstream.engine.stream import Stage

In = TypeVar("In")
Out = TypeVar("Out")
State = TypeVar("State")


@dataclass(frozen=True)
class Stream(Generic[In, Out]):
    """A stream, and how its items and outputs lie in time."""

    items: Sequence[In]
    other: Sequence[In]  # another stream with the same times
    end_sample: Callable[[int], int]  # first sample after item k
    output_sample: Callable[[int, Out], int]  # time of output k
    cuts: Sequence[Sequence[In]] = ()  # the same stream in other pieces
    early_samples: int = 0  # how much earlier than its lag an output may leave: where outputs lie
    # between items, the lag is that of the latest


def run(stage: Stage[State, In, Out], items: Sequence[In]) -> list[Out]:
    """The fold of `step` over the items, and `flush`."""
    state, outputs = stage.init(), list[Out]()
    for item in items:
        more, state = stage.step(state, item)
        outputs += more
    return outputs + stage.flush(state)


def verify_stage(
    stage: Stage[State, In, Out],
    stream: Stream[In, Out],
    offline: Callable[[Sequence[In]], Sequence[Out]] | None = None,
    tolerance: float = 0.0,
) -> None:
    """Assert the whole contract.

    offline: an independently written computation of all outputs, equal to `tolerance`.
    """
    outputs = run(stage, stream.items)
    assert outputs, "a stream without outputs shows nothing"
    if offline is not None:
        assert_same(outputs, offline(stream.items), tolerance)
    for cut in stream.cuts:
        assert_same(run(stage, cut), outputs)
    _verify_lag(stage, stream, outputs)
    _verify_causality(stage, stream, outputs)
    _verify_states_are_values(stage, stream, outputs)


def _verify_lag(stage: Stage[State, In, Out], stream: Stream[In, Out], outputs: list[Out]) -> None:
    """The first item that reaches an output's own time + lag has brought it, and none earlier."""
    state, count, worst = stage.init(), 0, -stream.early_samples - 1
    for k, item in enumerate(stream.items):
        more, state = stage.step(state, item)
        now = stream.end_sample(k)
        for output in more:
            late = now - stream.output_sample(count, output) - stage.lag_samples
            assert -stream.early_samples <= late <= 0, f"output {count} leaves {late} samples late"
            worst = max(worst, late)
            count += 1
        if count < len(outputs):
            due = stream.output_sample(count, outputs[count]) + stage.lag_samples
            assert due > now, f"output {count} was due at {due} and has not left at {now}"
    assert worst > -max(1, stream.early_samples), "the lag is stated too long"


def _verify_causality(
    stage: Stage[State, In, Out], stream: Stream[In, Out], outputs: list[Out]
) -> None:
    """Outputs up to time t do not change with items that begin after t + lag."""
    changed_any = False
    for k in range(1, len(stream.items), max(1, len(stream.items) // 5)):
        changed = run(stage, [*stream.items[:k], *stream.other[k:]])
        known = stream.end_sample(k - 1) - stage.lag_samples
        kept = [i for i, o in enumerate(outputs) if stream.output_sample(i, o) <= known]
        assert_same([changed[i] for i in kept], [outputs[i] for i in kept])
        changed_any |= not same(changed, outputs)
    assert changed_any, "the other stream must make a difference"


def _verify_states_are_values(
    stage: Stage[State, In, Out], stream: Stream[In, Out], outputs: list[Out]
) -> None:
    """A state that was stepped from is as it was, and can be stepped from again."""
    state, again = stage.init(), list[Out]()
    for item, other in zip(stream.items, stream.other, strict=True):
        before = state
        stage.step(state, other)
        stage.flush(state)
        more, state = stage.step(before, item)
        again += more
    assert_same(again + stage.flush(state), outputs)


def assert_same(one: Sequence[Any], two: Sequence[Any], tolerance: float = 0.0) -> None:
    """The same outputs, arrays to the bit or to a tolerance."""
    assert len(one) == len(two), f"{len(one)} outputs against {len(two)}"
    for index, (a, b) in enumerate(zip(one, two, strict=True)):
        assert same(a, b, tolerance), f"output {index} differs:\n{a}\n{b}"


def same(a: Any, b: Any, tolerance: float = 0.0) -> bool:
    """Equality through dataclasses, tuples, lists and arrays."""
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and bool((np.abs(a - b) <= tolerance).all())
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b, [tolerance] * len(a)))
    if dataclasses.is_dataclass(a):
        names = [field.name for field in dataclasses.fields(a)]
        return all(same(getattr(a, name), getattr(b, name), tolerance) for name in names)
    if isinstance(a, float):
        return abs(a - b) <= tolerance
    return bool(a == b)
