"""The painter in one go paints what its steps paint, byte for byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.engine.face.mesh import build_mesh
from lipstream.engine.face.model import face_model
from lipstream.engine.face.retarget import Placement
from lipstream.engine.profiling import Recorder, recording
from lipstream.engine.rendering.compositor import Compositor, Layers
from lipstream.engine.target.appearance import TEXTURE_SHAPE, AppearancePrior
from lipstream.engine.target.bundle import Target, load_target
from lipstream.engine.types import F32
from lipstream.kernels.dispatch import use_native
from lipstream.kernels.face_painter import FacePainter

MODEL = face_model()
MESH = build_mesh(MODEL)
pytestmark = pytest.mark.skipif(not use_native(), reason="needs the compiled kernels")


@pytest.fixture(scope="module")
def loaded(target: Path) -> Target:
    return load_target(target)


@pytest.fixture(scope="module")
def both(loaded: Target) -> tuple[Compositor, Compositor]:
    """In one go, and step by step."""
    fused = Compositor(MESH, loaded.style.mouth)
    steps = Compositor(MESH, loaded.style.mouth)
    assert fused._painter is not None
    steps._painter = None
    return fused, steps


def expression_of(rng: np.random.Generator, lively: float) -> F32:
    return (rng.uniform(-lively, lively, MODEL.size) * MODEL.spread).astype(np.float32)


def moved(place: Placement, x: float, y: float, zoom: float) -> Placement:
    shift = np.array([x, y, 0], np.float32)
    return replace(place, scale=place.scale * zoom, translation=place.translation + shift)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6), lively=st.sampled_from([0.0, 1.0, 3.0]), guided=st.booleans(),
    fading=st.booleans(), told=st.booleans(), x=st.sampled_from([0.0, -70.0, 55.0, 400.0]),
    zoom=st.sampled_from([1.0, 0.6, 2.5]),
)  # fmt: skip
def test_equal_to_the_steps(
    loaded: Target,
    both: tuple[Compositor, Compositor],
    seed: int,
    lively: float,
    guided: bool,
    fading: bool,
    told: bool,
    x: float,
    zoom: float,
) -> None:
    rng = np.random.default_rng(seed)
    background = loaded.frames.decoder().read(int(rng.integers(len(loaded.track))))
    place = moved(loaded.track.placement(0), x, x / 2, zoom)
    wanted = expression_of(rng, lively)
    first, second = (loaded.sources[i] for i in rng.integers(len(loaded.sources), size=2))
    sources = [(first, 0.3), (second, 0.7)] if fading else [(first, 1.0)]
    texture = rng.integers(0, 256, (*TEXTURE_SHAPE, 3), dtype=np.uint8)
    awaited = AppearancePrior(texture, 0.7) if told else None
    got, expected = (
        one.layers(background, place, wanted, sources, awaited, guided=guided) for one in both
    )
    if expected is None:
        assert got is None
        return
    assert isinstance(got, Layers)
    assert got.box == expected.box
    assert got.crop == expected.crop
    np.testing.assert_array_equal(got.mask, expected.mask)
    # Drawn teeth go through an exponential, which two libraries round in two ways.
    assert np.abs(got.painted.astype(int) - expected.painted).max() <= 1
    assert (got.painted != expected.painted).mean() < 1e-4
    if guided:
        assert got.guides is not None
        np.testing.assert_array_equal(got.guides, expected.guides)
    assert got.confidence == expected.confidence
    assert (got.prior is None) == (expected.prior is None) == (not (guided and told))
    if got.prior is not None and expected.prior is not None:
        assert np.abs(got.prior.astype(int) - expected.prior).max() <= 1
        assert (got.prior != expected.prior).mean() < 1e-4


def test_a_drawn_mouth_is_among_the_examples(
    loaded: Target, both: tuple[Compositor, Compositor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above compares holds teeth that no source has."""
    shut = min(
        loaded.sources,
        key=lambda source: float(np.ptp(source.placement.canonical_vertices[[13, 14], 1])),
    )
    row = MODEL.lip_rows()[0]
    wide = (row * MODEL.spread**2 * (0.35 / float(row @ (row * MODEL.spread**2)))).astype(
        np.float32
    )
    background, place = loaded.frames.decoder().read(0), loaded.track.placement(0)
    fused, steps = both
    drawn: list[int] = []
    inner, paint = steps._inner, steps._inner._draw
    monkeypatch.setattr(inner, "_draw", lambda *args: (drawn.append(1), paint(*args)))
    got, expected = (
        one.layers(background, place, wide, [(shut, 1.0)], guided=False) for one in (fused, steps)
    )
    assert drawn
    assert got is not None
    assert expected is not None
    assert np.abs(got.painted.astype(int) - expected.painted).max() <= 1


def test_a_face_that_is_nowhere_is_refused(
    loaded: Target, both: tuple[Compositor, Compositor]
) -> None:
    fused, _ = both
    background, place = loaded.frames.decoder().read(0), loaded.track.placement(0)
    rest, source = np.zeros(MODEL.size, np.float32), loaded.sources[0]
    lost = replace(place, translation=np.full(3, np.nan, np.float32))
    with pytest.raises(UsageError, match="NaN"):
        fused.layers(background, lost, rest, [(source, 1.0)], guided=False)
    strange = replace(source, placement=replace(source.placement, scale=float("inf")))
    with pytest.raises(UsageError, match="NaN"):
        fused.layers(background, place, rest, [(strange, 1.0)], guided=False)
    with pytest.raises(UsageError, match="own is float64"):
        wrong = replace(place, expression=place.expression.astype(np.float64))
        fused.layers(background, wrong, rest, [(source, 1.0)], guided=False)


def test_a_mesh_of_no_vertex_is_refused(
    loaded: Target, both: tuple[Compositor, Compositor]
) -> None:
    fused, _ = both
    assert fused._painter is not None
    arrays = dict(fused._painter._held)
    arrays["gap"] = arrays["gap"] + 10_000
    with pytest.raises(UsageError, match="gap names"):
        FacePainter(arrays, {}, 1, TEXTURE_SHAPE)


def test_its_stages_are_told_apart(loaded: Target, both: tuple[Compositor, Compositor]) -> None:
    fused, _ = both
    background, place = loaded.frames.decoder().read(0), loaded.track.placement(0)
    recorder = Recorder()
    with recording(recorder):
        fused.layers(
            background, place, np.zeros(MODEL.size, np.float32), [(loaded.sources[0], 1.0)],
            guided=False,
        )  # fmt: skip
    spans = {span.name: span for span in recorder.take()}
    assert set(spans) == {"warp", "color", "composite"}
    assert min(span.own_ns for span in spans.values()) > 0
    whole = spans["warp"]
    assert sum(span.own_ns for span in spans.values()) == whole.end_ns - whole.begin_ns
