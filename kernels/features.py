"""A step of the encoder's features as a kernel: 20 ms of sound to two frames of log-mel energies.

Its twin is `engine.speech.features`; the two agree to 1e-4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lipstream.kernels import native
from lipstream.kernels.errors import UsageError

F32 = NDArray[np.float32]

_WINDOW, _FFT, _BANDS, _STEP, _HISTORY = 400, 512, 80, 320, 240  # as in features.cpp
_STATE, _NUMBERS = 4, 16


class FeatureStep:
    """Filters and constants; any number of threads may call it."""

    def __init__(self, window: F32, mel: F32, numbers: Sequence[float]) -> None:
        """window f32 [400]; mel f32 [257, 80]; numbers in the order of `LsNormalisation`.

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
        held = {
            "window": np.ascontiguousarray(window, np.float32),
            "twiddles": np.stack([np.cos(angles), -np.sin(angles)]).astype(np.float32),
            "first": first.astype(np.int32), "width": width.astype(np.int32), "weights": weights,
        }  # fmt: skip
        self._held = held  # what the bank points at
        self._bank = native.structure("LsFilterBank")(
            **{name: native.address(array) for name, array in held.items()},
            widest=weights.shape[1],
            normalisation=native.structure("LsNormalisation")(*numbers),
        )

    def __call__(self, samples: F32, state: F32) -> tuple[F32, F32]:
        """samples f32 [560], the last 240 and 320 new ones; state f32 [4] of the normalisation.

        Returns features f32 [2, 80] and the next state.
        """
        for name, array, size in (("samples", samples, _HISTORY + _STEP), ("state", state, _STATE)):
            if array.shape != (size,) or array.dtype != np.float32 or not array.flags.c_contiguous:
                raise UsageError(
                    f"{name} is {array.dtype} {array.shape}; expected f32 [{size}], contiguous"
                )
        features = native.empty((2, _BANDS), np.float32)
        next_state = native.empty(_STATE, np.float32)
        native.library().ls_features_step(self._bank, samples, state, next_state, features)
        return features, next_state
