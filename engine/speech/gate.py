"""The speech gate: opens for speech before it is seen, rests exactly when there is none.

Two witnesses. webrtcvad hears whether the last moments hold a voice; the encoder's network says,
for the very moment that is being shown, whether it is anything but silence. webrtcvad alone takes
hum for speech and the network alone has never met every noise; the gate opens when both agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, STEP_SAMPLES

# webrtcvad keeps its state in C, where it can be neither copied nor compared. Each decision
# therefore replays 320 ms through a fresh one (0.04 ms), a pure function of the audio; and it is
# asked only when its answer counts: while one voiced step is remembered, no other matters.
_REPLAY_STEPS: Final = 16
_STEP_BYTES: Final = 2 * STEP_SAMPLES
_AGGRESSIVENESS: Final = 2
_OPEN_ABOVE: Final = 0.5  # probability of speech that opens the gate
_SHUT_BELOW: Final = 0.25  # and below which it starts to close
_HELD_STEPS: Final = 2  # 40 ms: a stop consonant's silence does not rest the mouth
_VOICE_MEMORY_STEPS: Final = 5  # 100 ms: unvoiced ends of words still belong to speech
_RISE_STEPS: Final = 2
_FALL_STEPS: Final = 5  # with the 40 ms held, at rest 140 ms after speech ends


@dataclass(frozen=True, slots=True)
class GateState:
    """What the gate remembers; immutable."""

    heard: bytes  # i16 samples of the steps that a decision may still be asked for
    voiced: tuple[bool | None, ...]  # webrtcvad's decisions, newest last; None: not asked
    held_steps: int  # steps left before the gate starts to close
    opening: int  # 0 shut .. _RISE_STEPS * _FALL_STEPS open, in integers so that 0 is reached


class Gate:
    """How far the mouth may leave its rest pose, 0 to 1, for outputs delayed by a look-ahead."""

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
        """Shut."""
        return GateState(b"", (), 0, 0)

    def step(
        self, state: GateState, samples: F32, speech_probability: float
    ) -> tuple[float, GateState]:
        """One step of audio f32 [STEP_SAMPLES] and the network's opinion of the output's time.

        Returns the opening, 0.0 to 1.0.
        """
        pcm = (np.clip(samples, -1.0, 1.0) * np.float32(32767.0)).astype(np.int16).tobytes()
        heard = (state.heard + pcm)[-(_REPLAY_STEPS + self._memory - 1) * _STEP_BYTES :]
        voiced = (*state.voiced, None)[-self._memory :]
        is_open = state.held_steps > 0
        speaks = speech_probability > (_SHUT_BELOW if is_open else _OPEN_ABOVE)
        if speaks and True not in voiced:
            voiced = self._asked(heard, voiced)
        if speaks and True in voiced:
            held = _HELD_STEPS + 1
            opening = min(self._FULL, state.opening + _FALL_STEPS)
        else:
            held = max(0, state.held_steps - 1)
            change = 0 if held else _RISE_STEPS
            opening = max(0, state.opening - change)
        return opening / self._FULL, GateState(heard, voiced, held, opening)

    def _asked(self, heard: bytes, voiced: tuple[bool | None, ...]) -> tuple[bool | None, ...]:
        """The decisions with those filled in that were not asked for, from the newest to a True."""
        known = list(voiced)
        for back in range(len(known)):
            if known[-1 - back] is None:
                end = len(heard) - back * _STEP_BYTES
                vad, voice = self._new_vad(_AGGRESSIVENESS), False
                for start in range(max(0, end - _REPLAY_STEPS * _STEP_BYTES), end, _STEP_BYTES):
                    voice = vad.is_speech(heard[start : start + _STEP_BYTES], SAMPLE_RATE_HZ)
                known[-1 - back] = voice
                if voice:
                    break
        return tuple(known)
