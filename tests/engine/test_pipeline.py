"""The engine's invariants, on the demo target and the shipped encoder."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import face_model
from lipstream.engine.pipeline import Engine
from lipstream.engine.rendering.background import JumpBlend, advance
from lipstream.engine.rendering.compositor import Compositor
from lipstream.engine.target.bundle import Target, load_target
from lipstream.engine.timebase import frame_sample
from lipstream.engine.types import F32, SAMPLE_RATE_HZ, U8, Expression, Lips, VideoFrame
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
    """Without the renderer, whose memory no independent painting shares."""
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
    compositor = Compositor(build_mesh(face_model()), target.style.mouth)
    painting = compositor.paint(
        target.frames.decoder().read(background),
        target.track.placement(background),
        target.style.rest,
        [(target.sources[0], 1.0)],
    )
    return painting.frame


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
    for heard in range(step, len(sound) + 1, step):
        for frame in session.push(sound[heard - step : heard]):
            if frame.audio.samples.max(initial=0.0) == 1.0:
                offset = int(frame.audio.samples.argmax())
                assert frame.audio.start_sample + offset == click_at
                delay = heard - frame.audio.start_sample
                assert abs(delay - engine.delay_samples) <= step
                return
    pytest.fail("the click never left")


@pytest.mark.parametrize("profile", ["low", "studio"])
def test_a_frame_does_not_know_the_future(loaded: Target, profile: str) -> None:
    engine = Engine(loaded, profile)
    # Both sound where they part: in a pause the mouth rests, whatever follows.
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
    assert any(changed), "the test's own change must be seen"
    # And the look-ahead is used: what changes does so before the change is due.
    assert frame_sample(changed.index(True), Fraction(25)) <= change


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
    for frame in frames[::5]:
        assert np.array_equal(frame.i420, resting(warping, frame.background))


def test_lips_are_pressed_no_harder_than_they_were(warping: Engine) -> None:
    opener = face_model().opener()
    for opening in (-0.2, -0.01, 0.1):
        expression = Expression((np.float32(opening) * opener), Lips(0, 0, 0), True, 0)
        styled = warping.style.apply(expression).coefficients
        shown = float(warping._opening @ styled)
        wanted = opening * warping.target.style.gain
        assert shown == pytest.approx(max(wanted, -0.03), abs=1e-4)


def test_interrupt_silences_what_was_heard_and_keeps_the_clock(warping: Engine) -> None:
    session = warping.session()
    before = session.push(babble(1.0))
    session.interrupt()
    after = session.push(np.zeros(16_000, np.float32)) + session.flush()
    frames = before + after
    assert [f.frame_index for f in frames] == list(range(50))
    dropped = np.concatenate([f.audio.samples for f in after])
    assert not dropped.any()
    # 80 ms later nothing of the old turn is left on the lips: they are at rest, to the bit.
    for frame in after:
        if frame.frame_index >= 27:
            assert not frame.speech
            assert np.array_equal(frame.i420, resting(warping, frame.background))


def test_the_renderer_forgets_an_interrupted_turn(loaded: Target) -> None:
    """It sees its own last picture, so what was said could linger on the lips."""
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


def test_frames_of_odd_rates_leave_on_time(loaded: Target) -> None:
    from dataclasses import replace

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


def test_rate_of_speech_moves_the_mouth(engine: Engine) -> None:
    spoken = run(engine, babble(2.0), [])
    silent = run(engine, np.zeros(2 * SAMPLE_RATE_HZ, np.float32), [])
    different = [not np.array_equal(a.i420, b.i420) for a, b in zip(spoken, silent, strict=True)]
    assert sum(different) > 10
