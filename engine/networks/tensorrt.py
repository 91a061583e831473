"""TensorRT 10 and 11, and TensorRT for RTX, through one module handle.

Building an engine takes seconds and binds it to one GPU, so plans are cached under a hash of all
that they depend on. A plan that does not load counts as a miss: it is built and written again.
Running needs torch, whose CUDA context and memory the engine shares.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.extras import pip_install
from lipstream.engine.networks.base import Model
from lipstream.engine.types import F32

log = logging.getLogger(__name__)

_MODULES: Final = ("tensorrt", "tensorrt_rtx")


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything that a plan depends on."""

    model_sha256: str  # of the ONNX file and the weights beside it
    library: str
    library_version: str
    gpu: str
    compute_capability: str
    driver: str
    batches: tuple[int, int, int]  # least, best, most rows of a batch
    flags: str

    def file_name(self) -> str:
        """A name that changes whenever any field does."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.plan"


class PlanCache:
    """Plans on disk."""

    def __init__(self, folder: Path | None = None) -> None:
        base = os.environ.get("XDG_CACHE_HOME")
        default = (Path(base) if base else Path.home() / ".cache") / "lipstream" / "tensorrt"
        self.folder = default if folder is None else folder

    def read(self, key: EngineKey) -> bytes | None:
        """The plan of a key, or None."""
        path = self.folder / key.file_name()
        return path.read_bytes() if path.is_file() else None

    def write(self, key: EngineKey, plan: bytes) -> None:
        """Write a plan under a temporary name and rename it when it is complete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as partial:
            partial.write(plan)
        os.replace(partial.name, self.folder / key.file_name())


def library() -> Any:
    """The TensorRT module of this machine. Raises: BackendUnavailable when there is none."""
    causes = []
    for name in _MODULES:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            return importlib.import_module(name)
        except Exception as error:  # the vendor's stubs raise any type
            causes.append(f"{name}: {error}")
    cause = "; ".join(causes) or "neither tensorrt nor tensorrt_rtx is installed"
    raise BackendUnavailable(
        f"backend 'tensorrt': {cause}; {pip_install('gpu')}, or 'lipstream[rtx]'"
    )


def build_plan(trt: Any, onnx: Path, batches: tuple[int, int, int]) -> bytes:
    """An engine from an ONNX model whose first axis is the batch; needs no GPU with RTX.

    The network is strongly typed: its precision is that of the ONNX file.
    Raises: BackendUnavailable when TensorRT refuses the model.
    """
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BackendUnavailable(f"tensorrt does not read the model ({errors}); use openvino")
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *((rows, *rest) for rows in batches))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendUnavailable("tensorrt built no engine for this GPU; use openvino")
    return bytes(plan)


class TensorRtNetwork:
    """An engine on the current GPU, one execution context a thread."""

    name = "tensorrt"

    def __init__(self, trt: Any, engine: Any, device: str, precision: str) -> None:
        self._trt = trt
        self._engine = engine
        self._local = threading.local()
        self.device = device
        self.precision = precision

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """Named tensors in, named tensors out, through pageable copies; pinned ones are faster."""
        import torch

        context = getattr(self._local, "context", None)
        if context is None:
            context = self._local.context = self._engine.create_execution_context()
        stream = torch.cuda.current_stream()
        tensors: dict[str, Any] = {}
        for name, array in inputs.items():
            tensors[name] = torch.tensor(array, device="cuda")
            context.set_input_shape(name, tuple(array.shape))
        results = []
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            if name not in tensors:
                results.append(name)
                tensors[name] = torch.empty(tuple(context.get_tensor_shape(name)), device="cuda")
            context.set_tensor_address(name, tensors[name].data_ptr())
        if not context.execute_async_v3(stream.cuda_stream):
            raise BackendUnavailable("tensorrt failed to run the engine; see its log above")
        stream.synchronize()
        return {name: tensors[name].cpu().numpy() for name in results}


def load(
    model: Model,
    precision: str = "f32",
    batches: tuple[int, int, int] = (1, 1, 64),
    cache: PlanCache | None = None,
) -> TensorRtNetwork:
    """The engine of a model's ONNX on this machine's GPU, from the cache or built.

    Raises: BackendUnavailable without TensorRT, torch with CUDA, or a GPU.
    """
    if precision not in ("f32", "fast"):
        raise BackendUnavailable(
            f"tensorrt takes its precision from the model, which is f32, not {precision!r}"
        )
    trt = library()
    if importlib.util.find_spec("torch") is None:
        raise BackendUnavailable(
            f"backend 'tensorrt' keeps its tensors in torch; {pip_install('gpu')}"
        )
    import torch

    if not torch.cuda.is_available():
        raise BackendUnavailable(
            "backend 'tensorrt' needs an NVIDIA GPU that torch can see; use openvino"
        )
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    key = EngineKey(
        model_sha256=hashlib.sha256(
            model.onnx.read_bytes() + model.safetensors.read_bytes()
        ).hexdigest(),
        library=trt.__name__,
        library_version=trt.__version__,
        gpu=properties.name,
        compute_capability=f"{properties.major}.{properties.minor}",
        driver=_driver_version(),
        batches=batches,
        flags="strongly_typed",
    )
    cache = PlanCache() if cache is None else cache
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    plan = cache.read(key)
    engine = None if plan is None else runtime.deserialize_cuda_engine(plan)
    if engine is None:
        log.info("building a TensorRT engine", extra={"gpu": key.gpu})
        plan = build_plan(trt, model.onnx, batches)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BackendUnavailable(f"tensorrt cannot load the engine it built for {key.gpu}")
        cache.write(key, plan)
    return TensorRtNetwork(trt, engine, key.gpu, "f32")


def _driver_version() -> str:
    """The kernel driver's version, or "unknown" where there is no such file."""
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().split("\n", 1)[0].strip() if path.is_file() else "unknown"
