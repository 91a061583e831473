"""OpenVINO: the default on CPUs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.types import F32


class OpenVinoNetwork:
    """A model compiled by OpenVINO. Each thread gets an inference request of its own."""

    name = "openvino"

    def __init__(self, compiled: Any, device: str, precision: str) -> None:
        self._compiled = compiled
        self._local = threading.local()
        self._outputs = tuple(port.get_any_name() for port in compiled.outputs)
        self.device = device
        self.precision = precision

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Named tensors in, named tensors out; the outputs are the caller's to keep."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        request.infer(dict(inputs), share_inputs=True)
        return {
            name: np.array(request.get_output_tensor(index).data)
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


def load(onnx: bytes, precision: str = "f32", threads: int = 1) -> OpenVinoNetwork:
    """Compile an ONNX model for the CPU; "fast" is bf16 where the CPU computes in it, else f32.

    Raises: BackendUnavailable when OpenVINO or the precision is missing on this machine.
    """
    core = library().Core()
    if precision not in ("f32", "bf16", "f16", "fast"):
        raise BackendUnavailable(f"openvino computes in f32, bf16 or f16, not {precision!r}")
    supported = {
        str(word).lower() for word in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    }
    if precision == "fast":
        precision = "bf16" if "bf16" in supported else "f32"
    wanted = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}[precision]
    if wanted not in supported:
        raise BackendUnavailable(
            f"this CPU has no {precision} in OpenVINO (it has {', '.join(sorted(supported))}); "
            "use precision f32"
        )
    compiled = core.compile_model(
        core.read_model(onnx, b""),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Pinning would tie every process on the machine to the same first core.
            "ENABLE_CPU_PINNING": False,
        },
    )
    return OpenVinoNetwork(compiled, "CPU", precision)
