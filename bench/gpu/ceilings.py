"""What the card can do at most: a copy, products of matrices, and copies from and to the host."""

from __future__ import annotations

from statistics import median
from typing import Any, Final

import numpy as np

from lipstream.bench.gpu.card import Card
from lipstream.bench.gpu.sizes import Sizes

_PINNED_SHARE: Final = 16  # of the largest copy


def copies(card: Card, sizes: Sizes) -> dict[str, float]:
    """copy_gb_s, bytes read and written; to_card_gb_s and from_card_gb_s, of pinned memory."""
    free, _ = card.driver.mem_get_info()
    whole = min(sizes.copy_bytes, free // 4)
    source, onto = (card.empty((whole,), np.uint8) for _ in range(2))
    card.fill(source, 0x3C)
    copy_ms = median(card.times_ms([lambda: card.copy(onto, source)] * 3, sizes.rounds))
    size = whole // _PINNED_SHARE
    pinned = card.driver.pagelocked_empty(size, np.uint8)
    pinned[:] = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    there_ms = median(
        card.times_ms(
            [lambda: card.driver.memcpy_htod_async(onto.address, pinned, card.stream)] * 3,
            sizes.rounds,
        )
    )
    back = card.driver.pagelocked_empty(size, np.uint8)
    back_ms = median(
        card.times_ms(
            [lambda: card.driver.memcpy_dtoh_async(back, onto.address, card.stream)] * 3,
            sizes.rounds,
        )
    )
    card.stream.synchronize()
    if not np.array_equal(pinned, back):
        raise RuntimeError("what was copied to the card and back is not what it was")
    card.free([source, onto])
    return {
        "copy_gb_s": 2 * whole / copy_ms / 1e6,
        "to_card_gb_s": size / there_ms / 1e6,
        "from_card_gb_s": size / back_ms / 1e6,
    }


def products(card: Card, sizes: Sizes) -> dict[str, float]:
    """tera_ops of products of square matrices of random numbers, in torch, by precision."""
    import torch

    from lipstream.bench.gpu.torch_card import PRECISIONS, TorchCard

    on = TorchCard(card)
    found = {}
    for name, kind in PRECISIONS.items():
        side = sizes.side if name != "f32" else max(sizes.side // 2, 1)
        with on.on_stream():
            left, right = (
                torch.randn(side, side, device=on.device, dtype=torch.float32).to(kind)
                for _ in range(2)
            )
            out = torch.empty_like(left)

        def run(a: Any = left, b: Any = right, c: Any = out) -> None:
            with on.on_stream():
                torch.mm(a, b, out=c)

        ms = median(card.times_ms([run] * 3, sizes.rounds))
        found[f"{name}_tera_ops"] = 2 * side**3 / ms / 1e9
    return found


def measure(card: Card, sizes: Sizes) -> dict[str, Any]:
    """Both; a copy that works counts even where torch does not."""
    found: dict[str, Any] = {"device": card.describe(), **copies(card, sizes)}
    try:
        found |= products(card, sizes)
    except Exception as error:  # recorded: the copy's rate is what the next phases need
        found["products_failed"] = f"{type(error).__name__}: {error}"
    return found
