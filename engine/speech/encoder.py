"""Stage: audio to expression, every 20 ms, with a stated look-ahead.

Step k consumes samples [320 k, 320 (k+1)) and emits the expression of sample 320 (k+1) - lag. It
takes audio of any length and cuts it into whole steps, so no cutting by the caller changes a bit of
the result. A stream begins in the state that a long silence leaves, and a quiet voice is heard
louder (`gain`). Reconstructed after *Everybody's Talkin'* (arXiv 2001.05201, §III-B), whose
recurrent audio-to-expression model takes speaker-normalised audio; ours normalises causally and
recognises phones first (docs/models.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from lipstream.engine.errors import AssetError, UsageError
from lipstream.engine.face.model import face_model
from lipstream.engine.frozen import Frozen
from lipstream.engine.networks import models as networks
from lipstream.engine.networks.encoder_state import next_states, silent_state
from lipstream.engine.networks.models import Models
from lipstream.engine.networks.registry import shipped
from lipstream.engine.networks.signatures import LOOK_AHEADS_MS
from lipstream.engine.profiling import span
from lipstream.engine.speech.features import Features, FeatureState
from lipstream.engine.speech.gain import (
    SURE_STEPS,
    VOICED_STEPS,
    GainState,
    gain_for,
    is_quiet,
    is_usual,
    loudness_db,
    settled,
)
from lipstream.engine.speech.gate import Gate, GateInput, GateState
from lipstream.engine.stream import Stage
from lipstream.engine.timebase import ms_to_samples
from lipstream.engine.types import F32, STEP_SAMPLES, AudioChunk, Expression, Lips

PROFILE_LOOK_AHEAD_MS: Final = {"low": 40, "live": 120, "studio": 200}


@dataclass(frozen=True, slots=True)
class EncoderState:
    """Everything the encoder remembers; its arrays are never written to again."""

    pending: F32  # f32 [< STEP_SAMPLES], received, but not yet a whole step
    next_sample: int  # the session's clock: first sample that has not been received
    steps: int  # steps done since the first sample
    origin: int  # the session's clock at the first sample
    features: FeatureState
    network: Mapping[str, F32]  # f32 [1, ...], by the names in `signatures.ENCODER_STATES`
    gate: GateState
    gain: GainState


class _Core(NamedTuple):
    """What changes with every step."""

    features: FeatureState
    network: Mapping[str, F32]
    gate: GateState
    gain: GainState


def check_chunk(item: AudioChunk, expected: int | None) -> None:
    """Refuse a chunk that is not f32 mono, not finite, or starts elsewhere than at sample
    `expected`, where that is known. Raises: UsageError."""
    samples = item.samples
    if samples.ndim != 1 or samples.dtype != np.float32:
        raise UsageError(
            f"got audio of shape {samples.shape} and type {samples.dtype}, expected one "
            "dimension of float32; mix to mono and convert first"
        )
    if not np.isfinite(samples).all():
        raise UsageError("got audio with NaN or infinite samples; repair the source")
    if expected is not None and item.start_sample != expected:
        raise UsageError(
            f"got a chunk that starts at sample {item.start_sample}, expected {expected}; chunks "
            "must follow each other"
        )


class Encoder(Frozen):
    """The streaming encoder: `AudioChunk` in, one `Expression` per 20 ms out.

    Outputs are delayed by `lag_samples`; `flush` emits what the lag still holds, so that every
    step of 20 ms that was begun has its expression. Sessions share one.

    Raises: UsageError for a look-ahead that was not trained; BackendUnavailable.
    """

    def __init__(
        self,
        look_ahead_ms: int = PROFILE_LOOK_AHEAD_MS["live"],
        backend: str = "auto",
        models: Models | None = None,
    ) -> None:
        """`models`: where the model is loaded from; those of the process if None."""
        if look_ahead_ms not in LOOK_AHEADS_MS:
            raise UsageError(
                f"got a look-ahead of {look_ahead_ms} ms, expected one of {LOOK_AHEADS_MS}"
            )
        model, face = shipped("encoder"), face_model()
        metadata = model.metadata()
        if int(metadata.get("coefficients", -1)) != face.size:
            raise AssetError(
                f"{model.safetensors.name} has {metadata.get('coefficients')} expression "
                f"coefficients and the face model {face.size}; rebuild with "
                "'lipstream train encoder'"
            )
        self.lag_samples = ms_to_samples(look_ahead_ms)
        self.network = (networks.SHARED if models is None else models).load(backend, model)
        self._head = LOOK_AHEADS_MS.index(look_ahead_ms)
        self._features: Stage[FeatureState, F32, F32] = Features()
        (silence,), _ = self._features.step(
            self._features.init(), np.zeros(STEP_SAMPLES, np.float32)
        )
        self._silent = silent_state(
            self.network, int(metadata["state_widths"]), silence.reshape(1, -1)
        )
        self._gate = Gate(look_ahead_ms)
        self._lip_rows = face.lip_rows()
        self._rest_width = face.rest_width()

    def init(self) -> EncoderState:
        """State before the first sample."""
        return EncoderState(
            pending=np.zeros(0, np.float32),
            next_sample=0,
            steps=0,
            origin=0,
            **self._silence(GainState())._asdict(),
        )

    def _silence(self, gain: GainState) -> _Core:
        """What a long silence leaves."""
        return _Core(self._features.init(), self._silent, self._gate.init(), gain)

    @span("encoder")
    def step(self, state: EncoderState, item: AudioChunk) -> tuple[list[Expression], EncoderState]:
        """Consume one chunk of any length.

        Raises: UsageError for a chunk that does not follow the last one, or is not f32 mono.
        """
        samples = item.samples
        fresh = state.steps == 0 and len(state.pending) == 0
        check_chunk(item, None if fresh else state.next_sample)
        origin = item.start_sample if fresh else state.origin
        received = np.concatenate([state.pending, samples])
        received.setflags(write=False)
        whole = len(received) // STEP_SAMPLES
        outputs: list[Expression] = []
        core = _Core(state.features, state.network, state.gate, state.gain)
        for index in range(whole):
            piece = received[index * STEP_SAMPLES : (index + 1) * STEP_SAMPLES]
            end = (state.steps + index + 1) * STEP_SAMPLES
            expression, core = self._advance(core, piece, origin + end - self.lag_samples)
            if end >= self.lag_samples:
                outputs.append(expression)
        return outputs, EncoderState(
            pending=received[whole * STEP_SAMPLES :],
            next_sample=item.start_sample + len(samples),
            steps=state.steps + whole,
            origin=origin,
            **core._asdict(),
        )

    def restart(self, state: EncoderState) -> EncoderState:
        """The state for a new turn of the same voice, which begins with the next sample.

        What is known of the voice is kept: its level, and the tokens that attention looks back on.
        All else is as after silence.
        """
        return replace(
            self.init(),
            next_sample=state.next_sample,
            features=state.features,
            gain=state.gain,
            network={**self._silent, "memory": state.network["memory"]},
        )

    def flush(self, state: EncoderState) -> list[Expression]:
        """Outputs for every moment up to the last sample; silence follows it."""
        received = state.next_sample - state.origin
        if received == 0:
            return []
        done = state.steps * STEP_SAMPLES
        # Times are 320 (k+1) - lag; the last one wanted is the greatest below `received`.
        last_end = -(-received // STEP_SAMPLES) * STEP_SAMPLES
        last_end += self.lag_samples - (STEP_SAMPLES if last_end >= received else 0)
        missing = max(0, last_end - done - len(state.pending))
        silence = AudioChunk(np.zeros(missing, np.float32), state.next_sample)
        outputs, _ = self.step(state, silence)
        return outputs

    def _advance(self, core: _Core, piece: F32, sample: int) -> tuple[Expression, _Core]:
        core = core if core.gain.settled else self._find_level(core, piece)
        if core.gain.gain != 1.0:
            piece = piece * np.float32(core.gain.gain)
        (frames,), features = self._features.step(core.features, piece)
        result = self.network.run({**core.network, "features": frames.reshape(1, -1)})
        # The output of the next shorter look-ahead is of a moment 40 to 80 ms later: lips part
        # before the first sound, and the gate has to be open by then.
        speech = float(result["speech"][0, max(0, self._head - 1) : self._head + 1].max())
        (opening,), gate = self._gate.step(core.gate, GateInput(piece, speech))
        coefficients = result["expression"][0, self._head] * np.float32(opening)
        gap, width, protrusion = (self._lip_rows @ coefficients).tolist()
        lips = Lips(max(0.0, gap), self._rest_width + width, protrusion)
        expression = Expression(coefficients, lips, opening > 0.0, sample, opening)
        return expression, _Core(features, next_states(result), gate, core.gain)

    def _find_level(self, core: _Core, piece: F32) -> _Core:
        """What to hear f32 [STEP_SAMPLES] with, while the level of the voice is not known.

        A sound that is a voice at a usual level was one all the time: what was heard of it is heard
        again at that level, so that features, memory and gate are as if it had never been quiet.
        """
        before, level = core.gain.recent, core.gain.heard(piece)
        loudness = loudness_db(level.recent)
        if is_usual(loudness):
            return core._replace(gain=settled(1.0) if core.gate.hears_speech else level)
        gain = gain_for(loudness)
        louder = before * np.float32(gain)
        if gain == 1.0 or not level.due or not is_quiet(level.recent):
            return core._replace(gain=level)
        if self._gate.voiced_steps(louder) < VOICED_STEPS:
            return core._replace(gain=level)
        heard, sure_steps = self._silence(settled(1.0)), 0
        for start in range(0, len(louder), STEP_SAMPLES):
            _, heard = self._advance(heard, louder[start : start + STEP_SAMPLES], 0)
            sure_steps += heard.gate.hears_speech
        if sure_steps < SURE_STEPS:
            return core._replace(gain=level)
        return heard._replace(gain=settled(gain))
