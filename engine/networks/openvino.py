"""OpenVINO: the default on CPUs."""

from __future__ import annotations

import queue
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from lipstream.engine.cores import usable_cores
from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.networks.int8 import Ranges, quantise
from lipstream.engine.types import F32

# Our names of precisions, and OpenVINO's names of what a CPU supports.
_WORDS: Final = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "int8": "int8"}
_MOST_COPIES: Final = 8  # each holds weights and buffers of its own


class OpenVinoNetwork:
    """A model compiled by OpenVINO, once for each core, so that sessions run side by side.

    Two inferences of one compiled model exclude each other unless they run in OpenVINO's own
    threads. Two renderers at once on two cores take 11 ms each that way, and 8 ms in the callers'
    threads with a copy each.
    """

    name = "openvino"

    def __init__(self, compiled: list[Any], device: str, precision: str) -> None:
        self._free = queue.LifoQueue[_Copy]()  # the last one used is the one in the cache
        for one in compiled:
            self._free.put(_Copy(one))
        self.device = device
        self.precision = precision

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Named tensors in, named tensors out; the outputs are the caller's to keep."""
        copy = self._free.get()
        try:
            return copy.run(inputs)
        finally:
            self._free.put(copy)


class _Copy:
    """One compiled model and its request; for one thread at a time."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._outputs = tuple(port.get_any_name() for port in compiled.outputs)
        self._inputs: dict[str, F32] = {}

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        # Tensors are set once and copied into from then on: setting one takes OpenVINO's Python
        # side longer than a small model takes to run.
        for name, values in inputs.items():
            held = self._inputs.get(name)
            if held is None or held.shape != values.shape:
                held = self._inputs[name] = np.empty(values.shape, np.float32)
                self._request.set_tensor(name, library().Tensor(held, shared_memory=True))
            np.copyto(held, values)
        self._request.infer(share_outputs=True)
        return {
            name: np.array(self._request.get_output_tensor(index).data)
            for index, name in enumerate(self._outputs)
        }


def library() -> Any:
    """The openvino module, without its telemetry.

    On import OpenVINO sends telemetry and writes an identifier into ~/intel, unless
    `openvino_telemetry` cannot be imported.

    Raises: BackendUnavailable when OpenVINO is not installed.
    """
    telemetry = "openvino_telemetry"
    if telemetry not in sys.modules:
        sys.modules[telemetry] = None  # type: ignore[assignment]  # import raises for it
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailable(
            f"backend 'openvino' cannot be imported ({error}); pip install openvino"
        ) from error
    return openvino


def load(onnx: Path, precision: str = "f32", ranges: Ranges | None = None) -> OpenVinoNetwork:
    """Compile an ONNX model for the CPU; weights outside of the file are found beside it.

    "fast" is bf16 where the CPU computes in it; else int8 where the model's `ranges` are known;
    else f32.

    Raises: BackendUnavailable when OpenVINO or the precision is missing on this machine.
    """
    core = library().Core()
    if precision not in (*_WORDS, "fast"):
        raise BackendUnavailable(f"openvino computes in {', '.join(_WORDS)}, not {precision!r}")
    supported = {
        str(word).lower() for word in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    }
    if precision == "fast":
        usable = {"bf16": True, "int8": bool(ranges), "f32": True}
        precision = next(p for p, known in usable.items() if known and _WORDS[p] in supported)
    if _WORDS[precision] not in supported:
        raise BackendUnavailable(
            f"this CPU has no {precision} in OpenVINO (it has {', '.join(sorted(supported))}); "
            "use precision f32"
        )
    model = core.read_model(onnx)
    if precision == "int8":
        quantise(model, ranges or {})
    copies = min(usable_cores(), _MOST_COPIES)
    with ThreadPoolExecutor(copies) as pool:  # OpenVINO compiles on one core
        compiled = list(pool.map(lambda _: _compiled(core, model, precision), range(copies)))
    return OpenVinoNetwork(compiled, "CPU", precision)


def _compiled(core: Any, model: Any, precision: str) -> Any:
    return core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32" if precision == "int8" else precision,
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Pinning ties every process on the machine to the same first core.
            "ENABLE_CPU_PINNING": False,
        },
    )
