"""Several channels to one: the engine listens with one ear."""

from __future__ import annotations

from typing import Final

import numpy as np

from lipstream.engine.types import F32

# Channels cancel when their mean has less than a quarter of the energy that the loudest alone would
# give it: two of opposite sign do, down to a ratio of 1 to 2. One beside silent ones never does.
_CANCEL_BELOW: Final = 0.25
_AGREE_ABOVE: Final = 0.5
_LOUDER_BY: Final = 2.0  # in energy: what another channel needs to take over
_MEMORY_S: Final = 0.5
_FADE_S: Final = 0.01


class ChannelMixer:
    """Mixes a stream to mono: the mean of its channels, or the loudest one where they cancel.

    A microphone with two wires crossed and a "wide" stereo effect give channels of opposite sign:
    people hear them, and their mean is silence. Energies are those of the last half second; from
    one mix to another it fades over 10 ms. Source: ours.
    """

    def __init__(self, channels: int, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._energies = np.zeros(channels)  # f64 [channels], decaying
        self._mean_energy = 0.0
        self._chosen: int | None = None  # the channel in place of the mean
        self._begun = False

    def push(self, samples: F32) -> F32:
        """f32 [channels, n] to f32 [n]."""
        mean = samples.mean(axis=0, dtype=np.float32)
        count = mean.size
        if samples.shape[0] == 1 or not count:
            return mean
        before, begun, self._begun = self._chosen, self._begun, True
        self._choose(samples, mean)
        new = mean if self._chosen is None else samples[self._chosen]
        if self._chosen == before or not begun:
            return np.array(new, np.float32)
        old = mean if before is None else samples[before]
        fade = np.minimum(np.arange(1, count + 1) / (_FADE_S * self._rate_hz), 1.0)
        return old + (new - old) * fade.astype(np.float32)

    def _choose(self, samples: F32, mean: F32) -> None:
        channels, count = samples.shape
        kept = np.exp(-count / (_MEMORY_S * self._rate_hz))
        self._energies = kept * self._energies + np.square(samples, dtype=np.float64).sum(axis=1)
        energy = float(np.square(mean, dtype=np.float64).sum())
        self._mean_energy = kept * self._mean_energy + energy
        loudest = int(self._energies.argmax())
        alone = self._energies[loudest] / channels**2  # the mean's energy, were the others silent
        if self._mean_energy < _CANCEL_BELOW * alone:
            known = self._chosen
            if known is None or self._energies[loudest] > _LOUDER_BY * self._energies[known]:
                self._chosen = loudest
        elif self._mean_energy > _AGREE_ABOVE * alone:
            self._chosen = None
