"""The machine that a figure belongs to: its hardware, its load and its ceilings.

The ceilings are measured in the same run as the figures, on one thread, as the stages run. They are
a copy as in STREAM (McCalpin, 1995) and convolutions in each precision that the models use.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np

from lipstream.bench.commit import commit
from lipstream.engine.cores import usable_cores
from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.networks.int8 import quantise
from lipstream.engine.networks.openvino import library
from lipstream.kernels.convolution import RendererPass, fits
from lipstream.kernels.dispatch import implementation

_COPY_BYTES: Final = 64 << 20  # far beyond any last-level cache share
_ACTIVATION_SHAPE: Final = (1, 64, 96, 96)  # as in a middle layer of the renderer
_LAYERS: Final = 4
_SIDE: Final = 768  # of the matrices that are multiplied where OpenVINO is missing
_LIBRARIES: Final = ("lipstream", "numpy", "av", "aiortc", "openvino", "torch", "onnxruntime")
_QUIET_CORES: Final = 0.15  # used by other processes, at most, on a machine that counts as quiet
# The speed of the models depends on these, and processors of one model name differ in them.
_INSTRUCTIONS: Final = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16")


def describe(load: Load) -> dict[str, Any]:
    """Hardware, versions, commit, and the load by other processes since `load` was made."""
    others, stolen = load.others(), load.stolen()
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "instructions": _instructions(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "kernels": implementation(),
        "versions": {name: found for name in _LIBRARIES if (found := _version(name))},
        "commit": commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_average": load.average,  # when `load` was made
        "others_cores": others,
        "stolen_cores": stolen,
        "quiet": others is not None and others + (stolen or 0.0) <= _QUIET_CORES,
    }


class Load:
    """CPU time that other processes use while a measurement runs."""

    def __init__(self) -> None:
        """The interval begins here."""
        self.average = [round(x, 2) for x in os.getloadavg()]
        self._machine, self._own, self._wall = _busy_s(), own_s(), time.perf_counter()
        self._stolen = _stolen_s()

    def others(self) -> float | None:
        """Cores that other processes use, on average; None where the system does not report it."""
        machine = _busy_s()
        if machine is None or self._machine is None:
            return None
        wall = max(time.perf_counter() - self._wall, 1e-3)
        return round(max(0.0, (machine - self._machine - own_s() + self._own) / wall), 3)

    def stolen(self) -> float | None:
        """Cores that the host of a virtual machine takes away (steal time); None if unknown."""
        now = _stolen_s()
        if now is None or self._stolen is None:
            return None
        return round((now - self._stolen) / max(time.perf_counter() - self._wall, 1e-3), 3)


def ceilings() -> dict[str, float]:
    """The highest rates of one thread.

    Returns: copy_gb_s (bytes read + written); gmac_s_f32; gmac_s_bf16 and gmac_s_int8 where
    OpenVINO and the processor support them; gmac_s_int16 of our own kernels.
    """
    one = np.ones(_COPY_BYTES // 8)
    other = np.empty_like(one)
    copy_s = _best_s(lambda: np.copyto(other, one), 12)
    found = {"copy_gb_s": 2 * _COPY_BYTES / copy_s / 1e9}
    for precision in ("f32", "bf16", "int8"):
        rate = _mac_rate(precision)
        if rate is not None:
            found[f"gmac_s_{precision}"] = rate
    if implementation() == "compiled" and fits():
        found["gmac_s_int16"] = _int16_rate()
    return {name: round(value, 2) for name, value in found.items()}


def _mac_rate(precision: str) -> float | None:
    """10⁹ multiply-adds per second of 3×3 convolutions, whose weights fit in the cache."""
    try:
        core = library().Core()
    except BackendUnavailable:
        if precision != "f32":
            return None
        values = np.ones((_SIDE, _SIDE), np.float32)
        return float(_SIDE**3 / _best_s(lambda: values @ values, 12) / 1e9)
    if precision.upper() not in {"F32", *core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")}:
        return None
    hint = "f32" if precision == "int8" else precision
    compiled = core.compile_model(
        _convolutions(precision == "int8"), "CPU",
        {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1},
    )  # fmt: skip
    request, activation = compiled.create_infer_request(), np.ones(_ACTIVATION_SHAPE, np.float32)
    macs = _LAYERS * 9 * _ACTIVATION_SHAPE[1] * np.prod(_ACTIVATION_SHAPE)
    return float(macs / _best_s(lambda: request.infer([activation], share_inputs=True), 12) / 1e9)


def _int16_rate() -> float:
    """The same of our own int16 convolutions, by a renderer that is mostly 3×3 convolutions.

    The kernels have no smaller entry point. Multiply-adds are those of the graph; the Winograd
    algorithm needs fewer.
    """
    wide, narrow, blocks = _ACTIVATION_SHAPE[1], 16, 16
    rows, columns = 160, 192
    shapes = {  # outputs, inputs, side; and at which part of the crop's sides
        "enter": (narrow, 36, 3, 2), "down1": (narrow, narrow, 3, 4), "down2": (wide, narrow, 3, 8),
        "up1": (4 * narrow, wide, 1, 8), "up2": (4 * narrow, narrow, 1, 4),
        "fine.first": (narrow, narrow, 3, 2), "fine.second": (narrow, narrow, 3, 2),
        "leave": (12, narrow, 3, 2),
    }  # fmt: skip
    for block in range(blocks):
        shapes |= {f"coarse.{block}.{which}": (wide, wide, 3, 8) for which in ("first", "second")}
    random, weights, ranges, macs = np.random.default_rng(0), {}, {}, 0
    for name, (outputs, inputs, side, part) in shapes.items():
        weights[f"{name}.weight"] = random.normal(size=(outputs, inputs, side, side)) / 24
        weights[f"{name}.bias"] = np.zeros(outputs)
        ranges[f"{name}.weight"] = (0.0, 4.0)
        macs += outputs * inputs * side * side * (rows // part) * (columns // part)
    renderer = RendererPass(weights, ranges)
    crop = np.full((9, rows, columns), 0.5, np.float32)
    return float(macs / _best_s(lambda: renderer(crop), 12) / 1e9)


def _convolutions(int8: bool) -> Any:
    """An OpenVINO model of _LAYERS convolutions, one after another."""
    openvino = library()
    from openvino import opset13 as ops

    values = (
        np.random.default_rng(0).normal(size=(*_ACTIVATION_SHAPE[1:2] * 2, 3, 3)).astype(np.float32)
    )
    first = ops.parameter(openvino.Shape(_ACTIVATION_SHAPE), np.float32)
    last, ranges = first, {}
    for layer in range(_LAYERS):
        weights = ops.constant(values / 24)
        weights.set_friendly_name(f"weights{layer}")
        ranges[f"weights{layer}"] = (0.0, 4.0)
        last = ops.relu(ops.convolution(last, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
    model = openvino.Model([last], [first], "convolutions")
    if int8:
        quantise(model, ranges)
    return model


def _best_s(run: Callable[[], object], times: int) -> float:
    """The shortest of `times` runs: others can only make a run longer, and a ceiling is wanted."""
    run()
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return min(found)


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Restrict this thread, and threads and processes it starts, to the first `count` cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _instructions() -> list[str]:
    found = _cpuinfo("flags").split()
    return [name for name in _INSTRUCTIONS if name in found]


def _cpuinfo(key: str) -> str:
    """One field of the first processor in /proc/cpuinfo; "" where there is none."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    except OSError:
        pass
    return ""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _busy_s() -> float | None:
    """CPU seconds of all processes since boot; None where the system does not report them."""
    spent = _cpu_s()
    if spent is None:
        return None
    user, nice, system, _, _, irq, soft, _ = spent
    return user + nice + system + irq + soft


def _stolen_s() -> float | None:
    spent = _cpu_s()
    return None if spent is None else spent[7]


def _cpu_s() -> list[float] | None:
    """Seconds of user, nice, system, idle, iowait, irq, softirq and steal, of all cores."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    return [int(word) / os.sysconf("SC_CLK_TCK") for word in words]


def own_s() -> float:
    """CPU seconds of this process and of its children, on Linux including those that still run."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system + _living_s()


def _living_s() -> float:
    ticks = 0
    for child in multiprocessing.active_children():
        try:
            words = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        ticks += int(words[11]) + int(words[12])  # user and system
    return ticks / os.sysconf("SC_CLK_TCK")
