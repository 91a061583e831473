"""Roofline of each stage: its multiply-adds and bytes against the ceilings of the machine.

A stage takes no less than its multiply-adds at the peak rate, and no less than its bytes at the
speed of a copy. Source: Williams, Waterman, Patterson, "Roofline", 2009. Models are counted layer
by layer from their graphs, pixel stages by the pixels of the patch that they work on. Bytes are a
lower bound: inputs, outputs and weights once each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.face.mesh import LIP_OUTLINE
from lipstream.engine.face.model import face_model
from lipstream.engine.networks.openvino import library
from lipstream.engine.networks.signatures import BANDS, CHANNELS, FRAMES_PER_STEP, crop_shape
from lipstream.engine.pipeline import Engine
from lipstream.engine.speech.features import FFT_SAMPLES, WINDOW_SAMPLES

# Of one element, of weights and of activations.
_BYTES: Final = {"f32": 4.0, "bf16": 2.0, "f16": 2.0, "int8": 1.0}


def stage_work(engine: Engine) -> dict[str, dict[str, float]]:
    """{stage: {macs, bytes}} of one frame and of the step of sound that completes it."""
    target = engine.target
    pixels = target.width * target.height
    jaw, lips = _patches(engine)
    basis = face_model().basis.size
    states, slots = (0, 0)
    if engine.matcher is not None:
        states, slots = engine.matcher.transitions.predecessors.shape
    sources = len(target.sources)
    coefficients = target.track.expression.shape[1]
    jpeg = float(np.diff(target.frames._offsets).mean())
    mel = FFT_SAMPLES // 2 * BANDS
    work = {
        # An FFT of n samples takes about n log2 n; the mel filters are a dense product.
        "features": (
            FRAMES_PER_STEP * (FFT_SAMPLES * np.log2(FFT_SAMPLES) + mel),
            4.0 * (FRAMES_PER_STEP * WINDOW_SAMPLES + mel),
        ),
        "encoder": _model("encoder.onnx", engine.encoder.network.precision),
        "matcher": matcher_work(states, slots, coefficients),
        "sources": (sources * (32 + coefficients), sources * (8.0 * 32 + 4 * coefficients)),
        "decode": (pixels * 1.5 * 8, jpeg + pixels * 1.5),
        "background": (0.0, 0.0),
        # Bilinear: four neighbours in three channels. Retargeting: basis times coefficients.
        "warp": (12.0 * (jaw + lips) + basis, 7.0 * (jaw + lips) + 4 * basis),
        "composite": (6.0 * jaw + 15.0 * lips, 10.0 * jaw + 13.0 * lips + 3.0 * pixels),
        "color": (2 * 9.0 * jaw, 2 * 4.5 * jaw),
        "encode": (pixels * 1.5 * 16, 3.0 * pixels),
    }
    if engine.renderer is not None:
        shape = (1, CHANNELS, *crop_shape(engine.renderer.crop_resolution))
        work["renderer"] = _model("renderer.onnx", engine.renderer.network.precision, shape)
    return {name: {"macs": float(m), "bytes": float(b)} for name, (m, b) in work.items()}


def matcher_work(states: int, slots: int, coefficients: int) -> tuple[float, float]:
    """Multiply-adds and bytes of one frame; states are track frames in both directions."""
    # An addition and a comparison for each transition, again for the guide; and the emission.
    return (
        states * (slots + coefficients / 2),
        states * (8.0 * slots + 2 * coefficients + 16),
    )


def against(
    work: Mapping[str, Mapping[str, float]],
    measured_ms: Mapping[str, float],
    machine: Mapping[str, float],
    precision: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """{stage: {macs, bytes, least_ms, bound, reached}}; `reached` is least / measured.

    precision: of the stages that run a model ("f32", "bf16", ...).
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, spent_ms in measured_ms.items():
        if name not in work:
            continue
        macs, moved = work[name]["macs"], work[name]["bytes"]
        rate = machine.get(f"gmac_s_{precision.get(name, 'f32')}", machine["gmac_s_f32"])
        compute_ms = macs / rate / 1e6
        memory_ms = moved / machine["copy_gb_s"] / 1e6
        least_ms = max(compute_ms, memory_ms)
        rows[name] = {
            "macs": macs,
            "bytes": moved,
            "least_ms": round(least_ms, 5),
            "bound": "multiply-adds" if compute_ms >= memory_ms else "bytes",
            "reached": round(least_ms / spent_ms, 4) if spent_ms > 0 else None,
        }
    return rows


def whole_ms(engine: Engine, machine: Mapping[str, float]) -> float:
    """Lower bound of the time of a frame on one core, encoding included, ms."""
    work = stage_work(engine)
    rows = against(work, dict.fromkeys(work, 0.0), machine, precisions(engine))
    return float(sum(row["least_ms"] for row in rows.values()))


def precisions(engine: Engine) -> dict[str, str]:
    """The precision of each stage that runs a model."""
    found = {"encoder": engine.encoder.network.precision}
    if engine.renderer is not None:
        found["renderer"] = engine.renderer.network.precision
    return found


def _patches(engine: Engine) -> tuple[float, float]:
    """Pixels of the jaw patch and of the lip patch in the middle frame of the track."""
    track = engine.target.track
    index = len(track) // 2
    scale = track.placement(index).scale
    points = track.landmarks[index, :, :2]
    jaw = (np.ptp(points[:, 0]) + 0.4 * scale) * np.ptp(points[len(points) // 3 :, 1])
    mouth = points[list(LIP_OUTLINE)]
    lips = (np.ptp(mouth[:, 0]) + 0.4 * scale) * (np.ptp(mouth[:, 1]) + 0.4 * scale)
    return float(jaw), float(lips)


def _model(file: str, precision: str, shape: Sequence[int] = ()) -> tuple[float, float]:
    """Multiply-adds and bytes of one run of a shipped model; `shape`: of an input of free size."""
    path = Path(str(files("lipstream.engine.weights"))) / file
    if not path.is_file():
        return 0.0, 0.0
    size = _BYTES.get(precision, 4.0)
    try:
        model = library().Core().read_model(str(path))
    except BackendUnavailable:
        weights = path.with_suffix(".safetensors").stat().st_size
        return weights, weights  # a step uses each weight once, and most are stored in a byte
    model.reshape({port.any_name: list(shape) or _one(port.partial_shape) for port in model.inputs})
    macs = moved = 0.0
    for layer in model.get_ordered_ops():
        kind = layer.get_type_name()
        if kind == "Constant":
            stored = layer.output(0).get_element_type().size
            moved += min(size, stored) * _count(layer.output(0).get_shape())
        elif kind in ("MatMul", "Convolution", "GroupConvolution", "ConvolutionBackpropData"):
            macs += _layer(kind, layer)
            moved += size * _count(layer.output(0).get_shape())
        elif kind in ("GRUCell", "GRUSequence"):
            macs += sum(
                _count(layer.input(k).get_shape()) for k in range(2, layer.get_input_size())
            )
    return macs, moved


def _layer(kind: str, layer: Any) -> float:
    out = _count(layer.output(0).get_shape())
    weights = list(layer.input(1).get_shape())
    if kind == "MatMul":
        inner = list(layer.input(0).get_shape())[
            -2 if layer.get_attributes()["transpose_a"] else -1
        ]
        return out * inner
    if kind == "ConvolutionBackpropData":  # [in, out, kh, kw]: each input touches every weight
        return _count(layer.input(0).get_shape()) * float(np.prod(weights[1:]))
    # [out, in, kh, kw], or with groups [g, out, in, kh, kw]
    return out * float(np.prod(weights[2:] if kind == "GroupConvolution" else weights[1:]))


def _one(shape: Any) -> list[int]:
    return [1 if size.is_dynamic else size.get_length() for size in shape]


def _count(shape: Any) -> float:
    return float(np.prod(list(shape)))
