"""Our kernels on the card: each against its twin, and each against the time that memory allows."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lipstream.bench.gpu.card import Buffer, Card
from lipstream.bench.gpu.cases import KERNELS, TABLE, Case, Pictures, TwinResult, make_case
from lipstream.bench.gpu.floors import kernel_work
from lipstream.bench.gpu.sizes import Sizes

_POISONS: Final = (0xFF, 0x5A)  # the first is NaN as f32
_GUARD_BYTES: Final = 256  # behind each array that is written
_MOST_APART: Final = {"u": 1.0, "i": 0.0, "f": 4e-6}  # levels; numbers; of what is about 1
_MEAN_APART: Final = {"u": 1e-3, "i": 0.0, "f": 1e-6}
_MOST_SETS: Final = 12  # of inputs, in rotation


def check(card: Card, sizes: Sizes, seed: int) -> dict[str, Any]:
    """Every kernel in every batch size against its twin: {"checks": [...], "wrong": [...]}."""
    random = np.random.default_rng(seed)
    found = []
    for batch in sizes.batches:
        pictures = Pictures(random, batch, sizes.crop)
        found += [check_case(card, make_case(kernel, pictures)) for kernel in KERNELS]
    wrong = [f"{row['kernel']} of {row['batch']}: {row['fault']}" for row in found if row["fault"]]
    return {"seed": seed, "checks": found, "wrong": wrong}


def check_case(card: Card, case: Case) -> dict[str, Any]:
    """One kernel on one batch; `fault` says what is wrong, "" if nothing."""
    runs = [_run(card, case, poison) for poison in _POISONS]
    found: dict[str, Any] = {"kernel": case.kernel, "batch": case.batch, "arrays": {}, "fault": ""}
    faults = []
    for name, expected in case.writes.items():
        got = [run[name] for run in runs]
        row, fault = _compare(got, expected, case.reads.get(name))
        found["arrays"][name] = row
        if fault:
            faults.append(f"{name} {fault}")
    found["fault"] = "; ".join(faults)
    return found


def _compare(
    got: list[NDArray[np.uint8]], expected: TwinResult, before: NDArray[Any] | None
) -> tuple[dict[str, Any], str]:
    """Bytes of the two runs, guards behind them, against the twin's values."""
    values, size = expected.values, expected.values.nbytes
    for run, poison in zip(got, _POISONS, strict=True):
        if (run[size:] != poison).any():
            return {}, "is written beyond its end"
    arrays = [run[:size].view(values.dtype).reshape(values.shape) for run in got]
    for array, poison in zip(arrays, _POISONS, strict=True):
        left = array[~expected.written]
        if before is None and (left.view(np.uint8) != poison).any():
            return {}, "is written in a row that does not hold"
    first, second = (array[expected.written] for array in arrays)
    unwritten = int((first.view(np.uint8) != second.view(np.uint8)).sum())
    wanted = values[expected.written]
    kind = values.dtype.kind
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(first.astype(np.float64) - wanted)
    apart[~np.isfinite(apart)] = np.inf
    most = float(apart.max(initial=0.0))
    mean = float(apart.mean()) if apart.size else 0.0
    row = {
        "most_apart": most,
        "mean_apart": mean,
        "equal": float((first == wanted).mean()) if apart.size else 1.0,
        "unwritten_bytes": unwritten,
    }
    if unwritten:
        return row, f"has {unwritten} bytes that depend on what was there before"
    if not (most <= _MOST_APART[kind] and mean <= _MEAN_APART[kind]):
        return row, f"is {most:.3g} from its twin ({mean:.3g} in the mean)"
    return row, ""


def _run(card: Card, case: Case, poison: int) -> dict[str, NDArray[np.uint8]]:
    """Bytes of each array that is written, with the guard behind."""
    buffers = _upload(card, case, poison)
    _launch(card, case, buffers)()
    out = {name: card.read(buffers[name]) for name in case.writes}
    card.free(buffers.values())
    return out


def _upload(card: Card, case: Case, poison: int) -> dict[str, Buffer]:
    buffers = {}
    for name, values in case.reads.items():
        if name not in case.writes:
            buffers[name] = card.put(values)
    for name, expected in case.writes.items():
        buffers[name] = card.empty((expected.values.nbytes + _GUARD_BYTES,), np.uint8)
        card.fill(buffers[name], poison)
        if name in case.reads:
            card.upload(case.reads[name].reshape(-1).view(np.uint8), buffers[name])
    if case.table is not None:
        buffers[TABLE] = card.put(_table(case, buffers))
    return buffers


def _table(case: Case, buffers: dict[str, Buffer]) -> NDArray[np.uint8]:
    assert case.table is not None
    table = case.table.copy()
    for name, (array, offsets) in case.pointers.items():
        # What this kernel does not touch may point anywhere but to null.
        base = buffers[array].address if array in buffers else 1 << 12
        table[name] = np.where(offsets < 0, 0, base + offsets)
    return table.view(np.uint8)


def _launch(card: Card, case: Case, buffers: dict[str, Buffer]) -> Callable[[], None]:
    arguments = tuple(buffers[a] if isinstance(a, str) else np.int32(a) for a in case.arguments)

    def run() -> None:
        card.kernels.launch(case.kernel, arguments, case.pixels, case.batch, card.stream)

    return run


def times(card: Card, sizes: Sizes, seed: int, copy_gb_s: float) -> dict[str, Any]:
    """Each kernel's time in the largest batch, and its floor: bytes over the copy's rate.

    Inputs are rotated, so that none lies in the card's cache from the launch before.
    """
    random = np.random.default_rng(seed)
    batch = sizes.batches[-1]
    pictures = Pictures(random, batch, sizes.crop, faulty=False)
    rows = {}
    for kernel in KERNELS:
        case = make_case(kernel, pictures)
        work = kernel_work(case)
        sets = min(_MOST_SETS, 2 + int(3 * card.l2_bytes() / work.moved_bytes))
        uploaded = [_upload(card, case, _POISONS[0]) for _ in range(sets)]
        runs = [_launch(card, case, uploaded[k % sets]) for k in range(sizes.launches)]
        spent_ms = median(card.times_ms(runs, sizes.rounds))
        again_ms = median(card.times_ms(runs, sizes.rounds))
        for buffers in uploaded:
            card.free(buffers.values())
        floor_ms = work.moved_bytes / copy_gb_s / 1e6
        rows[kernel] = {
            "ms": spent_ms,
            "ms_again": again_ms,
            "bytes": work.moved_bytes,
            "multiply_adds": work.multiply_adds,
            "floor_ms": floor_ms,
            "times_floor": spent_ms / floor_ms,
        }
    return {"batch": batch, "crop": list(sizes.crop), "copy_gb_s": copy_gb_s, "kernels": rows}


def fresh_seed(text: str) -> int:
    """A seed that differs from run to run, of a text such as the date."""
    return zlib.crc32(text.encode())
