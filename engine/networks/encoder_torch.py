"""The encoder in torch: for training, and as the reference backend.

    two mel frames ─► convolutions ─► token ─► attention block ─► attention block
                                        └─ tap ──────┴─ tap ────────────┴─ tap ─► GRU ─► expression

The convolutions and the blocks begin as those of a speech recogniser
(`calibration.training.encoder.teacher`). Positions, which a stream does not have, are replaced by
one learned bias for each head and distance. A block looks 60 tokens back and 2 ahead in a stream,
and 60 both ways over a whole file.

Only training and the torch backend import this module; the other backends run the same arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from lipstream.engine.networks.base import Model
from lipstream.engine.networks.signatures import (
    BANDS,
    BLOCKS,
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    FRAMES_PER_STEP,
    HEADS,
    LOOK_AHEADS_MS,
    TOKEN_WIDTH,
    TOKENS_AFTER_IN_FILE,
    TOKENS_BEFORE,
    TOKENS_KEPT,
)
from lipstream.engine.networks.torch import TorchNetwork

LOOK_AHEADS = len(LOOK_AHEADS_MS)
_CONTEXT = 3  # frames and tokens that a convolution sees


@dataclass(frozen=True, slots=True)
class EncoderSize:
    """Widths of the layers above the attention blocks."""

    phones: int = 41
    taps: tuple[int, ...] = (48, 48, 128)
    head: int = 192
    file_head: int = 96  # in each direction
    coefficients: int = 20


class Block(nn.Module):
    """A transformer block with the norms ahead of the layers, as in Whisper."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.LayerNorm(TOKEN_WIDTH)
        self.query = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
        self.key = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH, bias=False)
        self.value = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
        self.out = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
        self.middle = nn.LayerNorm(TOKEN_WIDTH)
        self.up = nn.Linear(TOKEN_WIDTH, 4 * TOKEN_WIDTH)
        self.down = nn.Linear(4 * TOKEN_WIDTH, TOKEN_WIDTH)

    def forward(self, tokens: Tensor, bias: Tensor | None) -> Tensor:
        """Tokens f32 [B, T, width]; bias of the scores f32 [heads, T, T], -inf where hidden."""
        normal = self.before(tokens)
        attended = functional.scaled_dot_product_attention(
            _heads(self.query(normal)),
            _heads(self.key(normal)),
            _heads(self.value(normal)),
            attn_mask=None if bias is None else bias[None],
        )
        return self.mix(tokens, attended.transpose(1, 2).flatten(2))

    def mix(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """What follows attention, for both f32 [..., TOKEN_WIDTH]."""
        tokens = tokens + self.out(attended)
        lifted: Tensor = functional.gelu(self.up(self.middle(tokens)))
        mixed: Tensor = tokens + self.down(lifted)
        return mixed


def _heads(x: Tensor) -> Tensor:
    """f32 [B, T, TOKEN_WIDTH] to [B, heads, T, TOKEN_WIDTH / heads]."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


class Listener(nn.Module):
    """The part that knows speech: features to tokens, and what each block makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Linear(_CONTEXT * BANDS, TOKEN_WIDTH)
        self.conv2 = nn.Linear(_CONTEXT * TOKEN_WIDTH, TOKEN_WIDTH)
        self.base = nn.Parameter(torch.zeros(TOKEN_WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.offsets = nn.Parameter(
            torch.zeros(BLOCKS, HEADS, TOKENS_BEFORE + TOKENS_AFTER_IN_FILE + 1)
        )

    def tokens(self, features: Tensor) -> Tensor:
        """Features f32 [B, T, FEATURES] to tokens f32 [B, T, TOKEN_WIDTH].

        Token k sees frames 2k-3 to 2k+1; before the clip, frames are 0.
        """
        frames = features.unflatten(-1, (FRAMES_PER_STEP, BANDS)).flatten(1, 2)
        lifted = functional.gelu(self.conv1(_neighbours(frames)))
        tokens: Tensor = functional.gelu(self.conv2(_neighbours(lifted)[:, 1::2])) + self.base
        return tokens

    def forward(self, features: Tensor, ahead: int) -> list[Tensor]:
        """Tokens and the output of each block, f32 [B, T, TOKEN_WIDTH] each, of one moment."""
        layers = [self.tokens(features)]
        bias = self.bias(features.shape[1], ahead)
        for block, own in zip(self.blocks, bias, strict=True):
            layers.append(block(layers[-1], own))
        return layers

    def bias(self, steps: int, ahead: int) -> Tensor:
        """Of the attention scores, f32 [blocks, heads, steps, steps]."""
        step = torch.arange(steps)
        distance = step[None] - step[:, None]
        hidden = (distance > ahead) | (distance < -TOKENS_BEFORE)
        row = (distance + TOKENS_BEFORE).clamp(0, self.offsets.shape[-1] - 1)
        return self.offsets[..., row].masked_fill(hidden, -torch.inf)


def _neighbours(x: Tensor) -> Tensor:
    """Each of f32 [B, T, n] behind the two before it, f32 [B, T, 3 n]."""
    padded = functional.pad(x, (0, 0, _CONTEXT - 1, 0))
    return torch.cat([padded[:, i : i + x.shape[1]] for i in range(_CONTEXT)], -1)


class EncoderNet(nn.Module):
    """The listener, and the two heads that express what it hears: in a stream, and over a file.

    Shapes: B clips, T steps of 20 ms; features f32 [B, T, FEATURES].
    """

    def __init__(self, size: EncoderSize) -> None:
        super().__init__()
        self.size = size
        self.listener = Listener()
        self.taps = nn.ModuleList(nn.Linear(TOKEN_WIDTH, width) for width in size.taps)
        code = sum(size.taps)
        self.head_gru = nn.GRU(code, size.head, batch_first=True)
        self.phone = nn.Linear(size.head, LOOK_AHEADS * size.phones)
        self.head = nn.Linear(size.head, LOOK_AHEADS * size.coefficients)
        self.file_gru = nn.GRU(code, size.file_head, batch_first=True, bidirectional=True)
        self.file_phone = nn.Linear(2 * size.file_head, size.phones)
        self.file_head = nn.Linear(2 * size.file_head, size.coefficients)

    def code(self, layers: list[Tensor], delays: tuple[int, ...]) -> Tensor:
        """What the heads see of the listener's layers, each f32 [B, T, width]: f32 [B, T, code].

        Layer i comes `delays[i]` steps late, as in a stream.
        """
        parts = [
            functional.pad(tap(layer), (0, 0, delay, 0))[:, : layer.shape[1]]
            for tap, layer, delay in zip(self.taps, layers, delays, strict=True)
        ]
        return torch.cat(parts, -1)

    def express(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Phone logits f32 [B, T, LOOK_AHEADS, phones] and expression f32 [B, T, LOOK_AHEADS, K]
        of a stream."""
        hidden, _ = self.head_gru(functional.dropout(code, 0.3, self.training))
        hidden = functional.dropout(hidden, 0.3, self.training)
        shape = (LOOK_AHEADS, -1)
        return self.phone(hidden).unflatten(-1, shape), self.head(hidden).unflatten(-1, shape)

    def express_file(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """The same over a whole file, with one output a step for the time FILE_DELAY_MS before the
        step's end: f32 [B, T, 1, phones] and f32 [B, T, 1, K]."""
        hidden, _ = self.file_gru(functional.dropout(code, 0.3, self.training))
        hidden = functional.dropout(hidden, 0.3, self.training)
        return self.file_phone(hidden)[:, :, None], self.file_head(hidden)[:, :, None]

    def step(
        self,
        features: Tensor,
        frames: Tensor,
        lifted: Tensor,
        waiting: Tensor,
        memory: Tensor,
        hidden: Tensor,
    ) -> tuple[Tensor, ...]:
        """One step of a stream: features and states, shaped as `signatures.encoder_shapes` says
        behind a batch axis.

        Returns expression f32 [B, LOOK_AHEADS, K], speech f32 [B, LOOK_AHEADS] (probability that it
        is not silence), and the next states.
        """
        listener = self.listener
        seen = torch.cat([frames, features], 1)
        before, newest = (
            functional.gelu(listener.conv1(seen[:, first : first + _CONTEXT * BANDS]))
            for first in (0, BANDS)
        )
        token = functional.gelu(listener.conv2(torch.cat([lifted, before, newest], 1)))
        token = token + listener.base
        code, queues, kept = [self.taps[0](token)], [], []
        bias = listener.offsets[..., : TOKENS_KEPT + 1]
        for index, block in enumerate(listener.blocks):
            queue = torch.cat([waiting[:, index], token[:, None]], 1)
            normal = block.before(token)
            new = torch.stack([block.key(normal), block.value(normal)], 1)[:, :, None]
            known = torch.cat([memory[:, index], new], 2)
            own = queue[:, :1]
            attended = functional.scaled_dot_product_attention(
                _heads(block.query(block.before(own))),
                _heads(known[:, 0]),
                _heads(known[:, 1]),
                attn_mask=bias[index][None, :, None],
            )
            token = block.mix(own, attended.transpose(1, 2).flatten(2))[:, 0]
            code.append(self.taps[index + 1](token))
            queues.append(queue[:, 1:])
            kept.append(known[:, :, 1:])
        motion, hidden = self.head_gru(torch.cat(code, 1)[:, None], hidden[None])
        shape = (LOOK_AHEADS, -1)
        speech = 1.0 - self.phone(motion[:, 0]).unflatten(-1, shape).softmax(-1)[..., 0]
        expression = self.head(motion[:, 0]).unflatten(-1, shape)
        states = (features, newest, torch.stack(queues, 1), torch.stack(kept, 1), hidden[0])
        return expression, speech, *states


def load_net(path: Path) -> EncoderNet:
    """The module with the weights of a safetensors file, ready to evaluate."""
    stored = load_file(str(path))
    size = EncoderSize(
        phones=len(stored["file.phone.bias"]),
        taps=tuple(len(stored[f"tap{layer}.bias"]) for layer in range(BLOCKS + 1)),
        head=stored["head.weight"].shape[1],
        file_head=stored["file.head.weight"].shape[1] // 2,
        coefficients=len(stored["file.head.bias"]),
    )
    net = EncoderNet(size)
    plain = {}
    for name in net.state_dict():
        own = name.removeprefix("listener.").replace("taps.", "tap").replace("file_", "file.")
        weight = stored[own].float()
        if stored[own].dtype == torch.int8:
            weight = weight * stored[own.removesuffix("weight") + "scale"][:, None]
        plain[name] = weight
    net.load_state_dict(plain)
    return net.eval()


def load_network(model: Model) -> TorchNetwork:
    """The encoder with the weights of a model's safetensors file."""
    net = load_net(model.safetensors)
    return TorchNetwork(net, net.step, ENCODER_INPUTS, ENCODER_OUTPUTS)
