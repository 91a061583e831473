"""TensorRT plans: built from ONNX, and kept on disk.

Building takes seconds and binds a plan to one kind of GPU, so plans are cached under a hash of all
that they depend on. TensorRT 10 and 11 and TensorRT for RTX are used through one module handle; RTX
builds without a GPU, for compute capabilities that are named.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.extras import pip_install
from lipstream.engine.networks.onnx_precision import model_bytes
from lipstream.engine.networks.signatures import CROP_RESOLUTIONS, crop_shape
from lipstream.engine.paths import cache_folder

log = logging.getLogger(__name__)

_MODULES: Final = ("tensorrt", "tensorrt_rtx")
# Least, best, most rows of a batch. One row is the call of a person; the rest is a server's.
PROFILES: Final = ((1, 1, 1), (2, 16, 64))
_SIDES: Final = tuple(  # rows and columns of a crop: least, best, most
    crop_shape(px) for px in (CROP_RESOLUTIONS[0], CROP_RESOLUTIONS[0], CROP_RESOLUTIONS[-1])
)
_PLANS_KEPT: Final = 16


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything that a plan depends on."""

    model_sha256: str  # of the ONNX file and the weights beside it
    library: str
    library_version: str
    gpu: str
    compute_capability: str
    driver: str
    precision: str
    profiles: tuple[tuple[int, int, int], ...]

    def file_name(self) -> str:
        """A name that changes whenever any field does."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.plan"


class PlanCache:
    """Plans on disk, the last `_PLANS_KEPT` that were used."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cache_folder() / "tensorrt" if folder is None else folder

    def read(self, key: EngineKey) -> bytes | None:
        """The plan of a key, or None."""
        path = self.folder / key.file_name()
        try:
            plan = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return plan

    def write(self, key: EngineKey, plan: bytes, suffix: str = "") -> None:
        """Write a plan, or with a suffix what belongs to it; drop plans used longest ago.

        A folder that cannot be written costs time at the next start, and nothing else.
        """
        partial = ""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
                partial = file.name
                file.write(plan)
            os.replace(partial, self.folder / (key.file_name() + suffix))
            self._prune()
        except OSError as error:
            log.warning("a TensorRT plan could not be kept in %s: %s", self.folder, error)
            if partial:
                with suppress(OSError):
                    os.unlink(partial)

    def companion(self, key: EngineKey, suffix: str) -> bytes | None:
        """What was written beside a plan, or None."""
        path = self.folder / (key.file_name() + suffix)
        return path.read_bytes() if path.is_file() else None

    def _prune(self) -> None:
        plans = sorted(self.folder.glob("*.plan"), key=lambda path: path.stat().st_mtime)
        for plan in plans[:-_PLANS_KEPT]:
            for path in self.folder.glob(f"{plan.name}*"):
                path.unlink(missing_ok=True)


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


def build_plan(
    trt: Any,
    onnx: Path,
    precision: str,
    profiles: Sequence[tuple[int, int, int]] = PROFILES,
    capability: str | None = None,
) -> bytes:
    """An engine of an ONNX model whose first axis is the batch and whose free sides are a crop's.

    `precision`: f32 (whose products are TF32 where the GPU has it), f16 or bf16; inputs and outputs
    are f32. `capability`: such as "8.9", with RTX alone, which needs no GPU then.

    Raises: BackendUnavailable when TensorRT refuses the model, with its words.
    """
    words = _Words(trt)
    try:
        builder = trt.Builder(words.logger)
        flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = trt.OnnxParser(network, words.logger)
        if not parser.parse(model_bytes(onnx, precision)):
            errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
            raise BackendUnavailable(f"tensorrt does not read the model: {errors}")
        config = builder.create_builder_config()
        for batches in profiles:
            profile = builder.create_optimization_profile()
            for index in range(network.num_inputs):
                tensor = network.get_input(index)
                rest = tuple(tensor.shape)[1:]
                shapes = zip(batches, _SIDES, strict=True)
                profile.set_shape(
                    tensor.name,
                    *((rows, *(rest if -1 not in rest else (rest[0], *s))) for rows, s in shapes),
                )
            config.add_optimization_profile(profile)
        if capability is not None:
            config.num_compute_capabilities = 1
            kind = getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}", None)
            if kind is None:
                raise BackendUnavailable(
                    f"this {trt.__name__} builds nothing for capability {capability}"
                )
            config.set_compute_capability(kind, 0)
        plan = builder.build_serialized_network(network, config)
    except BackendUnavailable:
        raise
    except Exception as error:  # the vendor's bindings raise RuntimeError and others
        raise BackendUnavailable(f"tensorrt built no engine: {words.last or error}") from error
    if plan is None:
        raise BackendUnavailable(f"tensorrt built no engine: {words.last or 'it gives no reason'}")
    return bytes(plan)


class _Words:
    """TensorRT's log, and what it said last of an error: exceptions and None say nothing."""

    def __init__(self, trt: Any) -> None:
        words = self
        error = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

        class Logger(trt.ILogger):  # type: ignore[misc]  # the module is a value
            """Hands TensorRT's log to ours."""

            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                """Called by TensorRT, from any thread."""
                if severity in error:
                    words.last = message.strip()
                    log.error("%s", message)
                elif severity == trt.ILogger.Severity.WARNING:
                    log.warning("%s", message)

        self.last = ""
        self.logger = Logger()
