"""Engine and Session: audio in, painted frames with their own audio out.

    audio ─► encoder ─► frame sampler ─► style ─► background ─► source selector ─► painting

Everything before the painting is a `Chain` of stages (`engine.stream`), and the delay of the engine
is the lag of that chain. An `Engine` cannot be changed and is shared; a `Session` holds the state
of one conversation. Frame i leaves when the audio up to its own time + delay has been received, and
carries the audio of exactly its own time.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np

from lipstream.engine.cores import usable_cores
from lipstream.engine.errors import FrameLost, UsageError
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import face_model
from lipstream.engine.frozen import Frozen
from lipstream.engine.networks.models import Models
from lipstream.engine.networks.signatures import CROP_RESOLUTIONS
from lipstream.engine.prefetch import Prefetcher
from lipstream.engine.profiling import span
from lipstream.engine.rendering.background import Background, JumpBlend, advance
from lipstream.engine.rendering.compositor import Compositor, WarpedFrame
from lipstream.engine.rendering.lip_layer import PHOTO_SEAM
from lipstream.engine.rendering.refiner import load_renderer
from lipstream.engine.rendering.source_crossfade import SourceCrossfade
from lipstream.engine.retrieval.background_matcher import MatcherState, matcher_of
from lipstream.engine.retrieval.sequential import SequentialBackground
from lipstream.engine.retrieval.source_selector import SelectedSource, SourceSelector, SourceState
from lipstream.engine.speech.encoder import Encoder, EncoderState
from lipstream.engine.speech.file_encoder import FileEncoderState, make_encoder
from lipstream.engine.speech.frame_sampler import FrameSampler, SamplerState, ease_to_rest
from lipstream.engine.speech.profiles import FILE, require_live
from lipstream.engine.speech.style import SpeakingStyle, opening_range, photo_articulation
from lipstream.engine.stream import Chain, Stage
from lipstream.engine.target.appearance import AppearancePrior
from lipstream.engine.target.bundle import Target, mouth_sources
from lipstream.engine.target.sources import SourceWeights
from lipstream.engine.timebase import frame_sample
from lipstream.engine.types import (
    F32,
    SAMPLE_RATE_HZ,
    U8,
    AudioChunk,
    Expression,
    MatchedFrame,
    VideoFrame,
)

log = logging.getLogger(__name__)

# Of the background matcher, or of the source selector where there is no matcher.
# That of a file is longer than paths differ; it bounds what a search of an hour holds.
MATCHER_LAG_MS: Final = {"low": 0, "live": 0, "studio": 200, "file": 20_000}
BACKGROUNDS: Final = ("matched", "sequential")
# Painted before they are handed on, where a caller takes frames one at a time: see `_ahead`.
_GROUP_FRAMES: Final = 12


class StageStates(NamedTuple):
    """The state of each stage of the chain, in its order."""

    encoder: EncoderState | FileEncoderState
    sampler: SamplerState
    style: F32 | None
    background: MatcherState | int
    sources: SourceState


class PaintState(NamedTuple):
    """What a frame takes from the frame before it."""

    blend: JumpBlend
    crossfade: SourceCrossfade
    previous_output: U8 | None  # the renderer's last crop, u8 [rows, columns, 3]
    shown: U8 | None  # the last frame, I420 u8 [h*3/2, w]


class SessionState(NamedTuple):
    """All that a session remembers, and the audio that has not left yet."""

    stages: StageStates
    selected: tuple[SelectedSource, ...]  # not painted yet
    paint: PaintState
    sound: F32  # f32 [samples], from `sound_start`
    sound_start: int


class PreparedFrame(NamedTuple):
    """A frame before the steps that depend on the one before it."""

    blend: JumpBlend
    crossfade: SourceCrossfade
    background: U8 | None  # u8 [h*3/2, w] I420; None: the last frame again
    warped: WarpedFrame | None  # None: the background unchanged


class Engine(Frozen):
    """A target made ready to speak. Any number of sessions share it.

    Raises:
        UsageError: unknown profile, background, backend, renderer or crop_resolution.
        BackendUnavailable: a backend that was asked for by name cannot run here.
    """

    def __init__(
        self,
        target: Target,
        profile: str = "live",
        backend: str = "auto",
        background: str = "matched",
        renderer: str = "auto",
        crop_resolution: int = CROP_RESOLUTIONS[0],
        models: Models | None = None,
    ) -> None:
        """Load the models and prepare the search over the target's footage.

        crop_resolution: of the renderer, one of CROP_RESOLUTIONS.
        models: which engines share; those of the process if None.
        """
        if background not in BACKGROUNDS:
            raise UsageError(f"background {background!r}: expected {' or '.join(BACKGROUNDS)}")
        self.encoder = make_encoder(profile, backend, models)
        self.target, self.profile, self.background = target, profile, background
        model, matched = face_model(), background == "matched"
        lag_frames = int(MATCHER_LAG_MS[profile] * target.fps / 1000)
        self._opening = model.lip_rows()[0]
        openings = opening_range(target.track, target.kind, self._opening)
        photo = target.kind == "photo"
        articulation = photo_articulation(target.track, self._opening) if photo else None
        self.style = SpeakingStyle(target.style, openings, model, articulation, target.fps)
        self.matcher = matcher_of(target, lag_frames, model.lip_motion()) if matched else None
        # In the footage's own order the lag is the source selector's; for a file both have it.
        sources, waits = mouth_sources(target), profile == FILE or not matched
        self.selector = SourceSelector(sources, lag_frames if waits else 0, target.fps)
        self.stages = _chain(
            self.encoder,
            FrameSampler(target.fps),
            self.style,
            self.matcher or SequentialBackground(len(target.track)),
            self.selector,
        )
        self.footage = Background(target.track, model, target.conduct is not None)
        self.renderer = load_renderer(renderer, backend, crop_resolution, target.sharpen, models)
        seam = PHOTO_SEAM if photo else 1.0
        mouth = target.style.mouth
        self.compositor = Compositor(build_mesh(model), mouth, self.renderer, seam=seam)

    @property
    def backend(self) -> str:
        """What runs the encoder, and the renderer where that is another: "native+openvino"."""
        names = [self.encoder.network.name]
        if self.renderer is not None:
            names.append(self.renderer.network.name)
        return "+".join(dict.fromkeys(names))

    @property
    def delay_samples(self) -> int:
        """Stated delay from audio in to frame out, before compute: the lag of the stages."""
        return self.stages.lag_samples

    @property
    def delay_ms(self) -> float:
        """The same in milliseconds."""
        return self.delay_samples * 1000 / SAMPLE_RATE_HZ

    @span("sources")
    def source_weights(self, crossfade: SourceCrossfade, wanted: F32) -> SourceWeights:
        """The sources to blend for an expression f32 [K]."""
        return crossfade.weights(self.target.sources, float(self._opening @ wanted))

    @span("sources")
    def prior(self, selected: SelectedSource) -> AppearancePrior | None:
        """The predicted texture of the mouth, for the renderer; None without either."""
        appearance = self.target.appearance
        if self.renderer is None or appearance is None or selected.prediction is None:
            return None
        opening = float(self._opening @ selected.matched.expression.coefficients)
        return appearance.picture(selected.prediction, opening)

    def session(self) -> Session:
        """A new conversation; sessions do not affect each other."""
        return Session(self)


class Session:
    """One conversation. Not for use from two threads at once.

    It holds its state (`SessionState`), the decoder of its footage, and a thread that paints ahead
    (`engine.prefetch`).
    """

    def __init__(self, engine: Engine) -> None:
        """Use `Engine.session`."""
        self.engine = engine
        self._decoder = engine.target.frames.decoder()
        self._prefetcher = Prefetcher()
        self._seat = None if engine.renderer is None else engine.renderer.seat()
        paint = PaintState(JumpBlend(), SourceCrossfade(), None, None)
        self._state = SessionState(
            engine.stages.init(), (), paint, np.zeros(0, np.float32), sound_start=0
        )

    @property
    def delay_ms(self) -> float:
        """Of the engine."""
        return self.engine.delay_ms

    @span("session")
    def push(self, chunk: AudioChunk | F32, paint: bool = True) -> list[VideoFrame]:
        """Receive f32 mono 16 kHz of any length; return the frames that it completes, in order.

        Without `paint` they repeat the last picture, at next to no cost: for a caller that is late.

        Raises:
            UsageError: not f32 mono, not finite, or a chunk that does not follow the last one.
        """
        state = self._received(chunk)
        frames, self._state = self._paint(state, len(state.selected), paint)
        return frames

    def flush(self) -> list[VideoFrame]:
        """End of the audio: the frames that the lag still holds. The session is then over."""
        state = self._ended()
        frames, self._state = self._paint(state, len(state.selected), True)
        return frames

    def frames(self, chunk: AudioChunk | F32 | None) -> Iterator[VideoFrame]:
        """What `push` returns for a chunk, or `flush` for None, painted while it is taken.

        With the profile `file` one chunk may complete 40 s of frames: a list would hold them all.
        Take all of them before the next call.
        """
        self._state = self._ended() if chunk is None else self._received(chunk)
        while self._state.selected:
            frames, self._state = self._paint(self._state, _GROUP_FRAMES, True)
            yield from frames

    def _received(self, chunk: AudioChunk | F32) -> SessionState:
        """The state with more sound, and what it selects still to be painted."""
        state = self._state
        if not isinstance(chunk, AudioChunk):
            samples = np.asarray(chunk)
            if samples.dtype != np.float32:
                raise UsageError(
                    f"got audio of type {samples.dtype}, expected float32 with full scale at 1.0"
                )
            chunk = AudioChunk(samples, state.sound_start + len(state.sound))
        with span("matcher"):
            selected, stages = self.engine.stages.step(state.stages, chunk)
        sound = np.concatenate([state.sound, chunk.samples])
        return state._replace(stages=stages, selected=(*state.selected, *selected), sound=sound)

    def _ended(self) -> SessionState:
        """The state with all that the stages still hold selected."""
        state = self._state
        received = state.sound_start + len(state.sound)
        sampler = replace(state.stages.sampler, end_sample=received)
        with span("matcher"):
            selected = self.engine.stages.flush(state.stages._replace(sampler=sampler))
        return state._replace(selected=(*state.selected, *selected))

    def interrupt(self) -> None:
        """Barge-in: what was received but not shown is dropped, and the mouth eases to rest.

        The clock goes on: audio dropped here leaves as silence, and the next chunk follows. The
        encoder keeps what it knows of the voice (`Encoder.restart`).

        Raises: UsageError with the profile `file`, which nobody listens to yet.
        """
        engine, state = self.engine, self._state
        require_live(engine.profile)
        stages, at_rest = state.stages, engine.style.at_rest
        assert isinstance(engine.encoder, Encoder) and isinstance(stages.encoder, EncoderState)
        received = state.sound_start + len(state.sound)
        # The restarted encoder puts out expressions from `received` on: until then the last shape
        # eases away.
        eased = ease_to_rest(stages.sampler.expressions, received)
        background = stages.background
        if engine.matcher is not None and isinstance(background, MatcherState):
            background = engine.matcher.changed(background, at_rest)
        selected, stages = engine.stages.feed(
            stages._replace(
                encoder=engine.encoder.restart(stages.encoder),
                sampler=replace(stages.sampler, expressions=()),
                background=background,
                sources=engine.selector.changed(stages.sources, at_rest),
            ),
            eased,
            StageStates._fields.index("sampler"),
        )
        silence = np.zeros(len(state.sound), np.float32)
        waiting = (*state.selected, *selected)
        self._state = state._replace(stages=stages, selected=waiting, sound=silence)

    def close(self) -> None:
        """End the painting thread, and leave the batches."""
        self._prefetcher.close()
        self._seat = None

    def _paint(
        self, state: SessionState, count: int, paint: bool
    ) -> tuple[list[VideoFrame], SessionState]:
        """The next `count` frames, or as many as are selected."""
        selected = state.selected[:count]
        if not selected:
            return [], state
        engine, fps = self.engine, self.engine.target.fps
        frames: list[VideoFrame] = []
        last, sound, start = state.paint, state.sound, state.sound_start
        with self._ahead(self._prepare(last, selected, paint), len(selected)) as prepared:
            for choice, one in zip(selected, prepared, strict=True):
                item, previous_output = choice.matched, None
                shown = last.shown if one.background is None else one.background
                if one.warped is not None:
                    try:
                        composed = engine.compositor.finish(
                            one.warped, last.previous_output, self._seat
                        )
                    except FrameLost as error:
                        log.warning("frame %d repeats the one before: %s", item.frame_index, error)
                        shown = shown if last.shown is None else last.shown
                    else:
                        shown, previous_output = composed.frame, composed.previous_output
                assert shown is not None, "the first frame is always painted"
                last = PaintState(one.blend, one.crossfade, previous_output, shown)
                own = sound[: frame_sample(item.frame_index + 1, fps) - start]
                audio = AudioChunk(own, start)
                sound, start = sound[len(own) :], start + len(own)
                speech = item.expression.speech
                frames.append(
                    VideoFrame(shown, item.frame_index, fps, audio, item.background, speech)
                )
        rest = state.selected[count:]
        return frames, state._replace(selected=rest, paint=last, sound=sound, sound_start=start)

    def _ahead(
        self, prepared: Iterator[PreparedFrame], count: int
    ) -> AbstractContextManager[Iterator[PreparedFrame]]:
        """`prepared`, made by another thread where that saves time.

        Preparing and finishing a frame take about equally long: of several frames, the next is
        prepared while one is finished.
        """
        if count > 1 and self.engine.renderer is not None and usable_cores() > 1:
            return self._prefetcher.ahead(prepared)
        return nullcontext(prepared)

    def _prepare(
        self, last: PaintState, selected: tuple[SelectedSource, ...], paint: bool
    ) -> Generator[PreparedFrame, None, None]:
        """Each frame as far as it does not depend on the pixels of the one before."""
        engine, track = self.engine, self.engine.target.track
        blend, crossfade, first = last.blend, last.crossfade, last.shown is None
        for choice in selected:
            item = choice.matched
            blend = advance(blend, item.background, len(track))
            crossfade = crossfade.to(choice.source)
            background = warped = None
            if paint or first:
                first = False
                background, placement = engine.footage.paint(blend, self._decoder)
                if track.paintable[item.background]:
                    wanted = item.expression.coefficients
                    warped = engine.compositor.warp(
                        background,
                        placement,
                        wanted,
                        engine.source_weights(crossfade, wanted),
                        engine.prior(choice),
                    )
            yield PreparedFrame(blend, crossfade, background, warped)


def _chain(
    encoder: Stage[Any, AudioChunk, Expression],
    sampler: Stage[SamplerState, Expression, Expression],
    style: Stage[F32 | None, Expression, Expression],
    background: Stage[Any, Expression, MatchedFrame],
    selector: Stage[SourceState, MatchedFrame, SelectedSource],
) -> Chain[StageStates, AudioChunk, SelectedSource]:
    """From audio to what each frame is painted of."""
    return Chain(StageStates, encoder, sampler, style, background, selector)
