"""The machine that a figure belongs to: what it is, how busy it is, and what it can do at best.

The ceilings are measured in the same run as the figures: a copy as in STREAM (McCalpin, 1995) and
a square matrix product in each precision that the networks use, on one thread, as the stages run.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np

from lipstream.engine.backends.openvino import library
from lipstream.engine.errors import BackendUnavailable
from lipstream.kernels import implementation

_COPY_BYTES: Final = 64 << 20  # far beyond any last-level cache share
_SIDE: Final = 768
_LIBRARIES: Final = ("lipstream", "numpy", "av", "aiortc", "openvino", "torch", "onnxruntime")
_QUIET_CORES: Final = 0.15  # kept busy by others, up to which a machine counts as quiet


def describe(load: Load) -> dict[str, Any]:
    """Hardware, versions, commit, and what others did to the machine since `load` began."""
    others = load.others()
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "kernels": implementation(),
        "versions": {name: found for name in _LIBRARIES if (found := _version(name))},
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_average": load.average,  # when it began
        "others_cores": others,
        "quiet": others is not None and others <= _QUIET_CORES,
    }


class Load:
    """How busy others kept the cores while a measurement ran."""

    def __init__(self) -> None:
        """Begin."""
        self.average = [round(x, 2) for x in os.getloadavg()]
        self._machine, self._own, self._wall = _busy_s(), _own_s(), time.perf_counter()

    def others(self) -> float | None:
        """Cores that other processes kept busy since, on average; None where it cannot be told."""
        machine = _busy_s()
        if machine is None or self._machine is None:
            return None
        wall = max(time.perf_counter() - self._wall, 1e-3)
        return round(max(0.0, (machine - self._machine - _own_s() + self._own) / wall), 3)


def ceilings() -> dict[str, float]:
    """What one thread reaches: copy_gb_s (bytes read + written), gmac_s_f32, and gmac_s_bf16
    where OpenVINO and the processor have it."""
    one = np.ones(_COPY_BYTES // 8)
    other = np.empty_like(one)
    copy_s = _best_s(lambda: np.copyto(other, one), 12)
    found = {"copy_gb_s": 2 * _COPY_BYTES / copy_s / 1e9}
    for precision in ("f32", "bf16"):
        rate = _product_rate(precision)
        if rate is not None:
            found[f"gmac_s_{precision}"] = rate
    return {name: round(value, 2) for name, value in found.items()}


def _product_rate(precision: str) -> float | None:
    """Billions of multiply-adds a second."""
    macs = _SIDE**3
    values = np.ones((_SIDE, _SIDE), np.float32)
    try:
        openvino = library()
    except BackendUnavailable:
        if precision != "f32":
            return None
        return macs / _best_s(lambda: values @ values, 12) / 1e9
    core = openvino.Core()
    supported = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in supported:
        return None
    from openvino import opset13 as ops

    shape = openvino.Shape([_SIDE, _SIDE])
    left = ops.parameter(shape, np.float32)
    # A constant right side, as the weights of a network are: packed once, when it is compiled.
    model = openvino.Model([ops.matmul(left, ops.constant(values), False, False)], [left], "gemm")
    compiled = core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
    )
    request = compiled.create_infer_request()
    return macs / _best_s(lambda: request.infer([values], share_inputs=True), 12) / 1e9


def _best_s(run: Callable[[], object], times: int) -> float:
    """The shortest of some runs: a ceiling is what is reached when nobody disturbs."""
    run()
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return min(found)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Of the checkout that this runs from, "+" if it was changed; None for an installed wheel."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).resolve().parent, capture_output=True, text=True, timeout=5,
            check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def _busy_s() -> float | None:
    """CPU seconds that all processes have used since the machine began."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _, _, irq, soft, _ = (int(word) for word in words)
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
