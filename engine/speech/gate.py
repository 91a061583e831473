"""Stage: the speech gate, which opens the mouth for speech and closes it fully in silence.

It combines two detectors. webrtcvad decides whether the last moments contain a voice; the encoder
gives the probability of speech at the very moment that is shown. webrtcvad alone takes hum for
speech, and the encoder alone fails on noises it was not trained on; the gate opens when both agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.frozen import Frozen
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, STEP_SAMPLES

# webrtcvad keeps its state in C, where it can be neither copied nor compared. So each decision
# replays 320 ms through a new instance (0.04 ms), which makes it a pure function of the audio. It
# is made only when it counts: while one voiced step is in memory, the others do not matter.
_REPLAY_STEPS: Final = 16
_STEP_BYTES: Final = 2 * STEP_SAMPLES
_AGGRESSIVENESS: Final = 2
_OPEN_ABOVE: Final = 0.5  # probability of speech that opens the gate
_CLOSE_BELOW: Final = 0.25  # and below which it starts to close
# 400 ms: in a stop consonant and between words the mouth does as the encoder says.
_HOLD_STEPS: Final = 20
_VOICE_MEMORY_STEPS: Final = 5  # 100 ms: unvoiced ends of words still belong to speech
_RISE_STEPS: Final = 2
_FALL_STEPS: Final = 15  # with the 400 ms of hold, at rest 700 ms after speech ends


class GateInput(NamedTuple):
    """One step of audio, and the encoder's opinion of the output's time."""

    samples: F32  # f32 [STEP_SAMPLES]
    speech_probability: float


@dataclass(frozen=True, slots=True)
class GateState:
    """What the gate remembers."""

    recent: bytes  # i16 samples of the steps that a decision may still be made for
    voiced: tuple[bool | None, ...]  # webrtcvad's decisions, newest last; None: not made
    hold_steps: int  # steps left before the gate starts to close
    opening: int  # 0 closed .. _RISE_STEPS * _FALL_STEPS open, in integers so that 0 is reached

    @property
    def hears_speech(self) -> bool:
        """Whether the last step was speech; the gate stays open longer."""
        return self.hold_steps > _HOLD_STEPS


class Gate(Frozen):
    """How far the mouth may leave its rest pose, 0.0 to 1.0, for outputs `look_ahead_ms` late.

    Raises: BackendUnavailable where webrtcvad is not installed.
    """

    lag_samples: Final = 0
    _FULL: Final = _RISE_STEPS * _FALL_STEPS

    def __init__(self, look_ahead_ms: int) -> None:
        try:
            import webrtcvad
        except ImportError as error:
            raise BackendUnavailable(
                f"webrtcvad cannot be imported ({error}); pip install webrtcvad-wheels"
            ) from error
        self._new_vad = webrtcvad.Vad
        step_ms = STEP_SAMPLES * 1000 // SAMPLE_RATE_HZ
        self._memory = _VOICE_MEMORY_STEPS + look_ahead_ms // step_ms

    def init(self) -> GateState:
        """Closed."""
        return GateState(b"", (), 0, 0)

    def step(self, state: GateState, item: GateInput) -> tuple[list[float], GateState]:
        """Consume one step; one opening."""
        recent = (state.recent + _pcm16(item.samples))[
            -(_REPLAY_STEPS + self._memory - 1) * _STEP_BYTES :
        ]
        voiced = (*state.voiced, None)[-self._memory :]
        is_open = state.hold_steps > 0
        speaks = item.speech_probability > (_CLOSE_BELOW if is_open else _OPEN_ABOVE)
        if speaks and True not in voiced:
            voiced = self._decide(recent, voiced)
        if speaks and True in voiced:
            hold = _HOLD_STEPS + 1
            opening = min(self._FULL, state.opening + _FALL_STEPS)
        else:
            hold = max(0, state.hold_steps - 1)
            opening = max(0, state.opening - (0 if hold else _RISE_STEPS))
        return [opening / self._FULL], GateState(recent, voiced, hold, opening)

    def voiced_steps(self, samples: F32) -> int:
        """How many whole steps of f32 [n] webrtcvad by itself takes for voice."""
        vad, voiced = self._new_vad(_AGGRESSIVENESS), 0
        pcm = _pcm16(samples)
        for start in range(0, len(pcm) - _STEP_BYTES + 1, _STEP_BYTES):
            voiced += vad.is_speech(pcm[start : start + _STEP_BYTES], SAMPLE_RATE_HZ)
        return voiced

    def flush(self, state: GateState) -> list[float]:
        """Nothing: no opening is held back."""
        return []

    def _decide(self, recent: bytes, voiced: tuple[bool | None, ...]) -> tuple[bool | None, ...]:
        """`voiced` with the missing decisions made, from the newest back to the first True."""
        known = list(voiced)
        for back in range(len(known)):
            if known[-1 - back] is None:
                end = len(recent) - back * _STEP_BYTES
                vad, voice = self._new_vad(_AGGRESSIVENESS), False
                for start in range(max(0, end - _REPLAY_STEPS * _STEP_BYTES), end, _STEP_BYTES):
                    voice = vad.is_speech(recent[start : start + _STEP_BYTES], SAMPLE_RATE_HZ)
                known[-1 - back] = voice
                if voice:
                    break
        return tuple(known)


def _pcm16(samples: F32) -> bytes:
    clipped = np.clip(samples, -1.0, 1.0) * np.float32(32767.0)
    return clipped.astype(np.int16).tobytes()
