"""A step of the encoder's features as a kernel. Its twin, to rounding, is
`engine.speech.features`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.errors import UsageError
from lipstream.kernels.native import address

F32 = NDArray[np.float32]

_WINDOW, _FFT, _BANDS, _STEP, _HISTORY = 400, 512, 64, 320, 240  # as in features.cpp
_STATE, _NUMBERS = 4 + _BANDS, 13


class _Bank(ctypes.Structure):
    _fields_ = [  # noqa: RUF012 - ctypes' own way
        *((name, ctypes.c_void_p) for name in ("window", "turns", "first", "width", "weights")),
        ("numbers", ctypes.c_void_p),
        ("widest", ctypes.c_int32),
    ]


class FeatureStep:
    """Filters and constants; any number of threads may call it."""

    def __init__(self, window: F32, mel: F32, numbers: Sequence[float]) -> None:
        """window f32 [400]; mel f32 [257, 64]; numbers as `Normal` in features.cpp has them.

        Raises: UsageError for other sizes.
        """
        if (window.shape, mel.shape, len(numbers)) != (
            (_WINDOW,), (_FFT // 2 + 1, _BANDS), _NUMBERS,
        ):  # fmt: skip
            raise UsageError(
                f"window {window.shape}, mel {mel.shape} and {len(numbers)} numbers; expected "
                f"({_WINDOW},), ({_FFT // 2 + 1}, {_BANDS}) and {_NUMBERS}"
            )
        used = mel > 0
        first = used.argmax(0)
        width = used.sum(0)  # a filter is one triangle
        weights = np.zeros((_BANDS, width.max()), np.float32)
        for band in range(_BANDS):
            weights[band, : width[band]] = mel[first[band] : first[band] + width[band], band]
        angles = 2 * np.pi * np.arange(_FFT) / _FFT
        self._held = (
            np.ascontiguousarray(window, np.float32),
            np.stack([np.cos(angles), -np.sin(angles)]).astype(np.float32),
            first.astype(np.int32), width.astype(np.int32), weights,
            np.array(numbers, np.float32),
        )  # fmt: skip
        self._bank = _Bank(*map(address, self._held), weights.shape[1])
        self._at = ctypes.addressof(self._bank)

    def __call__(self, heard: F32, state: F32) -> tuple[F32, F32]:
        """heard f32 [560], 240 samples of before and 320 new ones; state f32 [68] of the
        normalisation. Returns features f32 [2, 64] and the next state."""
        for name, array, size in (("heard", heard, _HISTORY + _STEP), ("state", state, _STATE)):
            if array.shape != (size,) or array.dtype != np.float32 or not array.flags.c_contiguous:
                raise UsageError(
                    f"{name} is {array.dtype} {array.shape}; expected f32 [{size}], contiguous"
                )
        normal, after = np.empty((2, _BANDS), np.float32), np.empty(_STATE, np.float32)
        native.library().ls_features_step(
            self._at, address(heard), address(state), address(after), address(normal)
        )
        return normal, after
