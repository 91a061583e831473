"""Where the time of a frame goes: named spans, recorded only on demand.

    with span("warp"):           @span("warp")
        ...                      def method(self): ...

Without a recorder, a span costs one read of a module variable. A `Recorder` collects bare marks
(what began or ended, in which thread, when) from any number of threads. `Recorder.take` makes spans
of them afterwards, so that the engine pays only for two appends a span.

A span's own time excludes that of the spans within it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from types import TracebackType
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# In the order of the flow. "session" is what `Session.push` does outside of all others.
SPANS: Final = (
    "session", "features", "encoder", "matcher", "sources", "decode", "background", "warp",
    "renderer", "composite", "color", "encode",
)  # fmt: skip

_now_ns = time.perf_counter_ns
_recorder: Recorder | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """One run of one named part of the work."""

    name: str
    thread: int
    begin_ns: int  # perf_counter
    end_ns: int
    own_ns: int  # without the spans within
    depth: int  # 0 outermost


class Recorder:
    """Marks of all threads, in the order they were made, until `take` fetches them.

    slowed: ms of busy waiting to add to a span, by name, to test whether a report names the
    slowest one.
    """

    def __init__(self, slowed: Mapping[str, float] | None = None) -> None:
        """Empty."""
        self._marks: list[tuple[int, str | None, int]] = []
        self._slowed_ns = {name: round(ms * 1e6) for name, ms in (slowed or {}).items()}

    def begin(self, name: str) -> None:
        """A span begins in this thread."""
        self._marks.append((threading.get_ident(), name, _now_ns()))

    def end(self, name: str) -> None:
        """The span that began last in this thread ends."""
        if self._slowed_ns and name in self._slowed_ns:
            until = _now_ns() + self._slowed_ns[name]
            while _now_ns() < until:
                pass
        self._marks.append((threading.get_ident(), None, _now_ns()))

    def add(self, durations_ns: Mapping[str, int]) -> None:
        """Spans that compiled code ran one after another in a call that ends now, in order."""
        begin_ns = _now_ns() - sum(durations_ns.values())
        for name, took_ns in durations_ns.items():
            slowed_ns = self._slowed_ns.get(name, 0)
            until = _now_ns() + slowed_ns
            while slowed_ns and _now_ns() < until:
                pass
            self._marks.append((threading.get_ident(), name, begin_ns))
            begin_ns += took_ns
            self._marks.append((threading.get_ident(), None, begin_ns + slowed_ns))

    def take(self) -> list[Span]:
        """The finished spans, by their end; call it where no span is open in any thread.

        Marks take about 3 kB a frame until then.
        """
        marks, self._marks = self._marks, []
        return list(_spans(marks))


def _spans(marks: list[tuple[int, str | None, int]]) -> Iterator[Span]:
    open_spans: dict[int, list[tuple[str, int, int]]] = {}  # thread -> (name, begin, inner) ...
    for thread, name, at_ns in marks:
        stack = open_spans.setdefault(thread, [])
        if name is not None:
            stack.append((name, at_ns, 0))
        elif stack:  # an end without a begin is of a span that is older than the recording
            ended, begin_ns, inner_ns = stack.pop()
            whole_ns = at_ns - begin_ns
            if stack:
                outer, outer_begin_ns, so_far_ns = stack[-1]
                stack[-1] = (outer, outer_begin_ns, so_far_ns + whole_ns)
            yield Span(ended, thread, begin_ns, at_ns, whole_ns - inner_ns, len(stack))


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Spans of the whole process go to `recorder` while the block runs.

    Raises: RuntimeError when another recording is under way.
    """
    global _recorder  # noqa: PLW0603 - the one switch; a parameter through every stage would cost
    if _recorder is not None:
        raise RuntimeError("spans are being recorded already; one recording at a time")
    _recorder = recorder
    try:
        yield recorder
    finally:
        _recorder = None


def recorder() -> Recorder | None:
    """The recorder of the recording under way, or None."""
    return _recorder


class span:  # noqa: N801 - used as `with span(...)` and `@span(...)`
    """A named part of the work; around a block or around a function."""

    __slots__ = ("_began", "_name")

    def __init__(self, name: str) -> None:
        """Name one of SPANS."""
        self._name = name
        self._began: Recorder | None = None

    def __enter__(self) -> None:
        """Begin; one instance is for one block, since it keeps the recorder."""
        if _recorder is not None:
            self._began = _recorder
            _recorder.begin(self._name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""
        if self._began is not None:
            self._began.end(self._name)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function within a span."""
        name = self._name

        @wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            active = _recorder
            if active is None:
                return function(*args, **kwargs)
            active.begin(name)
            try:
                return function(*args, **kwargs)
            finally:
                active.end(name)

        return timed
