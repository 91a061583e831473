"""Writes a trained renderer as safetensors and as ONNX, weights stored in f16."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lipstream.engine.networks.signatures import (
    CHANNELS,
    CROP_SHAPE,
    RENDERER_INPUT,
    RENDERER_OUTPUT,
)

if TYPE_CHECKING:
    from torch import Tensor

    from lipstream.engine.networks.renderer_torch import RendererNet


def activation_ranges(net: RendererNet, crops: Tensor) -> dict[str, tuple[float, float]]:
    """Range of the input of each convolution over crops f32 [B, 12, h, w]; see `networks.int8`.

    A hundred-thousandth at either end is cut off: it would cost the rest precision.
    """
    import numpy as np
    import torch
    from torch import nn

    found: dict[str, list[tuple[float, float]]] = {}
    hooks = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):

            def record(module: nn.Module, given: tuple[Tensor, ...], name: str = name) -> None:
                low, high = np.percentile(given[0].float().cpu().numpy(), (1e-3, 100 - 1e-3))
                found.setdefault(f"{name}.weight", []).append((float(low), float(high)))

            hooks.append(module.register_forward_pre_hook(record))
    with torch.inference_mode():
        for crop in crops:
            net(crop[None])
    for hook in hooks:
        hook.remove()
    return {
        name: (min(low for low, _ in spans), max(high for _, high in spans))
        for name, spans in found.items()
    }


def save_weights(weights: Mapping[str, Tensor], path: Path, notes: Mapping[str, str]) -> None:
    """Write the weights alone, in f16."""
    from safetensors.torch import save_file

    from lipstream.engine.networks.renderer_torch import ARCHITECTURE

    stored = {name: value.detach().cpu().half().contiguous() for name, value in weights.items()}
    save_file(stored, str(path), metadata={"architecture": ARCHITECTURE, **notes})
    path.chmod(0o644)


def save_renderer(
    weights: Mapping[str, Tensor], folder: Path, notes: Mapping[str, str], crops: Tensor
) -> None:
    """Write renderer.safetensors and renderer.onnx into `folder`; both hold the same numbers.

    crops: f32 [B, 12, h, w], inputs for the activation ranges that int8 needs.
    """
    from lipstream.engine.networks.renderer_torch import net_of

    net = net_of({name: value.detach().cpu().half().float() for name, value in weights.items()})
    ranges = json.dumps(activation_ranges(net, crops))
    save_weights(weights, folder / "renderer.safetensors", {"ranges": ranges, **notes})
    (folder / "renderer.onnx").write_bytes(renderer_onnx(net))


def renderer_onnx(net: RendererNet) -> bytes:
    """The model with a free batch axis and free sides; initialisers keep the weights' names."""
    import onnx
    import torch

    target = io.BytesIO()
    axes = {0: "batch", 2: "height", 3: "width"}
    torch.onnx.export(
        net.eval(),
        (torch.zeros(1, CHANNELS, *CROP_SHAPE),),
        target,
        input_names=[RENDERER_INPUT],
        output_names=[RENDERER_OUTPUT],
        dynamic_axes={RENDERER_INPUT: axes, RENDERER_OUTPUT: axes},
        opset_version=17,
        dynamo=False,
    )
    model = onnx.load_from_string(target.getvalue())
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
