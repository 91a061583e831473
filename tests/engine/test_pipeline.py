"""The engine's invariants, on the demo target and the shipped encoder."""

from __future__ import annotations

import gc
import threading
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from pathlib import Path
from weakref import ref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipstream.engine.cores import usable_cores
from lipstream.engine.errors import UsageError
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import face_model
from lipstream.engine.networks.models import Models
from lipstream.engine.pipeline import Engine
from lipstream.engine.rendering.background import MORPH_FRAMES, JumpBlend, advance
from lipstream.engine.rendering.compositor import Compositor
from lipstream.engine.rendering.lip_layer import PHOTO_SEAM
from lipstream.engine.retrieval.viterbi import viterbi
from lipstream.engine.speech.style import PHOTO_ARTICULATION
from lipstream.engine.target.bundle import Target, load_target
from lipstream.engine.timebase import frame_sample
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, U8, AudioChunk, Expression, Lips, VideoFrame
from tests.engine.voices import babble

PROFILES_MS = {"low": 40, "live": 120, "studio": 400}


@pytest.fixture(scope="module")
def loaded(target: Path) -> Target:
    return load_target(target)


@pytest.fixture(scope="module")
def engine(loaded: Target) -> Engine:
    return Engine(loaded)


@pytest.fixture(scope="module")
def warping(loaded: Target) -> Engine:
    """Without the renderer, whose state an independent painting does not have."""
    return Engine(loaded, renderer="none")


def run(engine: Engine, sound: F32, cuts: list[int]) -> list[VideoFrame]:
    session = engine.session()
    frames: list[VideoFrame] = []
    edges = [0, *sorted(min(c, len(sound)) for c in cuts), len(sound)]
    for a, b in zip(edges, edges[1:], strict=False):
        frames += session.push(sound[a:b])
    return frames + session.flush()


def assert_same(one: list[VideoFrame], other: list[VideoFrame]) -> None:
    assert [f.frame_index for f in one] == [f.frame_index for f in other]
    for a, b in zip(one, other, strict=True):
        assert a.background == b.background
        assert np.array_equal(a.i420, b.i420), a.frame_index
        assert np.array_equal(a.audio.samples, b.audio.samples)


def resting(engine: Engine, background: int) -> U8:
    """A footage frame with the mouth at rest, painted without the engine's stages."""
    target = engine.target
    compositor = Compositor(build_mesh(face_model()), target.style.mouth, seam=PHOTO_SEAM)
    painting = compositor.paint(
        target.frames.decoder().read(background),
        target.track.placement(background),
        engine.style.at_rest(Expression(target.style.rest, Lips(0, 0, 0), True, 0)).coefficients,
        [(target.sources[0], 1.0)],
    )
    return painting.frame


def settled(frames: list[VideoFrame]) -> list[VideoFrame]:
    """Those that no jump of the background is blended into."""
    jumps = [0] + [k for k in range(1, len(frames)) if not follows(frames[k - 1], frames[k])]
    last = np.maximum.accumulate([k if k in jumps else 0 for k in range(len(frames))])
    return [f for k, f in enumerate(frames) if not last[k] or k - last[k] > MORPH_FRAMES]


def follows(before: VideoFrame, frame: VideoFrame) -> bool:
    return frame.background == 0 or abs(frame.background - before.background) <= 1


@settings(max_examples=5, deadline=None)
@given(cuts=st.lists(st.integers(0, 16_000), max_size=12))
def test_any_partition_gives_the_same_frames(engine: Engine, cuts: list[int]) -> None:
    sound = babble(1.0)
    assert_same(run(engine, sound, cuts), run(engine, sound, [8_000]))


@pytest.mark.parametrize("background", ["matched", "sequential"])
def test_every_sample_leaves_once_and_in_its_own_frame(loaded: Target, background: str) -> None:
    sound = babble(1.3)
    frames = run(Engine(loaded, background=background), sound, list(range(0, 20_800, 320)))
    assert [f.frame_index for f in frames] == list(range(len(frames)))
    assert len(frames) == 33  # ceil(1.3 s * 25)
    for frame in frames:
        assert frame.audio.start_sample == frame_sample(frame.frame_index, frame.fps)
    assert np.array_equal(np.concatenate([f.audio.samples for f in frames]), sound)


@pytest.mark.parametrize("profile", PROFILES_MS)
def test_a_click_leaves_after_the_stated_delay(loaded: Target, profile: str) -> None:
    engine = Engine(loaded, profile)
    assert engine.delay_ms == PROFILES_MS[profile]
    click_at, step = 9_600, 160
    sound = np.zeros(24_000, np.float32)
    sound[click_at] = 1.0
    session = engine.session()
    for received in range(step, len(sound) + 1, step):
        for frame in session.push(sound[received - step : received]):
            if frame.audio.samples.max(initial=0.0) == 1.0:
                offset = int(frame.audio.samples.argmax())
                assert frame.audio.start_sample + offset == click_at
                delay = received - frame.audio.start_sample
                assert abs(delay - engine.delay_samples) <= step
                return
    pytest.fail("the click never left")


@pytest.mark.parametrize("profile", ["low", "studio"])
def test_a_frame_does_not_depend_on_later_audio(loaded: Target, profile: str) -> None:
    engine = Engine(loaded, profile)
    # Both contain speech where they part: in a pause the mouth rests, whatever follows.
    first, second = babble(2.0, 0), babble(2.0, 0)
    change = 19_200
    second[change:] = babble(2.0, 3)[change:]
    one, other = run(engine, first, []), run(engine, second, [])
    safe = [
        i for i in range(len(one)) if frame_sample(i, Fraction(25)) + engine.delay_samples <= change
    ]
    assert len(safe) >= 20
    assert_same(one[: len(safe)], other[: len(safe)])
    changed = [not np.array_equal(a.i420, b.i420) for a, b in zip(one, other, strict=True)]
    assert any(changed), "the change of audio must show"
    # And the look-ahead is used: what changes does so before the change is due.
    assert frame_sample(changed.index(True), Fraction(25)) <= change


@pytest.mark.parametrize("background", ["matched", "sequential"])
def test_a_file_keeps_its_sound_and_its_last_frame(loaded: Target, background: str) -> None:
    engine = Engine(loaded, "file", background=background, renderer="none")
    sound = babble(13.0)[:-100]
    session, halves = engine.session(), [sound[:100_000], sound[100_000:], None]
    frames = [frame for half in halves for frame in session.frames(half)]
    assert len(frames) == 325  # ceil(12.994 s * 25)
    for index, frame in enumerate(frames):
        assert frame.frame_index == index
        assert frame.audio.start_sample == frame_sample(index, frame.fps)
    assert np.array_equal(np.concatenate([f.audio.samples for f in frames]), sound)
    assert sum(frame.speech for frame in frames) > 150


def test_a_file_in_any_pieces_gives_the_same_frames(loaded: Target) -> None:
    """Also painted in groups."""
    engine, sound = Engine(loaded, "file", renderer="none"), babble(21.0)
    session = engine.session()
    frames = [f for piece in (sound, None) for f in session.frames(piece)]
    assert_same(frames, run(engine, sound, [3, 100_000, 100_001]))


def test_a_file_is_searched_over_all_of_it(loaded: Target) -> None:
    """The background of a clip shorter than the lag is the offline optimum."""
    engine, sound = Engine(loaded, "file", renderer="none"), babble(4.0)
    chain = engine.stages.step(engine.stages.init(), AudioChunk(sound, 0))[1]
    selected = engine.stages.flush(chain)
    assert engine.matcher is not None
    conduct = engine.matcher._conduct
    assert conduct is not None, "a photo's loop"
    rows, silent_frames, cues = [], 0, engine.matcher.init().cues
    for index, choice in enumerate(selected):
        wanted = choice.matched.expression
        silent_frames = 0 if wanted.speech else silent_frames + 1
        cost, cues = conduct.step(cues, wanted, index, index)
        row = engine.matcher.emission(wanted, silent_frames) + cost
        rows.append(np.concatenate([row, row]))
    path = viterbi(engine.matcher.transitions, rows) % len(loaded.track)
    assert [choice.matched.background for choice in selected] == path.tolist()


def test_nobody_interrupts_a_file(loaded: Target) -> None:
    session = Engine(loaded, "file", renderer="none").session()
    with pytest.raises(UsageError, match="profile file needs the whole sound"):
        session.interrupt()


def test_interleaved_sessions_do_not_affect_each_other(engine: Engine) -> None:
    sounds = [babble(1.0, 3), babble(1.0, 4)]
    sessions = [engine.session(), engine.session()]
    frames: list[list[VideoFrame]] = [[], []]
    for start in range(0, 16_000, 480):
        for k in (0, 1):
            frames[k] += sessions[k].push(sounds[k][start : start + 480])
    for k in (0, 1):
        frames[k] += sessions[k].flush()
        assert_same(frames[k], run(engine, sounds[k], [5_000]))


def test_silence_rests_and_stays_there(warping: Engine) -> None:
    frames = run(warping, np.zeros(32_000, np.float32), [])
    assert not any(f.speech for f in frames)
    seen = settled(frames)[::5]
    assert len(seen) >= 5
    for frame in seen:
        assert np.array_equal(frame.i420, resting(warping, frame.background))


def test_lips_are_pressed_no_harder_than_in_the_footage(warping: Engine) -> None:
    opener = face_model().opener()
    how = PHOTO_ARTICULATION
    for opening in (-0.2, -0.01, 0.1):
        expression = Expression((np.float32(opening) * opener), Lips(0, 0, 0), True, 0)
        styled = warping.style.apply(expression).coefficients
        shown = float(warping._opening @ styled)
        wanted = opening * how.opening_gain - how.closing - how.pressing * (opening < 0)
        assert shown == pytest.approx(max(wanted, -0.03), abs=1e-4)


def test_interrupt_silences_what_was_received_and_keeps_the_clock(warping: Engine) -> None:
    session = warping.session()
    before = session.push(babble(1.0))
    session.interrupt()
    after = session.push(np.zeros(16_000, np.float32)) + session.flush()
    frames = before + after
    assert [f.frame_index for f in frames] == list(range(50))
    dropped = np.concatenate([f.audio.samples for f in after])
    assert not dropped.any()
    # 80 ms later nothing of the old turn is left on the lips: they are at rest, to the bit.
    seen = [frame for frame in settled(frames) if frame.frame_index >= 27]
    assert len(seen) >= 5
    for frame in seen:
        assert not frame.speech
        assert np.array_equal(frame.i420, resting(warping, frame.background))


def test_an_interruption_keeps_the_level_and_channel_of_the_voice(warping: Engine) -> None:
    """Or the first words after each barge-in start from the prior, as in a new session."""
    first, second = babble(1.0) * np.float32(0.05), babble(1.0, 3) * np.float32(0.05)
    sessions = [warping.session() for _ in range(2)]
    interrupted, other = sessions
    for session in sessions:
        session.push(first)
    interrupted.interrupt()
    for start in range(0, len(second), 1_600):
        for session in sessions:
            session.push(second[start : start + 1_600])
        one, two = (s._state.stages.encoder.features for s in sessions)
        np.testing.assert_array_equal(one.normaliser.packed, two.normaliser.packed)
        np.testing.assert_array_equal(one.history, two.history)
    assert interrupted._state.stages.encoder.steps == other._state.stages.encoder.steps - 50


def test_an_interruption_twice_in_a_row_is_one(warping: Engine) -> None:
    once, twice = warping.session(), warping.session()
    for session in (once, twice):
        session.push(babble(1.0))
        session.interrupt()
    twice.interrupt()
    silence = np.zeros(16_000, np.float32)
    frames, others = (s.push(silence) + s.flush() for s in (once, twice))
    assert [f.frame_index for f in frames] == [f.frame_index for f in others]
    assert_same(frames[5:], others[5:])


def test_the_renderer_forgets_an_interrupted_turn(loaded: Target) -> None:
    """Its input contains its last output, so the old turn could remain on the lips."""
    engine = Engine(loaded, background="sequential")
    assert engine.renderer is not None
    session = engine.session()
    frames = session.push(babble(1.0))
    session.interrupt()
    frames += session.push(np.zeros(16_000, np.float32)) + session.flush()
    silent = run(engine, np.zeros(32_000, np.float32), [])
    apart = [np.abs(a.i420.astype(int) - b.i420) for a, b in zip(frames, silent, strict=True)]
    assert max(levels.max() for levels in apart[10:20]) > 10, "it spoke"
    assert max(levels.max() for levels in apart[30:]) <= 2


def test_an_engine_that_nobody_uses_is_freed(loaded: Target) -> None:
    """By its last reference: nothing in it refers back to it."""
    engine = Engine(loaded, models=Models())
    network, session = ref(engine.encoder.network), engine.session()
    session.push(babble(1.0))
    gone, gc_was_enabled = ref(engine), gc.isenabled()
    gc.disable()
    try:
        del engine, session
        assert gone() is None
        assert network() is None
    finally:
        if gc_was_enabled:
            gc.enable()


def test_engines_share_models(loaded: Target) -> None:
    models = Models()
    first, second = Engine(loaded, models=models), Engine(loaded, "studio", models=models)
    assert first.encoder.network is second.encoder.network
    assert first.renderer is not None and second.renderer is not None
    assert first.renderer.network is second.renderer.network
    assert Engine(loaded).encoder.network is Engine(loaded, "low").encoder.network


def test_an_engine_and_what_it_holds_cannot_be_changed(engine: Engine) -> None:
    parts = [
        engine, engine.encoder, engine.style, engine.matcher, engine.selector, engine.stages,
        engine.footage, engine.renderer, engine.compositor, engine.compositor._painter,
        engine.target, engine.target.track,
    ]  # fmt: skip
    for part in parts:
        names = getattr(type(part), "__slots__", None) or vars(part)
        for name in ("anything", *names):
            with pytest.raises((FrozenInstanceError, TypeError)):
                setattr(part, name, None)


def test_shared_tables_and_audio_in_states_are_read_only(warping: Engine) -> None:
    session, track = warping.session(), warping.target.track
    session.push(babble(1.0)[:15_999])
    encoder = session._state.stages.encoder
    arrays = [
        track.landmarks, track.expression, warping.target.jumps[0], face_model().basis,
        build_mesh(face_model()).lip_triangles, encoder.pending,
    ]  # fmt: skip
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_the_painting_thread_is_one_a_session_and_ends_with_it(loaded: Target) -> None:
    engine = Engine(loaded)
    if engine.renderer is None or usable_cores() < 2:
        pytest.skip("needs a renderer and two cores")
    session, started = engine.session(), set(threading.enumerate())
    for _ in range(3):
        session.push(babble(0.3))
    (thread,) = set(threading.enumerate()) - started
    session.close()
    assert not thread.is_alive()


def test_frames_of_odd_rates_leave_on_time(loaded: Target) -> None:
    film = replace(loaded, fps=Fraction(24_000, 1001))
    engine = Engine(film, "low")
    assert engine.delay_samples == 640 + 320  # look-ahead, and up to a step to interpolate
    frames = run(engine, babble(1.0), list(range(0, 16_000, 100)))
    assert len(frames) == 24
    assert np.array_equal(np.concatenate([f.audio.samples for f in frames]), babble(1.0))


def test_wrong_names_are_refused(loaded: Target) -> None:
    with pytest.raises(UsageError, match="profile 'fast'"):
        Engine(loaded, profile="fast")
    with pytest.raises(UsageError, match="background 'green'"):
        Engine(loaded, background="green")


def test_wrong_sound_is_refused(engine: Engine) -> None:
    with pytest.raises(UsageError, match="float32"):
        engine.session().push(np.zeros(320, np.int16))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="NaN"):
        engine.session().push(np.full(320, np.nan, np.float32))


def test_a_jump_morphs_and_then_is_over() -> None:
    blend = JumpBlend()
    shown = []
    for frame in [0, 1, 2, 40, 41, 42, 43, 44, 45, 46, 47]:
        blend = advance(blend, frame, 100)
        shown.append((blend.current, blend.old, blend.frames_left))
    assert shown[2] == (2, -1, 0)
    assert shown[3] == (40, 3, 6)
    assert shown[4] == (41, 4, 5)
    assert shown[-2:] == [(46, -1, 0), (47, -1, 0)]


def test_speech_moves_the_mouth(engine: Engine) -> None:
    spoken = run(engine, babble(2.0), [])
    silent = run(engine, np.zeros(2 * SAMPLE_RATE_HZ, np.float32), [])
    different = [not np.array_equal(a.i420, b.i420) for a, b in zip(spoken, silent, strict=True)]
    assert sum(different) > 10
