"""PCM16 that comes in pieces of any length: what is cut in the middle is put together again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Pcm16:
    """Bytes to whole samples of all channels; the rest waits for the next piece."""

    def __init__(self, channels: int = 1) -> None:
        self._frame_bytes = 2 * channels
        self._rest = b""  # shorter than one sample of all channels

    def push(self, data: bytes | bytearray | memoryview) -> NDArray[np.int16]:
        """i16 [n * channels], interleaved, of little-endian bytes."""
        joined = self._rest + bytes(data)
        whole = len(joined) // self._frame_bytes * self._frame_bytes
        self._rest = joined[whole:]
        return np.frombuffer(joined, "<i2", whole // 2).astype(np.int16)
