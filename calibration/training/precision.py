"""Which numbers training computes in."""

from __future__ import annotations

from functools import cache


@cache
def computes_in_bf16(device: str) -> bool:
    """Whether bf16 is fast there. A CPU that only emulates it takes 15 times as long as in f32."""
    import torch

    if device != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
