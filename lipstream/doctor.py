"""Checks of this machine: what lipstream finds, what is missing, and how to install it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from lipstream import doctor_gpu
from lipstream.calibration.tracking.system_libraries import loads, missing_libraries
from lipstream.engine import extras

Status = Literal["ok", "slow", "missing"]

_OF_GPUS = ("cuda", "tensorrt", "pycuda", "on a card")  # without a driver, one line for all
_CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "neon", "asimd")


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    status: Status
    found: str
    needed_for: str
    remedy: str = ""


def examine() -> list[Check]:
    """All checks, those that every command needs first."""
    checks: list[Callable[[], Check]] = [
        _python,
        _processor,
        _kernels,
        _openvino,
        _weights,
        _encoders,
        _provenance,
        _calibrate_extra,
        _calibration_libraries,
        _landmarker,
        _portaudio,
        _window,
        _camera,
        _torch,
        _cuda,
        _tensorrt,
        _pycuda,
        _gpu_backends,
        _auto,
    ]
    return [check() for check in checks]


def as_json(checks: list[Check]) -> dict[str, Any]:
    """For programs: `ok` is whether `demo` and `dub` can run."""
    running = ("python", "openvino", "weights", "encoders")
    ok = all(c.status != "missing" for c in checks if c.name in running)
    return {"ok": ok, "checks": [asdict(check) for check in checks]}


def as_text(checks: list[Check]) -> str:
    """For people: a line for each check, and below it what to do."""
    words = {"ok": "ok     ", "slow": "slow   ", "missing": "missing"}
    lines = []
    without_driver = any(c.name == "cuda" and c.status == "missing" for c in checks)
    for check in checks:
        if without_driver and check.name in _OF_GPUS:
            if check.name == "cuda":
                lines.append(f"none     GPU          {check.found}: everything runs on the CPU")
            continue
        lines.append(f"{words[check.status]}  {check.name:<12} {check.found}")
        if check.remedy:
            lines.append(f"{'':22} for {check.needed_for}: {check.remedy}")
    return "\n".join(lines)


def _version(*distributions: str) -> str | None:
    """`name version` of the first of these that is installed."""
    for name in distributions:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return None


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("python", "ok", found, "everything")


def _processor() -> Check:
    model, flags = platform.processor() or platform.machine(), set[str]()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "model name":
                model = value
            if key in ("flags", "Features"):
                flags |= set(value.split())
    except OSError:
        pass  # not Linux: only the model is shown
    from lipstream.engine.cores import usable_cores

    features = " ".join(f for f in _CPU_FEATURES if f in flags) or "no vector units known"
    return Check("processor", "ok", f"{model}, {usable_cores()} cores, {features}", "everything")


def _kernels() -> Check:
    from lipstream.engine.errors import LipstreamError
    from lipstream.kernels import native

    try:
        native.library()
    except LipstreamError as error:
        return Check(
            "kernels",
            "slow",
            f"NumPy ({error})",
            "real time",
            "apt-get install g++, then install lipstream again",
        )
    return Check("kernels", "ok", "compiled", "real time")


def _openvino() -> Check:
    version = _version("openvino")
    if version is None:
        return Check("openvino", "missing", "not installed", "the encoder", "pip install openvino")
    from lipstream.engine.networks.openvino import library

    can = library().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precision = "bf16" if "BF16" in can else "f32"
    return Check("openvino", "ok", f"{version}, {precision} on the CPU", "the encoder")


def _weights() -> Check:
    from lipstream.engine import weights

    folder = Path(str(weights.__file__)).parent
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".onnx"))
    if not names:
        return Check("weights", "missing", "none", "everything", "reinstall lipstream")
    return Check("weights", "ok", ", ".join(names), "everything")


def _encoders() -> Check:
    import av

    wanted = ("libx264", "aac")
    missing = [name for name in wanted if name not in av.codecs_available]
    if missing:
        remedy = "pip install --force-reinstall av"
        return Check("encoders", "missing", f"no {', '.join(missing)}", "MP4 output", remedy)
    return Check("encoders", "ok", f"{', '.join(wanted)} (av {av.__version__})", "MP4 output")


def _provenance() -> Check:
    needed_for = "signed provenance in files, verify"
    version = _version("c2pa-python")
    if version is None:
        found = "no c2pa-python: files are written without a signed manifest"
        return Check("provenance", "missing", found, needed_for, "pip install c2pa-python")
    from lipstream.engine.errors import LipstreamError
    from lipstream.streaming.files.signing import own_credentials, own_key_path

    try:
        own = own_credentials(make=False)
    except LipstreamError as error:
        return Check("provenance", "missing", str(error), needed_for, "correct what this line says")
    key = "a key is made on first use" if own is None else f"{own.name} in {own_key_path()}"
    return Check("provenance", "ok", f"{version}, {key}", needed_for)


def _calibrate_extra() -> Check:
    absent = extras.missing(extras.MODULES["calibrate"])
    if absent:
        found = f"no {', '.join(absent)}"
        remedy = extras.pip_install("calibrate")
        return Check("calibrate", "missing", found, "calibrate, demo, bench", remedy)
    found = f"{_version('mediapipe')}, {_version('scikit-image')}"
    return Check("calibrate", "ok", found, "calibrate, demo, bench")


def _calibration_libraries() -> Check:
    missing = missing_libraries()
    if missing:
        return Check(
            "graphics",
            "missing",
            f"no {', '.join(missing)}",
            "calibrate",
            f"apt-get install {' '.join(missing.values())}",
        )
    return Check("graphics", "ok", "the libraries that MediaPipe and OpenCV load", "calibrate")


def _landmarker() -> Check:
    from lipstream.calibration.assets import FACE_LANDMARKER, find
    from lipstream.engine.errors import AssetError

    try:
        path = find()
    except AssetError as error:
        return Check("landmarker", "missing", str(error), "calibrate", "lipstream assets fetch")
    if path is None:
        found = f"{FACE_LANDMARKER.name} is not downloaded"
        return Check("landmarker", "missing", found, "calibrate", "lipstream assets fetch")
    return Check("landmarker", "ok", str(path), "calibrate")


def _portaudio() -> Check:
    if loads("libportaudio.so.2"):
        return Check("portaudio", "ok", "libportaudio.so.2", "microphones")
    remedy = "apt-get install libportaudio2"
    return Check("portaudio", "missing", "no libportaudio.so.2", "microphones", remedy)


def _window() -> Check:
    version = _version("pysdl2")
    if version is None:
        remedy = extras.pip_install("present")
        return Check("window", "missing", "no SDL", "present --window", remedy)
    return Check("window", "ok", version, "present --window")


def _camera() -> Check:
    needed_for = "present --camera"
    version = _version("pyvirtualcam")
    if version is None:
        remedy = extras.pip_install("present")
        return Check("camera", "missing", "no pyvirtualcam", needed_for, remedy)
    if platform.system() == "Linux" and not Path("/sys/module/v4l2loopback").exists():
        remedy = "apt-get install v4l2loopback-dkms, then modprobe v4l2loopback"
        return Check("camera", "missing", f"{version}, no v4l2loopback", needed_for, remedy)
    return Check("camera", "ok", version, needed_for)


def _torch() -> Check:
    return _gpu_check("torch", "training, --backend torch", doctor_gpu.torch())


def _cuda() -> Check:
    return _gpu_check("cuda", "GPUs", doctor_gpu.driver())


def _tensorrt() -> Check:
    return _gpu_check("tensorrt", "--backend tensorrt", doctor_gpu.tensorrt())


def _pycuda() -> Check:
    return _gpu_check("pycuda", "--backend cuda", doctor_gpu.pycuda())


def _gpu_backends() -> Check:
    return _gpu_check("on a card", "GPUs", doctor_gpu.backends())


def _auto() -> Check:
    from lipstream.engine.errors import LipstreamError
    from lipstream.engine.networks.base import FAST
    from lipstream.engine.networks.registry import auto_backend, shipped

    try:
        chosen = {
            name: auto_backend(shipped(name), precision)
            for name, precision in (("encoder", "f32"), ("renderer", FAST))
        }
    except LipstreamError as error:
        return Check("auto", "missing", str(error), "everything", "install lipstream again")
    found = "; ".join(
        f"{name}: {network.name} in {network.precision}, {reason}"
        for name, (network, reason) in chosen.items()
    )
    return Check("auto", "ok", found, "everything")


def _gpu_check(name: str, needed_for: str, finding: doctor_gpu.Finding) -> Check:
    runs, found, remedy = finding
    return Check(name, "ok" if runs else "missing", found, needed_for, remedy)
