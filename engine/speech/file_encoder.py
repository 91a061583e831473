"""Stage: audio of a file to expression, every 20 ms, heard a segment at a time.

A file need not be answered while it is spoken: each segment of 10 to 20 s is computed at once, with
2.5 s of sound on either side of it, and the result does not lag behind the sound it belongs to. A
segment ends in the quietest 0.4 s of its second half, so that where it ends is heard least. What is
kept is one segment, however long the file. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from lipstream.engine.errors import UsageError
from lipstream.engine.face.model import face_model
from lipstream.engine.frozen import Frozen
from lipstream.engine.networks import models as networks
from lipstream.engine.networks.encoder_file import EncoderFile
from lipstream.engine.networks.models import Models
from lipstream.engine.networks.registry import shipped
from lipstream.engine.networks.signatures import FILE_DELAY_MS, LOOK_AHEADS_MS
from lipstream.engine.profiling import span
from lipstream.engine.speech.encoder import PROFILE_LOOK_AHEAD_MS, Encoder, check_chunk
from lipstream.engine.speech.features import Features
from lipstream.engine.speech.gain import SURE_STEPS, gain_for, is_usual, loudness_db
from lipstream.engine.speech.gate import Gate, GateInput, GateState
from lipstream.engine.speech.profiles import FILE, PROFILES
from lipstream.engine.timebase import ms_to_samples
from lipstream.engine.types import F32, STEP_SAMPLES, AudioChunk, Expression, Lips

_SHORTEST_STEPS: Final = 500  # 10 s
_LONGEST_STEPS: Final = 1000  # 20 s
_CONTEXT_STEPS: Final = 125  # 2.5 s on either side
_PAUSE_STEPS: Final = 20  # 0.4 s
_LOOK_AHEAD_MS: Final = LOOK_AHEADS_MS[-1]  # of the gate
_DELAY_STEPS: Final = ms_to_samples(FILE_DELAY_MS) // STEP_SAMPLES
_AHEAD_STEPS: Final = ms_to_samples(_LOOK_AHEAD_MS) // STEP_SAMPLES
# The gate has to be open when lips part, which is up to 80 ms before the first sound.
_PARTING_STEPS: Final = 4


class Express(Protocol):
    """What hears a whole segment: a pure function of its samples."""

    @property
    def network(self) -> EncoderFile:
        """The model behind it."""
        ...

    def __call__(self, samples: F32) -> tuple[F32, F32]:
        """Samples f32 [n] to expression f32 [steps, K] and probability of speech f32 [steps].

        Row k is of sample 320 k; as many rows as begin below n.
        """
        ...


class ShippedExpress(Frozen):
    """`Express` by the model that ships."""

    def __init__(self, models: Models | None = None) -> None:
        """`models`: where the model is loaded from; those of the process if None."""
        self.network = (networks.SHARED if models is None else models).load_file_encoder(
            shipped("encoder")
        )
        self._features = Features()

    @span("encoder")
    def __call__(self, samples: F32) -> tuple[F32, F32]:
        """See `Express`."""
        steps = -(-len(samples) // STEP_SAMPLES)
        # The step that ends at sample 320 (k + 1) puts out the expression of FILE_DELAY_MS before.
        heard = _padded(samples, (steps + _DELAY_STEPS - 1) * STEP_SAMPLES)
        expression, speech = self.network.run(self._heard(heard))
        return expression[_DELAY_STEPS - 1 :], speech[_DELAY_STEPS - 1 :]

    def _heard(self, samples: F32) -> F32:
        """Features of f32 [n STEP_SAMPLES], f32 [n, FEATURES].

        The segment is heard twice, so that its first sounds are taken at the level of the voice.
        """
        state = self._features.init()
        for piece in samples.reshape(-1, STEP_SAMPLES):
            _, state = self._features.step(state, piece)
        state = replace(self._features.init(), normaliser=state.normaliser)
        rows = []
        for piece in samples.reshape(-1, STEP_SAMPLES):
            (frames,), state = self._features.step(state, piece)
            rows.append(frames.reshape(-1))
        return np.stack(rows)


@dataclass(frozen=True, slots=True)
class FileEncoderState:
    """Everything the encoder remembers; its arrays are never written to again."""

    sound: F32  # f32 [n], up to the last sample received, from the context of the segment on
    origin: int  # the session's clock at the first sample
    next_sample: int  # on that clock: first sample that has not been received
    begin: int  # first sample of the segment, from `origin` on; a whole number of steps
    gate: GateState
    gain: float = 1.0  # of the last voice


class FileEncoder(Frozen):
    """The encoder of files: `AudioChunk` in, one `Expression` per 20 ms out.

    A segment is put out when the 22.5 s from its beginning are there, the rest by `flush`.
    `lag_samples` is that of the first output of a segment; the others lag less.

    Raises: BackendUnavailable.
    """

    lag_samples: Final = (_LONGEST_STEPS + _CONTEXT_STEPS) * STEP_SAMPLES

    def __init__(self, models: Models | None = None, express: Express | None = None) -> None:
        """`express`: what hears a segment; the shipped model if None."""
        self._express = ShippedExpress(models) if express is None else express
        self.network = self._express.network
        self._gate = Gate(_LOOK_AHEAD_MS)
        face = face_model()
        self._lip_rows, self._rest_width = face.lip_rows(), face.rest_width()

    def init(self) -> FileEncoderState:
        """State before the first sample."""
        return FileEncoderState(np.zeros(0, np.float32), 0, 0, 0, self._gate.init())

    def step(
        self, state: FileEncoderState, item: AudioChunk
    ) -> tuple[list[Expression], FileEncoderState]:
        """Consume one chunk of any length.

        Raises: UsageError for a chunk that does not follow the last one, or is not f32 mono.
        """
        samples = item.samples
        fresh = len(state.sound) == 0
        check_chunk(item, None if fresh else state.next_sample)
        sound = np.concatenate([state.sound, samples])
        sound.setflags(write=False)
        origin = item.start_sample if fresh else state.origin
        end = item.start_sample + len(samples)
        state = FileEncoderState(sound, origin, end, state.begin, state.gate, state.gain)
        outputs: list[Expression] = []
        while end - origin - state.begin >= self.lag_samples:
            segment, state = self._segment(state)
            outputs += segment
        return outputs, state

    def flush(self, state: FileEncoderState) -> list[Expression]:
        """Outputs for every moment up to the last sample; silence follows it."""
        outputs: list[Expression] = []
        while state.begin < state.next_sample - state.origin:
            segment, state = self._segment(state)
            outputs += segment
        return outputs

    def _segment(self, state: FileEncoderState) -> tuple[list[Expression], FileEncoderState]:
        """The expressions of the segment at `begin`, and the state at the next one."""
        sound = state.sound
        before = min(_CONTEXT_STEPS, state.begin // STEP_SAMPLES)
        own = sound[before * STEP_SAMPLES :]
        steps = segment_steps(own)
        after = steps + _CONTEXT_STEPS
        # A quiet voice is heard louder (`gain`). Where that makes no voice of it, the level is that
        # of the voice before.
        loudness = loudness_db(own[: steps * STEP_SAMPLES])
        levels = [1.0] if is_usual(loudness) else [gain_for(loudness), state.gain]
        voice_gain = state.gain
        for gain in dict.fromkeys(levels):
            louder = sound if gain == 1.0 else sound * np.float32(gain)
            expression, speech = self._express(louder[: (before + after) * STEP_SAMPLES])
            heard = louder[before * STEP_SAMPLES :]
            openings, gate = self._openings(state, heard, speech[before:], steps)
            if openings.count(1.0) >= SURE_STEPS:
                voice_gain = gain
                break
        coefficients = expression[before:][:steps] * np.array(openings, np.float32)[:, None]
        lips = (coefficients @ self._lip_rows.T).tolist()
        outputs: list[Expression] = []
        for k, (opening, (gap, width, protrusion)) in enumerate(zip(openings, lips, strict=True)):
            shape = Lips(max(0.0, gap), self._rest_width + width, protrusion)
            sample = state.origin + state.begin + k * STEP_SAMPLES
            outputs.append(Expression(coefficients[k], shape, opening > 0.0, sample, opening))
        begin = state.begin + steps * STEP_SAMPLES
        kept = sound[max(0, before + steps - _CONTEXT_STEPS) * STEP_SAMPLES :]
        return outputs, FileEncoderState(
            kept, state.origin, state.next_sample, begin, gate, voice_gain
        )

    def _openings(
        self, state: FileEncoderState, own: F32, speech: F32, steps: int
    ) -> tuple[list[float], GateState]:
        """The gate at each of `steps`; sound f32 [n] and speech f32 [...] begin with the segment.

        What the gate hears at a moment begins 180 ms after it, as in the streaming encoder; before
        the first moment of a file it hears the first 180 ms.
        """
        ahead, gate = _AHEAD_STEPS - 1, state.gate
        pieces = _padded(own, (steps + ahead) * STEP_SAMPLES).reshape(-1, STEP_SAMPLES)
        openings: list[float] = []
        for k in range(0 if state.begin else -ahead, steps):
            likely = float(speech[max(0, k) : k + _PARTING_STEPS + 1].max(initial=0.0))
            (opening,), gate = self._gate.step(gate, GateInput(pieces[k + ahead], likely))
            openings.append(opening)
        return openings[-steps:], gate


def make_encoder(
    profile: str, backend: str = "auto", models: Models | None = None
) -> Encoder | FileEncoder:
    """The encoder of a profile; that of files runs in NumPy, whatever the backend.

    `models`: where it is loaded from; those of the process if None.

    Raises: UsageError for an unknown profile; BackendUnavailable.
    """
    if profile == FILE:
        return FileEncoder(models)
    if profile not in PROFILE_LOOK_AHEAD_MS:
        raise UsageError(f"profile {profile!r}: expected one of {', '.join(PROFILES)}")
    return Encoder(PROFILE_LOOK_AHEAD_MS[profile], backend, models)


def segment_steps(sound: F32) -> int:
    """How many steps of f32 [n] make the next segment.

    All of up to 20 s; of more, as many as end in the middle of the quietest 0.4 s between 10 and
    20 s.
    """
    steps = -(-len(sound) // STEP_SAMPLES)
    if steps <= _LONGEST_STEPS:
        return steps
    half = sound[_SHORTEST_STEPS * STEP_SAMPLES : _LONGEST_STEPS * STEP_SAMPLES]
    energy = (half.reshape(-1, STEP_SAMPLES).astype(np.float64) ** 2).sum(axis=1)
    sums = np.concatenate([[0.0], np.cumsum(energy)])
    quietest = int((sums[_PAUSE_STEPS:] - sums[:-_PAUSE_STEPS]).argmin())
    return _SHORTEST_STEPS + quietest + _PAUSE_STEPS // 2


def _padded(samples: F32, size: int) -> F32:
    """The first `size` of the samples, with silence where there are fewer."""
    padded = np.zeros(size, np.float32)
    padded[: len(samples)] = samples[:size]
    return padded
