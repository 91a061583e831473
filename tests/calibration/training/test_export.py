"""Files of an encoder hold its weights, and merged heads are exactly their mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lipstream.engine.networks.base import Model
from lipstream.engine.networks.registry import select_backend
from lipstream.engine.types import F32

pytest.importorskip("torch")
pytest.importorskip("onnx")


def weights(seed: int, head_of: int | None = None) -> dict[str, F32]:
    """A small random encoder; `head_of` draws the head from another seed."""
    import torch

    from lipstream.engine.networks.encoder_torch import EncoderNet, EncoderSize

    torch.manual_seed(seed)
    net = EncoderNet(EncoderSize(phones=7, hidden=24, code=3, head=10, coefficients=4))
    own = {name: value.numpy() for name, value in net.state_dict().items()}
    if head_of is not None:
        other = weights(head_of)
        own |= {name: value for name, value in other.items() if name.startswith(("code", "head"))}
    return own


def unrolled(folder: Path, backend: str) -> F32:
    model = Model(folder / "encoder.onnx", folder / "encoder.safetensors")
    network = select_backend(backend, model)
    rng = np.random.default_rng(0)
    widths = [int(width) for width in model.metadata()["state_widths"].split(",")]
    states = [np.zeros((2, width), np.float32) for width in widths]
    outputs = []
    for _ in range(30):
        features = rng.standard_normal((2, 128)).astype(np.float32)
        named = {"features": features, **{f"h{i + 1}": h for i, h in enumerate(states)}}
        out = network.run(named)
        states = [out[f"h{i}_next"] for i in (1, 2, 3)]
        outputs.append(out["expression"])
    return np.stack(outputs)


def test_onnx_and_safetensors_hold_the_same_model(tmp_path: Path) -> None:
    from lipstream.calibration.training.encoder.export import save_encoder

    save_encoder(weights(0), tmp_path, {"seed": "0"})
    np.testing.assert_allclose(
        unrolled(tmp_path, "openvino"), unrolled(tmp_path, "torch"), atol=1e-5
    )
    np.testing.assert_allclose(unrolled(tmp_path, "numpy"), unrolled(tmp_path, "torch"), atol=1e-5)


def rounded_to_f16(encoder: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights as they are stored."""
    return {name: w.astype(np.float16).astype(np.float32) for name, w in encoder.items()}


def test_merged_heads_are_their_mean(tmp_path: Path) -> None:
    from lipstream.calibration.training.encoder.export import merge_heads, save_encoder

    encoders = [rounded_to_f16(weights(*seeds)) for seeds in ((0,), (0, 5), (0, 6))]
    results = []
    for index, encoder in enumerate([*encoders, merge_heads(encoders)]):
        folder = tmp_path / str(index)
        folder.mkdir()
        save_encoder(encoder, folder, {})
        results.append(unrolled(folder, "numpy"))
    np.testing.assert_allclose(results[3], np.mean(results[:3], axis=0), atol=2e-4)
    assert np.abs(results[0] - results[1]).max() > 0.01
