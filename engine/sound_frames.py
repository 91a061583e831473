"""Decoded sound as arrays: what every reader of it checks, and what PyAV gets wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from lipstream.engine.errors import MediaError
from lipstream.engine.types import F32

if TYPE_CHECKING:
    import av

# Recorders write 4 to 384 kHz. A header that states one sample a second, or 2 GHz, is damaged, and
# a resampler to our rates would then take all memory.
RATES_HZ: Final = (1_000, 768_000)
MOST_CHANNELS: Final = 64  # of libswresample
PACKED: Final = "flt"  # what `channels_of` takes


def require_format(frame: av.AudioFrame) -> None:
    """Refuse sound of an absurd rate, or of more channels than can be mixed. Raises: MediaError."""
    low, high = RATES_HZ
    if not low <= frame.sample_rate <= high:
        raise MediaError(
            f"its sound has {frame.sample_rate} samples a second; expected {low} to {high}"
        )
    if not 1 <= frame.layout.nb_channels <= MOST_CHANNELS:
        raise MediaError(
            f"its sound has {frame.layout.nb_channels} channels; expected 1 to {MOST_CHANNELS}"
        )


def packed(frame: av.AudioFrame) -> list[av.AudioFrame]:
    """A frame whose planes PyAV reads beyond as a packed one; any other as it is."""
    import av

    if not frame.format.is_planar or frame.layout.nb_channels < 8:
        return [frame]
    return av.AudioResampler(PACKED, frame.layout, frame.sample_rate).resample(frame)


def channels_of(frame: av.AudioFrame) -> F32:
    """f32 [channels, n] of a `PACKED` frame.

    Not by planes: PyAV 18 reads beyond them from the eighth channel on.
    """
    packed = np.asarray(frame.to_ndarray(), np.float32)
    return np.ascontiguousarray(packed.reshape(-1, frame.layout.nb_channels).T)
