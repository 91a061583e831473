"""OpenVINO: the default on CPUs."""

from __future__ import annotations

import queue
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from lipstream.engine.cores import usable_cores
from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.networks.int8 import Ranges, quantise
from lipstream.engine.types import F32

# Our words for precisions, and OpenVINO's for what a CPU can.
_WORDS: Final = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "int8": "int8"}


_MOST_COPIES: Final = 8  # each holds weights and buffers of its own


class OpenVinoNetwork:
    """A model compiled by OpenVINO, once for each core, so that conversations do not wait.

    Two computations of one compiled model exclude each other, unless they run in OpenVINO's own
    threads: two renderers at once on two cores then take 11 ms each; in the callers' threads, with
    a copy for each, 8.
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
        # Tensors are handed over once and copied into from then on: a hand-over takes OpenVINO's
        # Python side longer than a small network takes to run.
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

    On import OpenVINO tells its makers over the network and writes an identity into ~/intel,
    unless `openvino_telemetry` cannot be imported: then it does without.

    Raises: BackendUnavailable when OpenVINO is not installed.
    """
    telemetry = "openvino_telemetry"
    if telemetry not in sys.modules:
        sys.modules[telemetry] = None  # type: ignore[assignment]  # what import reads as absent
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailable(
            f"backend 'openvino' cannot be imported ({error}); pip install openvino"
        ) from error
    return openvino


def load(onnx: bytes, precision: str = "f32", ranges: Ranges | None = None) -> OpenVinoNetwork:
    """Compile an ONNX model for the CPU.

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
        able = {"bf16": True, "int8": bool(ranges), "f32": True}
        precision = next(p for p, can in able.items() if can and _WORDS[p] in supported)
    if _WORDS[precision] not in supported:
        raise BackendUnavailable(
            f"this CPU has no {precision} in OpenVINO (it has {', '.join(sorted(supported))}); "
            "use precision f32"
        )
    model = core.read_model(onnx, b"")
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
            # Pinning would tie every process on the machine to the same first core.
            "ENABLE_CPU_PINNING": False,
        },
    )
