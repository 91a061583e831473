"""The precision that training computes in."""

from __future__ import annotations

from functools import cache


@cache
def computes_in_bf16(device: str) -> bool:
    """Whether the device computes bf16 natively; a CPU that emulates it takes 15 times as long."""
    import torch

    if device != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
