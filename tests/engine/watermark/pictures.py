"""Pictures that are as hard as real ones: structure of every size, and something that moves."""

from __future__ import annotations

import numpy as np

from lipstream.engine.types import U8


def scene(h: int, w: int, seed: int = 0) -> U8:
    """Luma of a still, u8 [h, w]: amplitudes fall as 1/f, as in photographs."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(h)[:, None] * h, np.fft.rfftfreq(w) * w)
    spectrum = random.normal(size=(2, *frequency.shape)) / np.maximum(frequency, 1) ** 1.2
    picture = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], (h, w))
    return np.clip(125 + 35 * picture / picture.std(), 16, 235).astype(np.uint8)


def clip(h: int, w: int, frames: int, seed: int = 0) -> list[U8]:
    """I420, u8 [h*3/2, w] each: half of the picture moves."""
    still, moving = scene(h, w, seed), scene(h, 2 * w, seed + 1)
    made = []
    for index in range(frames):
        frame = np.full((h * 3 // 2, w), 128, np.uint8)
        frame[:h] = still
        frame[h // 4 : h, : w // 2] = moving[h // 4 :, index : index + w // 2]
        made.append(frame)
    return made
