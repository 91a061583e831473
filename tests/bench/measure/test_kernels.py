"""The kernel benchmark runs every kernel in both implementations."""

from __future__ import annotations

import pytest

from lipstream.bench.measure.kernels import kernel_timings, kernels_text
from lipstream.kernels.dispatch import implementation


@pytest.mark.skipif(implementation() != "compiled", reason="the kernels are not compiled")
@pytest.mark.alone
def test_every_kernel_is_timed_in_both_implementations() -> None:
    timings = kernel_timings(rounds=1)
    assert len(timings) >= 7
    for row in timings.values():
        assert row["compiled_ms"] > 0 and row["numpy_ms"] > 0
        assert row["ratio"] == pytest.approx(row["numpy_ms"] / row["compiled_ms"])
    assert timings["warp_mesh 800 triangles 200x160"]["ratio"] > 2
    assert kernels_text({"kernels": timings}).count("x NumPy") == len(timings)
