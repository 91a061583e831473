"""TensorRT 10 and 11, and TensorRT for RTX, on NVIDIA GPUs.

Running needs torch, whose CUDA context and memory the engine shares. A thread has a stream of its
own, and for each profile an execution context and buffers, so that threads never wait for one
another's calls. Precision is that of the plan (`tensorrt_plan`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.extras import pip_install
from lipstream.engine.networks.base import FAST, Model
from lipstream.engine.networks.signatures import RENDERER_INPUT
from lipstream.engine.networks.stage import BATCHES
from lipstream.engine.networks.tensorrt_plan import (
    PROFILES,
    EngineKey,
    PlanCache,
    build_plan,
    library,
)
from lipstream.engine.types import F32

log = logging.getLogger(__name__)

_PRECISIONS: Final = ("f32", "f16", "bf16")
_KERNELS: Final = ".kernels"  # beside a plan: what RTX has compiled of it for this GPU


Sides = Mapping[str, tuple[int, ...]]  # of each input, but for its first axis


@dataclass(frozen=True, slots=True)
class _Lane:
    """One thread's context of one profile, with room for its largest batch."""

    context: Any
    stream: Any
    host: dict[str, Any]  # by tensor: torch tensors in pinned memory
    device: dict[str, Any]


class TensorRtNetwork:
    """An engine on the current GPU."""

    name = "tensorrt"

    def __init__(
        self, trt: Any, engine: Any, precision: str, torch: Any, device: str = "cuda"
    ) -> None:
        """`engine`: with the profiles of `PROFILES`. `torch`: the module."""
        self._trt, self._engine, self._torch, self._on = trt, engine, torch, device
        self._local = threading.local()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.inputs = tuple(name for name in names if is_input[name])
        self.outputs = tuple(name for name in names if not is_input[name])
        self._config = _runtime_config(trt, engine)
        self.device = torch.cuda.get_device_name() if device == "cuda" else device
        self.precision = precision

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Named tensors in, named tensors out; the outputs are the caller's to keep.

        Raises:
            UsageError: more rows than the largest profile has.
            BackendUnavailable: the engine fails.
        """
        torch = self._torch
        rows = len(inputs[self.inputs[0]])
        lane = self._lane(rows, {name: inputs[name].shape[1:] for name in self.inputs})
        with torch.cuda.stream(lane.stream):
            for name in self.inputs:
                lane.host[name][:rows].copy_(torch.from_numpy(inputs[name]))
                lane.device[name][:rows].copy_(lane.host[name][:rows], non_blocking=True)
            for name in self.inputs:
                lane.context.set_input_shape(name, (rows, *lane.device[name].shape[1:]))
            self._enqueue(lane.context, lane.device, lane.stream)
            for name in self.outputs:
                lane.host[name][:rows].copy_(lane.device[name][:rows], non_blocking=True)
        lane.stream.synchronize()
        return {name: lane.host[name][:rows].numpy().copy() for name in self.outputs}

    def zeros(self, rows: int) -> dict[str, F32]:
        """Inputs of so many rows, with the sides that the plan is best for."""
        best = {name: self._engine.get_tensor_profile_shape(name, 0)[1] for name in self.inputs}
        return {n: np.zeros((rows, *tuple(shape)[1:]), np.float32) for n, shape in best.items()}

    def on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """f32 tensors on the device in and out, in torch's current stream; a graph may hold it.

        Each number of rows has an execution context of its own, since a graph is valid for as long
        as nobody changes the shapes of the context that it was captured from.
        Raises: as `run`.
        """
        torch, stream = self._torch, self._torch.cuda.current_stream()
        rows = len(inputs[self.inputs[0]])
        sides = {name: tuple(inputs[name].shape[1:]) for name in self.inputs}
        contexts: dict[Any, Any] = self._local.__dict__.setdefault("contexts", {})
        key = (rows, *sides.values())
        if key not in contexts:
            contexts[key] = self._context(_profile(rows), rows, sides, stream)
        context = contexts[key]
        tensors = {name: inputs[name].to(self._type(name)).contiguous() for name in self.inputs}
        for name in self.outputs:
            shape = tuple(context.get_tensor_shape(name))
            tensors[name] = torch.empty(shape, dtype=self._type(name), device=self._on)
        self._enqueue(context, tensors, stream)
        return {name: tensors[name].float() for name in self.outputs}

    def _enqueue(self, context: Any, tensors: Mapping[str, Any], stream: Any) -> None:
        for name, tensor in tensors.items():
            context.set_tensor_address(name, tensor.data_ptr())
        if not context.execute_async_v3(stream.cuda_stream):
            raise BackendUnavailable("tensorrt failed to run the engine; see its log above")

    def _lane(self, rows: int, sides: Sides) -> _Lane:
        lanes: dict[Any, _Lane] = self._local.__dict__.setdefault("lanes", {})
        profile = _profile(rows)
        key = (profile, *(sides[name] for name in self.inputs))
        if key not in lanes:
            lanes[key] = self._open(profile, sides)
        return lanes[key]

    def _open(self, profile: int, sides: Sides) -> _Lane:
        torch, most = self._torch, PROFILES[profile][2]
        stream = torch.cuda.Stream()
        context = self._context(profile, most, sides, stream)
        pinned = self._on == "cuda"
        host, device = {}, {}
        for name in (*self.inputs, *self.outputs):
            shape = (most, *tuple(context.get_tensor_shape(name))[1:])
            host[name] = torch.empty(shape, dtype=torch.float32, pin_memory=pinned)
            device[name] = torch.empty(shape, dtype=self._type(name), device=self._on)
        return _Lane(context, stream, host, device)

    def _context(self, profile: int, rows: int, sides: Sides, stream: Any) -> Any:
        context = self._engine.create_execution_context(*self._config)
        if context is None:
            raise BackendUnavailable("tensorrt has no memory for another execution context")
        if not context.set_optimization_profile_async(profile, stream.cuda_stream):
            raise BackendUnavailable(f"tensorrt refuses its profile {profile}")
        for name in self.inputs:
            if not context.set_input_shape(name, (rows, *sides[name])):
                raise UsageError(f"got {name} of sides {sides[name]}, which the plan does not take")
        return context

    def _type(self, name: str) -> Any:
        """Of torch. Asked for, not assumed: a plan may have outputs of half precision."""
        return getattr(self._torch, _torch_name(self._trt, self._engine.get_tensor_dtype(name)))

    def release(self) -> None:
        """Let the contexts and buffers of this thread go; its next run makes new ones."""
        self._local.__dict__.clear()

    @property
    def compiles(self) -> bool:
        """Whether kernels are compiled on this machine, when a shape is first seen: RTX."""
        return bool(self._config)

    def compiled_kernels(self) -> bytes:
        """What RTX has compiled of the plan for this GPU so far; empty with full TensorRT."""
        return bytes(self._config[0].get_runtime_cache().serialize()) if self._config else b""

    def take_kernels(self, compiled: bytes) -> None:
        """`compiled_kernels` of an earlier process, before the first run."""
        if self._config and not self._config[0].get_runtime_cache().deserialize(compiled):
            log.warning("kernels that TensorRT for RTX kept cannot be used; they are made again")


def _profile(rows: int) -> int:
    """The number of the one that takes so many rows."""
    for index, (least, _, most) in enumerate(PROFILES):
        if least <= rows <= most:
            return index
    raise UsageError(f"got {rows} rows, expected 1 to {PROFILES[-1][2]}")


def _runtime_config(trt: Any, engine: Any) -> tuple[Any, ...]:
    """RTX compiles kernels when a context first needs them, and can hand them out; () without.

    It would run a substitute until they are compiled: what is captured into a CUDA graph would stay
    slow, and the same row would not give the same bits.
    """
    if not hasattr(engine, "create_runtime_config"):
        return ()
    config = engine.create_runtime_config()
    if not hasattr(config, "create_runtime_cache"):
        return ()
    config.set_runtime_cache(config.create_runtime_cache())
    strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if strategies is not None:
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    return (config,)


def _torch_name(trt: Any, kind: Any) -> str:
    kinds = {trt.DataType.FLOAT: "float32", trt.DataType.HALF: "float16"}
    kinds[trt.DataType.BF16] = "bfloat16"
    return kinds[kind]


def load(
    model: Model,
    precision: str = "f32",
    cache: PlanCache | None = None,
) -> TensorRtNetwork:
    """The engine of a model's ONNX on this machine's GPU, from the cache or built.

    "fast" is f16, which every GPU since Turing has. A plan that does not load counts as a miss.
    Raises: BackendUnavailable without TensorRT, torch with CUDA, or a GPU.
    """
    precision = "f16" if precision == FAST else precision
    if precision not in _PRECISIONS:
        raise BackendUnavailable(
            f"tensorrt computes in {', '.join(_PRECISIONS)}, not {precision!r}"
        )
    trt = library()
    if importlib.util.find_spec("torch") is None:
        raise BackendUnavailable(
            f"backend 'tensorrt' keeps its tensors in torch; {pip_install('gpu')}"
        )
    import torch

    if not torch.cuda.is_available():
        raise BackendUnavailable(
            "backend 'tensorrt' needs an NVIDIA GPU that torch can see; `lipstream doctor` says "
            "what is there"
        )
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    weights = model.onnx.read_bytes() + model.safetensors.read_bytes()
    key = EngineKey(
        hashlib.sha256(weights).hexdigest(),
        trt.__name__,
        trt.__version__,
        properties.name,
        f"{properties.major}.{properties.minor}",
        _driver_version(),
        precision,
        PROFILES,
    )
    cache = PlanCache() if cache is None else cache
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    plan = cache.read(key)
    engine = None if plan is None else runtime.deserialize_cuda_engine(plan)
    if engine is None:
        log.info("building a TensorRT engine", extra={"gpu": key.gpu, "precision": precision})
        plan = build_plan(trt, model.onnx, precision)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BackendUnavailable(f"tensorrt cannot load the engine it built for {key.gpu}")
        cache.write(key, plan)
    network = TensorRtNetwork(trt, engine, precision, torch)
    _warm(network, cache, key)
    return network


def _warm(network: TensorRtNetwork, cache: PlanCache, key: EngineKey) -> None:
    """A first run; where RTX compiles kernels, one for each batch that there is, and keep them."""
    kept = cache.companion(key, _KERNELS)
    if kept is not None:
        network.take_kernels(kept)
    in_batches = network.inputs == (RENDERER_INPUT,)
    missing = network.compiles and kept is None and in_batches
    for rows in BATCHES if missing else (1,):
        network.run(network.zeros(rows))
    network.release()
    compiled = network.compiled_kernels()
    if compiled and compiled != kept:
        cache.write(key, compiled, _KERNELS)


def _driver_version() -> str:
    """The kernel driver's version, or "unknown" where there is no such file."""
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().split("\n", 1)[0].strip() if path.is_file() else "unknown"
