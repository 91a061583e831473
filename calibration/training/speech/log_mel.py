"""Features of whole clips, as the encoder's stream sees them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipstream.engine.networks.signatures import FEATURES
from lipstream.engine.speech.features import Features, offline_log_mel
from lipstream.engine.types import F32, STEP_SAMPLES


def log_mel(audio: F32) -> F32:
    """Log energies of the whole steps of a clip f32 [n], f32 [frames, BANDS]."""
    return offline_log_mel(Features(), audio[: len(audio) // STEP_SAMPLES * STEP_SAMPLES])


def normalise(energies: NDArray[np.float16] | F32) -> F32:
    """The causal normalisation over many clips at once, f32 [clips, frames, BANDS]."""
    normaliser = Features().normaliser
    state = normaliser.init((len(energies),))
    normal = np.empty(energies.shape, np.float32)
    for frame in range(energies.shape[1]):
        normal[:, frame], state = normaliser.step(state, energies[:, frame].astype(np.float32))
    return normal


def features_of(audio: F32) -> F32:
    """Normalised features of a whole clip, f32 [steps, FEATURES]."""
    return normalise(log_mel(audio)[None])[0].reshape(-1, FEATURES)
