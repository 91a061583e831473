"""An encoder with random weights of the shipped one's form, for tests that need no trained one."""

from __future__ import annotations

import atexit
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.networks.base import Model
from lipstream.engine.networks.signatures import (
    BANDS,
    BLOCKS,
    HEADS,
    LOOK_AHEADS_MS,
    TOKEN_WIDTH,
    encoder_shapes,
)
from lipstream.engine.types import F32

HIDDEN, FILE_HIDDEN, PHONES, COEFFICIENTS, TAPS = 96, 32, 41, 20, (48, 48, 64)
UP = 4 * TOKEN_WIDTH


def random_weights(seed: int = 0) -> dict[str, NDArray[Any]]:
    """The tensors of encoder.safetensors."""
    random = np.random.default_rng(seed)
    weights: dict[str, NDArray[Any]] = {}

    def normal(*shape: int, spread: float = 0.1) -> F32:
        return (spread * random.standard_normal(shape)).astype(np.float32)

    def integer(name: str, outputs: int, inputs: int, gain: float = 1.0, bias: bool = True) -> None:
        plain = normal(outputs, inputs, spread=gain / np.sqrt(inputs))
        scale = np.abs(plain).max(1) / np.float32(127)
        weights[f"{name}.weight"] = np.rint(plain / scale[:, None]).astype(np.int8)
        weights[f"{name}.scale"] = scale
        if bias:
            weights[f"{name}.bias"] = normal(outputs)

    def half(name: str, outputs: int, inputs: int, end: str = "", gain: float = 1.0) -> None:
        weight = normal(outputs, inputs, spread=gain / np.sqrt(inputs))
        weights[f"{name}.weight{end}"] = weight.astype(np.float16)
        weights[f"{name}.bias{end}"] = normal(outputs)

    integer("conv1", TOKEN_WIDTH, 3 * BANDS, gain=2.0)
    integer("conv2", TOKEN_WIDTH, 3 * TOKEN_WIDTH, gain=2.0)
    weights["base"] = normal(TOKEN_WIDTH, spread=0.3)
    for block in range(BLOCKS):
        for norm in ("before", "middle"):
            weights[f"blocks.{block}.{norm}.weight"] = 1 + normal(TOKEN_WIDTH)
            weights[f"blocks.{block}.{norm}.bias"] = normal(TOKEN_WIDTH)
        for name in ("query", "key", "value", "out"):
            integer(f"blocks.{block}.{name}", TOKEN_WIDTH, TOKEN_WIDTH, bias=name != "key")
        integer(f"blocks.{block}.up", UP, TOKEN_WIDTH)
        integer(f"blocks.{block}.down", TOKEN_WIDTH, UP)
    weights["offsets"] = normal(BLOCKS, HEADS, 121, spread=1.0)
    for index, width in enumerate(TAPS):
        half(f"tap{index}", width, TOKEN_WIDTH)
    half("head_gru", 3 * HIDDEN, sum(TAPS), "_ih_l0")
    half("head_gru", 3 * HIDDEN, HIDDEN, "_hh_l0")
    half("phone", len(LOOK_AHEADS_MS) * PHONES, HIDDEN, gain=4.0)
    half("head", len(LOOK_AHEADS_MS) * COEFFICIENTS, HIDDEN)
    weights["look_aheads_ms"] = np.array(LOOK_AHEADS_MS, np.int32)
    for end in ("_l0", "_l0_reverse"):
        half("file.gru", 3 * FILE_HIDDEN, sum(TAPS), f"_ih{end}")
        half("file.gru", 3 * FILE_HIDDEN, FILE_HIDDEN, f"_hh{end}")
    half("file.phone", PHONES, 2 * FILE_HIDDEN, gain=4.0)
    half("file.head", COEFFICIENTS, 2 * FILE_HIDDEN)
    return weights


def random_inputs(batch: int = 1, seed: int = 0) -> dict[str, F32]:
    """Features of speech's size and states that are nowhere zero, f32 [batch, ...]."""
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal((batch, *shape)).astype(np.float32)
        for name, shape in encoder_shapes(HIDDEN).items()
    }


def save_random_encoder(folder: Path, seed: int = 0) -> Model:
    """encoder.safetensors in `folder` and, where the onnx package is, encoder.onnx."""
    from safetensors.numpy import save_file

    model = Model(folder / "encoder.onnx", folder / "encoder.safetensors")
    metadata = {
        "architecture": "lipstream-encoder",
        "state_widths": str(HIDDEN),
        "coefficients": str(COEFFICIENTS),
        "phones": str(PHONES),
    }
    save_file(random_weights(seed), str(model.safetensors), metadata=metadata)
    if find_spec("onnx") is not None:
        from lipstream.calibration.training.encoder.onnx_graph import encoder_onnx

        model.onnx.write_bytes(encoder_onnx(model.safetensors).SerializeToString())
    return model


@cache
def random_model() -> Model:
    """`save_random_encoder`, once for a run of the tests."""
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    return save_random_encoder(Path(folder.name))
