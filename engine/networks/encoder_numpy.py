"""The encoder in NumPy: the readable reference, and the backend that runs on any machine.

One step costs about 0.9 million multiplications, so NumPy too runs many times faster than real
time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lipstream.engine.networks.base import Model
from lipstream.engine.networks.signatures import ENCODER_OUTPUTS
from lipstream.engine.types import F32


def _sigmoid(x: F32) -> F32:
    result: F32 = np.float32(0.5) * np.tanh(np.float32(0.5) * x) + np.float32(0.5)
    return result


class EncoderNumpy:
    """One step of the encoder from its weights by name."""

    name = "numpy"
    device = "CPU"
    precision = "f32"

    def __init__(self, weights: Mapping[str, F32]) -> None:
        self._w = {key: np.asarray(value, dtype=np.float32) for key, value in weights.items()}
        phones = self._w["phone.bias"].shape[0]
        coefficients = self._w["head.bias"].shape[0]
        look_aheads = self._w["look_aheads_ms"].shape[0]
        self._posterior_shape = (look_aheads, phones // look_aheads)
        self._expression_shape = (look_aheads, coefficients // look_aheads)

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        """features f32 [B, 128] and states h1, h2, h3 to expression, speech and next states."""
        batch = len(inputs["features"])
        lifted = np.maximum(self._linear("dense", inputs["features"]), np.float32(0))
        h1 = self._gru("gru1", lifted, inputs["h1"])
        h2 = self._gru("gru2", h1, inputs["h2"])
        logits = self._linear("phone", h2).reshape(batch, *self._posterior_shape)
        raised = np.exp(logits - logits.max(-1, keepdims=True))
        posterior = raised / raised.sum(-1, keepdims=True)
        code = np.tanh(self._linear("code", h2))
        h3 = self._gru(
            "head_gru", np.concatenate([posterior.reshape(batch, -1), code], 1), inputs["h3"]
        )
        expression = self._linear("head", h3).reshape(batch, *self._expression_shape)
        speech = np.float32(1) - posterior[..., 0]
        return dict(zip(ENCODER_OUTPUTS, (expression, speech, h1, h2, h3), strict=True))

    def _linear(self, name: str, x: F32) -> F32:
        result: F32 = x @ self._w[f"{name}.weight"].T + self._w[f"{name}.bias"]
        return result

    def _gru(self, name: str, x: F32, h: F32) -> F32:
        width = h.shape[1]
        from_input = x @ self._w[f"{name}.weight_ih_l0"].T + self._w[f"{name}.bias_ih_l0"]
        from_state = h @ self._w[f"{name}.weight_hh_l0"].T + self._w[f"{name}.bias_hh_l0"]
        gates = _sigmoid(from_input[:, : 2 * width] + from_state[:, : 2 * width])
        reset, update = gates[:, :width], gates[:, width:]
        fresh = np.tanh(from_input[:, 2 * width :] + reset * from_state[:, 2 * width :])
        moved: F32 = fresh + update * (h - fresh)
        return moved


def load_network(model: Model) -> EncoderNumpy:
    """The encoder with the weights of a safetensors file."""
    from safetensors.numpy import load_file

    return EncoderNumpy(load_file(str(model.safetensors)))
