"""The encoder over a file: NumPy against torch, and what it can see."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from lipstream.engine.networks.encoder_file import EncoderFile
from lipstream.engine.networks.signatures import (
    FEATURES,
    TOKEN_WIDTH,
    TOKENS_AFTER_IN_FILE,
    TOKENS_BEFORE,
)
from lipstream.engine.types import F32
from tests.random_encoder import COEFFICIENTS, random_model, random_weights


def features(steps: int) -> F32:
    return np.random.default_rng(1).standard_normal((steps, FEATURES)).astype(np.float32)


def test_numpy_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")
    from lipstream.engine.networks.encoder_torch import load_net

    path = random_model().safetensors
    net, heard = load_net(path), features(300)
    with torch.no_grad():
        layers = net.listener(torch.from_numpy(heard)[None], TOKENS_AFTER_IN_FILE)
        logits, expected = net.express_file(net.code(layers, (0, 0, 0)))
    expression, speech = EncoderFile(load_file(str(path))).run(heard)
    np.testing.assert_allclose(expression, expected[0, :, 0].numpy(), atol=2e-4)
    spoken = 1 - logits[0, :, 0].softmax(-1)[:, 0].numpy()
    np.testing.assert_allclose(speech, spoken, atol=2e-4)


@pytest.mark.parametrize("steps", [1, 2, 130])
def test_any_length_has_an_output_a_step(steps: int) -> None:
    expression, speech = EncoderFile(random_weights()).run(features(steps))
    assert expression.shape == (steps, COEFFICIENTS) and speech.shape == (steps,)
    assert np.isfinite(expression).all() and ((speech >= 0) & (speech <= 1)).all()


def test_a_block_sees_60_tokens_either_way() -> None:
    network = EncoderFile(random_weights())
    tokens = np.random.default_rng(2).standard_normal((400, TOKEN_WIDTH)).astype(np.float32)
    other = tokens.copy()
    other[200] = -tokens[200]
    moved = np.abs(network._block(0, tokens) - network._block(0, other)).max(1) > 1e-6
    assert moved[200 - TOKENS_AFTER_IN_FILE : 201 + TOKENS_BEFORE].all()
    assert moved.sum() == TOKENS_AFTER_IN_FILE + 1 + TOKENS_BEFORE
