"""Writes a trained renderer as safetensors and as ONNX, weights stored in f16."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lipstream.engine.renderer import CHANNELS, CROP_PX, INPUT, OUTPUT

if TYPE_CHECKING:
    from torch import Tensor

    from lipstream.engine.renderer_torch import RendererNet


def save_weights(weights: Mapping[str, Tensor], path: Path, notes: Mapping[str, str]) -> None:
    """The weights alone, in f16."""
    from safetensors.torch import save_file

    from lipstream.engine.renderer_torch import ARCHITECTURE

    stored = {name: value.detach().cpu().half().contiguous() for name, value in weights.items()}
    save_file(stored, str(path), metadata={"architecture": ARCHITECTURE, **notes})
    path.chmod(0o644)


def save_renderer(weights: Mapping[str, Tensor], folder: Path, notes: Mapping[str, str]) -> None:
    """Write renderer.safetensors and renderer.onnx into `folder`; both hold the same numbers."""
    from lipstream.engine.renderer_torch import net_of

    save_weights(weights, folder / "renderer.safetensors", notes)
    rounded = {name: value.detach().cpu().half().float() for name, value in weights.items()}
    (folder / "renderer.onnx").write_bytes(renderer_onnx(net_of(rounded)))


def renderer_onnx(net: RendererNet) -> bytes:
    """The network with a free batch axis and free sides; initialisers keep the weights' names."""
    import onnx
    import torch

    target = io.BytesIO()
    axes = {0: "batch", 2: "height", 3: "width"}
    torch.onnx.export(
        net.eval(),
        (torch.zeros(1, CHANNELS, CROP_PX, CROP_PX),),
        target,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: axes, OUTPUT: axes},
        opset_version=17,
        dynamo=False,
    )
    model = onnx.load_from_string(target.getvalue())
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
