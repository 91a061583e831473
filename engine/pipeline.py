"""Engine and Session: voice in, painted frames with their own sound out.

    audio ─► encoder ─► expression at each frame's time ─► style ─► matcher ─► source ─► paint

`Engine` is immutable and shared; `Session` owns the only mutable variable, a tuple of stage
states. The delay of the whole is the sum of the stages' lags:

    delay = encoder look-ahead + interpolation (0, or 20 ms) + matcher lag (whole frames)

Frame i leaves when the sound up to its own time + delay has been heard, and carries the sound of
exactly its own time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, NamedTuple

import numpy as np

from lipstream.engine.cores import usable_cores
from lipstream.engine.errors import UsageError
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import LIP_MIDDLES_AND_CORNERS, face_model
from lipstream.engine.face.retarget import gap_height
from lipstream.engine.prefetch import prefetch
from lipstream.engine.profiling import span
from lipstream.engine.rendering.background import Background, JumpBlend, advance
from lipstream.engine.rendering.compositor import Compositor, WarpedFrame
from lipstream.engine.rendering.refiner import CROP_RESOLUTIONS, load_renderer
from lipstream.engine.retrieval.background_matcher import (
    Footage,
    FootageMatcher,
    FootageState,
    SelectedSource,
    SourceSelector,
    SourceState,
    sequential,
)
from lipstream.engine.speech.encoder import PROFILE_LOOK_AHEAD_MS, Encoder, EncoderState
from lipstream.engine.target.appearance import AppearancePrior
from lipstream.engine.target.bundle import Target, mouth_sources
from lipstream.engine.target.sources import MouthSource
from lipstream.engine.target.track import Track
from lipstream.engine.timebase import frame_sample, frames_covering
from lipstream.engine.types import (
    F32,
    SAMPLE_RATE_HZ,
    STEP_SAMPLES,
    U8,
    AudioChunk,
    Expression,
    MatchedFrame,
    VideoFrame,
)

logger = logging.getLogger(__name__)

MATCHER_LAG_MS: Final = {"low": 0, "live": 40, "studio": 200}
BACKGROUNDS: Final = ("matched", "sequential")
FADE_FRAMES: Final = 3  # over which one mouth source turns into the next
_PHOTO_REACH, _LEAST_REACH = 0.34, 0.15  # inter-ocular distances of opening
_MEETING = -0.03  # inter-ocular distances: lips meet from corner to corner
_NEARLY_ALL = 99.5  # percent of a person's openings
_FREE_REACH = 0.7  # share of the reach up to which an opening is taken as it is
_MISFIT = 0.03  # of opening, inter-ocular distances


@dataclass(frozen=True, slots=True)
class SourceCrossfade:
    """Which mouth source is shown, and the one that it replaces little by little."""

    shown: int = -1  # -1 before the first frame
    previous: int = -1
    frames_left: int = 0

    def to(self, source: int) -> SourceCrossfade:
        """One frame later, with `source` chosen."""
        if self.shown == -1:
            return SourceCrossfade(source)
        if source != self.shown:
            return SourceCrossfade(source, self.shown, FADE_FRAMES)
        left = max(self.frames_left - 1, 0)
        return SourceCrossfade(source, self.previous if left else -1, left)


class SessionState(NamedTuple):
    """The state of every stage, and the sound that has not left yet."""

    encoder: EncoderState
    expressions: tuple[Expression, ...]  # one a step, oldest first, still needed
    footage: FootageState | None  # None in sequential order
    sources: SourceState
    blend: JumpBlend
    crossfade: SourceCrossfade
    previous_output: U8 | None  # the renderer's last crop
    sound: F32  # f32 [samples], from `sound_start`
    sound_start: int
    next_frame: int  # to ask for


class PreparedFrame(NamedTuple):
    """A frame before what depends on the one before it."""

    blend: JumpBlend
    crossfade: SourceCrossfade
    backdrop: U8 | None  # u8 [h*3/2, w] I420; None: the last picture again
    drawing: WarpedFrame | None  # None: the backdrop as it is


class Engine:
    """A target made ready to speak. Immutable; any number of sessions share it.

    Raises:
        UsageError: unknown profile, background, renderer or detail.
        BackendUnavailable: a backend asked for by name is not here.
    """

    def __init__(
        self,
        target: Target,
        profile: str = "live",
        backend: str = "auto",
        background: str = "matched",
        renderer: str = "auto",
        crop_resolution: int = CROP_RESOLUTIONS[0],
    ) -> None:
        """Load the networks and lay out the search over the target's footage.

        detail: of the renderer's crop, one of `renderer.DETAILS`.
        """
        if profile not in PROFILE_LOOK_AHEAD_MS:
            raise UsageError(
                f"profile {profile!r}: expected one of {', '.join(PROFILE_LOOK_AHEAD_MS)}"
            )
        if background not in BACKGROUNDS:
            raise UsageError(f"background {background!r}: expected {' or '.join(BACKGROUNDS)}")
        self.target, self.profile, self.background = target, profile, background
        model = face_model()
        self._encoder = Encoder(PROFILE_LOOK_AHEAD_MS[profile], backend)
        lag_frames = int(MATCHER_LAG_MS[profile] * target.fps / 1000)
        track = target.track
        weights = (model.basis[:, LIP_MIDDLES_AND_CORNERS] ** 2).sum((1, 2)).astype(np.float32)
        self._matcher = None
        if background == "matched":
            self._matcher = FootageMatcher(
                Footage(track.expression, track.head_speed, ~track.usable, *target.jumps),
                lag_frames,
                target.fps,
                weights,
            )
        self.selector = SourceSelector(
            mouth_sources(target),
            # In the footage's own order the whole lag goes to choosing mouths.
            lag_frames if self._matcher is None else 0,
            target.fps,
        )
        self._backdrop = Background(track, model)
        self.renderer = load_renderer(renderer, backend, crop_resolution, target.sharpen)
        self.compositor = Compositor(build_mesh(model), target.style.mouth, self.renderer)
        self._opening = model.lip_rows()[0]
        self._open_wider = model.opener()
        self._pressed, self._opening_range = _opening_range(track, self._opening, target.kind)
        whole_steps = frame_step_exact(target.fps)
        self.delay_samples = (
            self._encoder.lag_samples
            + (0 if whole_steps else STEP_SAMPLES)
            + int(lag_frames * SAMPLE_RATE_HZ / target.fps)
        )

    @property
    def backend(self) -> str:
        """What runs the encoder, and the renderer where that is another: "native+openvino"."""
        names = [self._encoder.network.name]
        if self.renderer is not None:
            names.append(self.renderer.network.name)
        return "+".join(dict.fromkeys(names))

    @property
    def delay_ms(self) -> float:
        """Stated delay from sound in to picture out, before compute."""
        return self.delay_samples * 1000 / SAMPLE_RATE_HZ

    @span("sources")
    def source_weights(
        self, crossfade: SourceCrossfade, wanted: F32
    ) -> list[tuple[MouthSource, float]]:
        """The sources to lay over one another for an expression f32 [K], and how much of each.

        One that is left behind because the mouth has opened or closed must not fade: it would
        have to show what it has not got.
        """
        sources = self.target.sources
        shown = sources[crossfade.shown]
        if crossfade.frames_left == 0:
            return [(shown, 1.0)]
        behind = sources[crossfade.previous]
        opening = max(0.0, float(self._opening @ wanted))
        if abs(gap_height(behind.placement.canonical_vertices) - opening) > _MISFIT:
            return [(shown, 1.0)]
        old = crossfade.frames_left / (FADE_FRAMES + 1)
        return [(behind, old), (shown, 1 - old)]

    @span("sources")
    def prior(self, choice: SelectedSource) -> AppearancePrior | None:
        """What the mouth is expected to look like, for a renderer; None where it is not known."""
        appearance = self.target.appearance
        if self.renderer is None or appearance is None or choice.prediction is None:
            return None
        opening = float(self._opening @ choice.matched.expression.coefficients)
        return appearance.picture(choice.prediction, opening)

    def session(self) -> Session:
        """A new conversation; sessions do not affect each other."""
        return Session(self)


class Session:
    """One conversation. Not for use from two threads at once."""

    def __init__(self, engine: Engine) -> None:
        """Use `Engine.session`."""
        self.engine = engine
        self._decoder = engine.target.frames.decoder()
        self._shown: U8 | None = None  # the last picture, for a push that paints none
        matcher = engine._matcher
        self._state = SessionState(
            engine._encoder.init(), (), None if matcher is None else matcher.init(),
            engine.selector.init(), JumpBlend(), SourceCrossfade(), None,
            np.zeros(0, np.float32), 0, 0,
        )  # fmt: skip

    @property
    def delay_ms(self) -> float:
        """Of the engine."""
        return self.engine.delay_ms

    @span("session")
    def push(self, chunk: AudioChunk | F32, paint: bool = True) -> list[VideoFrame]:
        """Hear f32 mono 16 kHz of any length; return the frames that it completes, in order.

        Without `paint` they show the last picture again, at next to no cost: for who is behind.

        Raises:
            UsageError: not f32 mono, not finite, or a chunk that does not follow the last one.
        """
        state = self._state
        if not isinstance(chunk, AudioChunk):
            samples = np.asarray(chunk)
            if samples.dtype != np.float32:
                raise UsageError(
                    f"got audio of type {samples.dtype}, expected float32 with full scale at 1.0"
                )
            chunk = AudioChunk(samples, state.sound_start + len(state.sound))
        expressions, encoder = self.engine._encoder.step(state.encoder, chunk)
        state = state._replace(
            encoder=encoder,
            expressions=(*state.expressions, *expressions),
            sound=np.concatenate([state.sound, chunk.samples]),
        )
        selected, state = self._select(state, None)
        frames, self._state = self._paint(state, selected, paint)
        return frames

    def flush(self) -> list[VideoFrame]:
        """End of the sound: the frames that the lag still holds. The session is then over."""
        engine, state = self.engine, self._state
        heard = state.sound_start + len(state.sound)
        state = state._replace(
            expressions=(*state.expressions, *engine._encoder.flush(state.encoder))
        )
        selected, state = self._select(state, frames_covering(heard, engine.target.fps))
        matched: list[MatchedFrame] = []
        if engine._matcher is not None and state.footage is not None:
            matched = engine._matcher.flush(state.footage)
        sources = state.sources
        for item in matched:
            chosen, sources = engine.selector.step(sources, item)
            selected += chosen
        selected += engine.selector.flush(sources)
        frames, self._state = self._paint(state._replace(sources=sources), selected)
        return frames

    def interrupt(self) -> None:
        """Barge-in: what was heard but not shown is dropped, and the mouth eases to rest.

        The clock goes on: sound dropped here leaves as silence, and the next chunk follows.
        """
        engine, state = self.engine, self._state
        heard = state.sound_start + len(state.sound)
        encoder = replace(engine._encoder.init(), next_sample=heard)
        silence = np.zeros(len(state.sound), np.float32)
        # A fresh encoder speaks of times from `heard` on: until then the last shape eases away.
        easing = _easing(state.expressions, heard)
        footage = state.footage
        if footage is not None:
            footage = replace(footage, waiting=tuple(self._quiet(e) for e in footage.waiting))
        sources = engine.selector.changed(state.sources, self._quiet)
        self._state = state._replace(
            encoder=encoder, expressions=easing, sound=silence, footage=footage, sources=sources
        )

    def close(self) -> None:
        """It holds nothing but memory; sessions in other processes do (`streaming.workers`)."""

    @span("matcher")
    def _select(
        self, state: SessionState, end: int | None
    ) -> tuple[list[SelectedSource], SessionState]:
        """Match every frame whose expression is known (up to frame `end` when flushing)."""
        engine = self.engine
        selected: list[SelectedSource] = []
        footage, sources, index = state.footage, state.sources, state.next_frame
        expressions = state.expressions
        while end is None or index < end:
            wanted, expressions = _expression_at(expressions, index, engine.target.fps, end)
            if wanted is None:
                break
            styled = self.apply_speaking_style(wanted)
            if engine._matcher is None or footage is None:
                order = sequential(index, len(engine.target.track))
                matched = [MatchedFrame(index, order, styled)]
            else:
                matched, footage = engine._matcher.step(footage, styled)
            for item in matched:
                chosen, sources = engine.selector.step(sources, item)
                selected += chosen
            index += 1
        if index == state.next_frame and expressions is state.expressions:
            return selected, state
        return selected, state._replace(
            expressions=expressions, footage=footage, sources=sources, next_frame=index
        )

    def apply_speaking_style(self, heard: Expression) -> Expression:
        """The universal expression as this target wears it, within the reach of its mouth.

        A wider opening than was ever seen has no footage to show it; it is bent towards the
        widest that was. Nor are lips pressed harder than they were: they would fold.
        """
        engine = self.engine
        style = engine.target.style
        worn = style.rest + np.float32(style.gain) * heard.coefficients
        worn = worn + np.float32(heard.activity) * style.speaking
        opening, canonical_vertices = (
            float(engine._opening @ worn),
            _FREE_REACH * engine._opening_range,
        )
        bent = max(opening, engine._pressed)
        if opening > canonical_vertices:
            left = engine._opening_range - canonical_vertices
            bent = canonical_vertices + left * math.tanh((opening - canonical_vertices) / left)
        worn = worn + np.float32(bent - opening) * engine._open_wider
        return replace(heard, coefficients=worn.astype(np.float32))

    def _quiet(self, expression: Expression) -> Expression:
        """A styled expression at rest."""
        rest = self.engine.target.style.rest
        return replace(expression, coefficients=rest, speech=False, activity=0.0)

    def _paint(
        self, state: SessionState, selected: list[SelectedSource], paint: bool = True
    ) -> tuple[list[VideoFrame], SessionState]:
        if not selected:
            return [], state
        engine = self.engine
        fps = engine.target.fps
        frames: list[VideoFrame] = []
        sound, start = state.sound, state.sound_start
        prepared = self._prepare(state, selected, paint)
        # Drawing and mending take about as long: of several frames, the next is drawn meanwhile.
        if len(selected) > 1 and engine.renderer is not None and usable_cores() > 1:
            prepared = prefetch(prepared)
        for choice, one in zip(selected, prepared, strict=True):
            item, previous_output = choice.matched, None
            if one.backdrop is not None:
                self._shown = one.backdrop
            if one.drawing is not None:
                painting = engine.compositor.finish(one.drawing, state.previous_output)
                self._shown, previous_output = painting.frame, painting.previous_output
            state = state._replace(
                blend=one.blend, crossfade=one.crossfade, previous_output=previous_output
            )
            until = frame_sample(item.frame_index + 1, fps)
            own = sound[: until - start]
            chunk = AudioChunk(own, start)
            sound, start = sound[len(own) :], start + len(own)
            assert self._shown is not None, "the first is always drawn"
            frames.append(
                VideoFrame(
                    self._shown,
                    item.frame_index,
                    fps,
                    chunk,
                    item.background,
                    item.expression.speech,
                )  # fmt: skip
            )
        return frames, state._replace(sound=sound, sound_start=start)

    def _prepare(
        self, state: SessionState, selected: list[SelectedSource], paint: bool
    ) -> Generator[PreparedFrame, None, None]:
        """Each frame drawn as far as it does not depend on the one before."""
        engine, track = self.engine, self.engine.target.track
        blend, crossfade, first = state.blend, state.crossfade, self._shown is None
        for choice in selected:
            item = choice.matched
            blend = advance(blend, item.background, len(track))
            crossfade = crossfade.to(choice.source)
            backdrop = drawing = None
            if paint or first:
                first = False
                backdrop, placement = engine._backdrop.paint(blend, self._decoder)
                if track.paintable[item.background]:
                    wanted = item.expression.coefficients
                    drawing = engine.compositor.draw(
                        backdrop,
                        placement,
                        wanted,
                        engine.source_weights(crossfade, wanted),
                        engine.prior(choice),
                    )
            yield PreparedFrame(blend, crossfade, backdrop, drawing)


def _opening_range(track: Track, opening: F32, kind: str) -> tuple[float, float]:
    """The openings of this mouth, least (lips pressed) and widest, inter-ocular distances."""
    if kind == "photo":
        return _MEETING, _PHOTO_REACH
    seen = track.expression[track.usable] @ opening
    pressed, widest = np.percentile(seen, [100 - _NEARLY_ALL, _NEARLY_ALL]).tolist()
    return min(pressed, _MEETING), max(widest, _LEAST_REACH)


def frame_step_exact(fps: Fraction) -> bool:
    """Whether every frame time is a whole number of encoder steps."""
    return (SAMPLE_RATE_HZ * fps.denominator) % (fps.numerator * STEP_SAMPLES) == 0


def _expression_at(
    expressions: tuple[Expression, ...], index: int, fps: Fraction, end: int | None
) -> tuple[Expression | None, tuple[Expression, ...]]:
    """Expression at frame `index`, None if it is not known yet; and those still needed."""
    time, unit = index * SAMPLE_RATE_HZ * fps.denominator, fps.numerator  # samples, exact
    steps, rest = divmod(time, unit * STEP_SAMPLES)
    before, share = steps * STEP_SAMPLES, np.float32(rest / (unit * STEP_SAMPLES))
    if not expressions or expressions[-1].sample < before:
        return None, expressions[-1:]  # the last one stays: an interruption eases from it
    keep = next(k for k, e in enumerate(expressions) if e.sample >= before)
    expressions = expressions[keep:]
    if share == 0:
        return expressions[0], expressions
    if len(expressions) < 2:
        if end is None:
            return None, expressions
        return expressions[0], expressions  # nothing follows: the end of the sound
    first, second = expressions[:2]
    mixed = first.coefficients + share * (second.coefficients - first.coefficients)
    nearer = first if share < 0.5 else second
    activity = first.activity + float(share) * (second.activity - first.activity)
    mixed = mixed.astype(np.float32)
    return replace(nearer, coefficients=mixed, activity=activity), expressions


def _easing(expressions: tuple[Expression, ...], until: int) -> tuple[Expression, ...]:
    """From the oldest expression still needed to rest, one a step, up to sample `until`."""
    if not expressions:
        return ()
    first = expressions[0]
    steps = max(1, (until - first.sample) // STEP_SAMPLES)
    eased = []
    for k in range(steps):
        share = np.float32(max(0.0, 1 - k / 4))
        eased.append(
            replace(
                first,
                coefficients=first.coefficients * share,
                speech=False,
                sample=first.sample + k * STEP_SAMPLES,
                activity=first.activity * float(share),
            )  # fmt: skip
        )
    return tuple(eased)
