"""The fused painter paints what the step painter paints."""

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
from lipstream.engine.rendering.compositor import Compositor
from lipstream.engine.rendering.fused import FusedPainter
from lipstream.engine.rendering.inner_mouth import InnerMouth
from lipstream.engine.rendering.layers import Layers, WantedMouth
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
    """Fused, and step by step."""
    fused = Compositor(MESH, loaded.style.mouth, native=True)
    return fused, Compositor(MESH, loaded.style.mouth, native=False)


def expression_of(rng: np.random.Generator, lively: float) -> F32:
    return (rng.uniform(-lively, lively, MODEL.size) * MODEL.spread).astype(np.float32)


def moved(place: Placement, x: float, y: float, zoom: float) -> Placement:
    shift = np.array([x, y, 0], np.float32)
    return replace(place, scale=place.scale * zoom, translation=place.translation + shift)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6), lively=st.sampled_from([0.0, 1.0, 3.0]), refined=st.booleans(),
    fading=st.booleans(), has_prior=st.booleans(), x=st.sampled_from([0.0, -70.0, 55.0, 400.0]),
    zoom=st.sampled_from([1.0, 0.6, 2.5]),
)  # fmt: skip
def test_equal_to_the_steps(
    loaded: Target,
    both: tuple[Compositor, Compositor],
    seed: int,
    lively: float,
    refined: bool,
    fading: bool,
    has_prior: bool,
    x: float,
    zoom: float,
) -> None:
    rng = np.random.default_rng(seed)
    background = loaded.frames.decoder().read(int(rng.integers(len(loaded.track))))
    place = moved(loaded.track.placement(0), x, x / 2, zoom)
    expression = expression_of(rng, lively)
    first, second = (loaded.sources[i] for i in rng.integers(len(loaded.sources), size=2))
    sources = [(first, 0.3), (second, 0.7)] if fading else [(first, 1.0)]
    texture = rng.integers(0, 256, (*TEXTURE_SHAPE, 3), dtype=np.uint8)
    prior = AppearancePrior(texture, 0.7) if has_prior else None
    wanted = WantedMouth(place, expression, sources, prior)
    got, expected = (
        one.layers(background, wanted, one.crop(place) if refined else None) for one in both
    )
    if expected is None:
        assert got is None
        return
    assert isinstance(got, Layers)
    assert got.box == expected.box
    assert got.crop == expected.crop
    np.testing.assert_array_equal(got.mask, expected.mask)
    np.testing.assert_array_equal(got.painted, expected.painted)
    if refined:
        assert got.conditioning is not None
        np.testing.assert_array_equal(got.conditioning, expected.conditioning)
    assert got.confidence == expected.confidence
    assert (got.prior is None) == (expected.prior is None) == (not (refined and has_prior))
    if got.prior is not None and expected.prior is not None:
        assert np.abs(got.prior.astype(int) - expected.prior).max() <= 1
        assert (got.prior != expected.prior).mean() < 1e-4


def test_a_synthetic_mouth_is_among_the_examples(
    loaded: Target, both: tuple[Compositor, Compositor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison above covers teeth that no source has."""
    shut = min(
        loaded.sources,
        key=lambda source: float(np.ptp(source.placement.canonical_vertices[[13, 14], 1])),
    )
    row = MODEL.lip_rows()[0]
    wide = (row * MODEL.spread**2 * (0.35 / float(row @ (row * MODEL.spread**2)))).astype(
        np.float32
    )
    background, place = loaded.frames.decoder().read(0), loaded.track.placement(0)
    painted: list[int] = []
    paint = InnerMouth._draw
    monkeypatch.setattr(InnerMouth, "_draw", lambda *args: (painted.append(1), paint(*args)))
    wanted = WantedMouth(place, wide, [(shut, 1.0)], None)
    got, expected = (one.layers(background, wanted, None) for one in both)
    assert painted
    assert got is not None
    assert expected is not None
    np.testing.assert_array_equal(got.painted, expected.painted)


def test_a_face_at_no_finite_place_is_refused(
    loaded: Target, both: tuple[Compositor, Compositor]
) -> None:
    fused, _ = both
    background, place = loaded.frames.decoder().read(0), loaded.track.placement(0)
    rest, source = np.zeros(MODEL.size, np.float32), loaded.sources[0]
    lost = replace(place, translation=np.full(3, np.nan, np.float32))
    with pytest.raises(UsageError, match="NaN"):
        fused.layers(background, WantedMouth(lost, rest, [(source, 1.0)], None), None)
    strange = replace(source, placement=replace(source.placement, scale=float("inf")))
    with pytest.raises(UsageError, match="NaN"):
        fused.layers(background, WantedMouth(place, rest, [(strange, 1.0)], None), None)
    with pytest.raises(UsageError, match="own is float64"):
        wrong = replace(place, expression=place.expression.astype(np.float64))
        fused.layers(background, WantedMouth(wrong, rest, [(source, 1.0)], None), None)


def test_a_mesh_of_no_vertex_is_refused(
    loaded: Target, both: tuple[Compositor, Compositor]
) -> None:
    fused, _ = both
    assert isinstance(fused._painter, FusedPainter)
    arrays = dict(fused._painter._painter._held)
    arrays["gap"] = arrays["gap"] + 10_000
    with pytest.raises(UsageError, match="gap names"):
        FacePainter(arrays, loaded.style.mouth.cavity(MODEL), {}, 1, TEXTURE_SHAPE)


def test_its_spans_are_recorded_separately(
    loaded: Target, both: tuple[Compositor, Compositor]
) -> None:
    fused, _ = both
    background, place = loaded.frames.decoder().read(0), loaded.track.placement(0)
    rest = np.zeros(MODEL.size, np.float32)
    wanted = WantedMouth(place, rest, [(loaded.sources[0], 1.0)], None)
    recorder = Recorder()
    with recording(recorder):
        fused.layers(background, wanted, None)
    spans = {span.name: span for span in recorder.take()}
    assert set(spans) == {"warp", "color", "composite"}
    assert min(span.own_ns for span in spans.values()) > 0
    whole = spans["warp"]
    assert sum(span.own_ns for span in spans.values()) == whole.end_ns - whole.begin_ns
