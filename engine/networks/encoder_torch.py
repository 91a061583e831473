"""The encoder in torch: for training, and as the reference backend.

    features ─► dense ─► GRU ─► GRU ─► phone posteriors ─┐
                                 └──► narrow code ───────┴─► GRU ─► expression, per look-ahead

Only training and the torch backend import this module; the other backends run the same
arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from lipstream.engine.networks.base import Model
from lipstream.engine.networks.signatures import (
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    FEATURES,
    LOOK_AHEADS_MS,
)
from lipstream.engine.networks.torch import TorchNetwork

LOOK_AHEADS = len(LOOK_AHEADS_MS)


@dataclass(frozen=True, slots=True)
class EncoderSize:
    """Widths of the layers."""

    phones: int = 41
    hidden: int = 256
    code: int = 16
    head: int = 96
    coefficients: int = 20


class EncoderNet(nn.Module):
    """Phonetic encoder and expression head.

    Shapes: B clips, T steps of 20 ms; features f32 [B, T, FEATURES]; states f32 [B, width].
    """

    def __init__(self, size: EncoderSize) -> None:
        super().__init__()
        self.size = size
        self.dense = nn.Linear(FEATURES, size.hidden)
        self.gru1 = nn.GRU(size.hidden, size.hidden, batch_first=True)
        self.gru2 = nn.GRU(size.hidden, size.hidden, batch_first=True)
        self.phone = nn.Linear(size.hidden, LOOK_AHEADS * size.phones)
        self.code = nn.Linear(size.hidden, size.code)
        self.head_gru = nn.GRU(LOOK_AHEADS * size.phones + size.code, size.head, batch_first=True)
        self.head = nn.Linear(size.head, LOOK_AHEADS * size.coefficients)

    def recognise(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Phone logits f32 [B, T, LOOK_AHEADS, phones] and hidden state f32 [B, T, hidden]."""
        lifted = functional.relu(self.dense(features))
        first, _ = self.gru1(lifted)
        second, _ = self.gru2(functional.dropout(first, 0.1, self.training))
        logits = self.phone(functional.dropout(second, 0.1, self.training))
        shape = (*logits.shape[:2], LOOK_AHEADS, self.size.phones)
        return logits.reshape(shape), second

    def express(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """Expression f32 [B, T, LOOK_AHEADS, coefficients] from the phonetic state."""
        posterior = logits.softmax(-1).flatten(-2)
        code = torch.tanh(self.code(hidden))
        code = functional.dropout(code, 0.2, self.training)
        motion, _ = self.head_gru(torch.cat([posterior, code], -1))
        motion = functional.dropout(motion, 0.1, self.training)
        expression: Tensor = self.head(motion)
        return expression.reshape(*expression.shape[:2], LOOK_AHEADS, self.size.coefficients)

    def step(
        self, features: Tensor, h1: Tensor, h2: Tensor, h3: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One step: features f32 [B, FEATURES] and states to outputs and states.

        Returns expression f32 [B, LOOK_AHEADS, coefficients], speech f32 [B, LOOK_AHEADS]
        (probability that it is not silence), and the three states.
        """
        lifted = functional.relu(self.dense(features))
        first, n1 = self.gru1(lifted[:, None], h1[None])
        second, n2 = self.gru2(first, h2[None])
        logits = self.phone(second[:, 0]).reshape(-1, LOOK_AHEADS, self.size.phones)
        posterior = logits.softmax(-1)
        code = torch.tanh(self.code(second[:, 0]))
        motion, n3 = self.head_gru(torch.cat([posterior.flatten(1), code], -1)[:, None], h3[None])
        expression = self.head(motion[:, 0]).reshape(-1, LOOK_AHEADS, self.size.coefficients)
        return expression, 1.0 - posterior[..., 0], n1[0], n2[0], n3[0]


def load_net(path: Path) -> EncoderNet:
    """The module with the weights of a safetensors file, ready to evaluate."""
    return net_of(load_file(str(path)))


def net_of(weights: Mapping[str, Tensor]) -> EncoderNet:
    """The module with these weights, by the names of its parameters, ready to evaluate."""
    size = EncoderSize(
        phones=weights["phone.bias"].shape[0] // LOOK_AHEADS,
        hidden=weights["dense.bias"].shape[0],
        code=weights["code.bias"].shape[0],
        head=weights["head.weight"].shape[1],
        coefficients=weights["head.bias"].shape[0] // LOOK_AHEADS,
    )
    net = EncoderNet(size)
    own = net.state_dict()
    net.load_state_dict({name: weights[name].float() for name in own})
    return net.eval()


def load_network(model: Model) -> TorchNetwork:
    """The encoder with the weights of a model's safetensors file."""
    return TorchNetwork(load_net(model.safetensors).step, ENCODER_INPUTS, ENCODER_OUTPUTS)
