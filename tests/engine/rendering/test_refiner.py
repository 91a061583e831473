"""The renderer: the pixels it changes, its inputs, and its backends."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.face.mesh import LIP_OUTLINE, build_mesh, inner_grid
from lipstream.engine.face.model import face_model
from lipstream.engine.face.retarget import drive
from lipstream.engine.networks import registry
from lipstream.engine.networks.base import FAST
from lipstream.engine.networks.models import Models
from lipstream.engine.networks.registry import select_backend, shipped
from lipstream.engine.networks.signatures import (
    CHANNELS,
    CROP_RESOLUTIONS,
    CROP_SHAPE,
    RENDERER_INPUT,
    RENDERER_OUTPUT,
    crop_shape,
)
from lipstream.engine.rendering.compositor import Compositor
from lipstream.engine.rendering.mouth_crop import MouthCrop
from lipstream.engine.rendering.refiner import Renderer, load_renderer
from lipstream.engine.target.appearance import TEXTURE_SHAPE, AppearancePrior, canonical_uv
from lipstream.engine.target.bundle import Target, load_target
from lipstream.engine.types import F32, U8
from lipstream.kernels import convolution
from lipstream.kernels.crop import SYNTHETIC
from lipstream.kernels.dispatch import use_native
from lipstream.kernels.mesh import warp_mesh

# Largest difference of openvino in f32 from torch, of full scale; measured 2e-6.
TOLERANCE = 1e-4
# Mean and largest difference of the fast precision from f32, levels of 255, on colours unlike any
# face: int8 differs by 0.1 and 10 there; on faces by 0.02 and 0.7.
FAST_MEAN, FAST_LARGEST = 0.5, 16.0


BLUE = np.full((*TEXTURE_SHAPE, 3), (20, 40, 200), np.uint8)


class Constant:
    """A model with the same gates everywhere, which keeps its inputs."""

    name, device, precision = "constant", "CPU", "f32"

    def __init__(self, coarse: float, fine: float = 0.0) -> None:
        self.gates, self.inputs = (coarse, fine, 0.0), list[F32]()

    def run(self, inputs: Mapping[str, F32]) -> dict[str, F32]:
        self.inputs.append(inputs[RENDERER_INPUT])
        shape = (1, 3, *inputs[RENDERER_INPUT].shape[2:])
        gates = np.array(self.gates, np.float32)[:, None, None]
        return {RENDERER_OUTPUT: np.broadcast_to(gates, shape).copy()}


@pytest.fixture(scope="module")
def loaded(target: Path) -> Target:
    return load_target(target)


def painted(  # noqa: ANN201
    loaded: Target,
    renderer: Renderer | None,
    previous: U8 | None = None,
    texture: U8 | None = BLUE,
    confidence: float = 1.0,
):
    """The first frame with a wide mouth, whose prior is blue."""
    mesh = build_mesh(face_model())
    compositor = Compositor(mesh, loaded.style.mouth, renderer)
    background = loaded.frames.decoder().read(0)
    wide = np.asarray(face_model().spread, np.float32)
    source = [(loaded.sources[0], 1.0)]
    place = loaded.track.placement(0)
    expected = None if texture is None else AppearancePrior(texture, confidence)
    return compositor.paint(background, place, wide, source, expected, previous)


def test_it_changes_only_pixels_under_the_lip_layer(loaded: Target) -> None:
    plain, refined = painted(loaded, None), painted(loaded, Renderer(Constant(1, 1)))
    height, width = loaded.height, loaded.width
    differs = plain.frame[:height] != refined.frame[:height]
    x, y, w, h = refined.box
    inside = np.zeros((height, width), bool)
    inside[y : y + h, x : x + w] = refined.mask > 0
    assert differs[inside].sum() > 1000, "the gates take effect"
    assert not differs[~inside].any(), "outside the mask every byte stays"


def test_closed_gates_change_nothing(loaded: Target) -> None:
    blunt = Renderer(Constant(0), sharpen=0.0)
    plain, refined = painted(loaded, None), painted(loaded, blunt, None, None)
    # The patch is larger, so the jaw is cut elsewhere: the same to a level of rounding.
    apart = np.abs(plain.frame.astype(int) - refined.frame.astype(int))
    assert apart.max() <= 2


def test_it_makes_the_mouth_sharper(loaded: Target) -> None:
    edges = []
    for sharpen in (0.0, 0.65):
        renderer = Renderer(Constant(0), sharpen=sharpen)
        luma = painted(loaded, renderer).frame[: loaded.height].astype(int)
        edges.append(np.abs(np.diff(luma)).sum())
    assert edges[1] > 1.001 * edges[0]


def test_the_refined_crop_is_an_input_of_the_next_frame(loaded: Target) -> None:
    network = Constant(1, 1)
    renderer = Renderer(network, sharpen=0.0)
    first = painted(loaded, renderer)
    assert first.previous_output is not None
    assert first.previous_output.shape == (*CROP_SHAPE, 3)
    painted(loaded, renderer, first.previous_output)
    own, later = (planes[0] for planes in network.inputs)
    assert own.shape == (CHANNELS, *CROP_SHAPE)
    np.testing.assert_array_equal(own[9:], own[:3])  # the first frame has only itself
    np.testing.assert_allclose(later[9:] * 255, first.previous_output.transpose(2, 0, 1), atol=1e-3)
    opaque = later[3] == 1
    assert opaque.sum() > 1000
    # The prior was taken in full, except for what alternates from pixel to pixel.
    assert np.median(np.abs(later[9:] - later[6:9])[:, opaque]) * 255 <= 1
    assert np.median(np.abs(later[6:9] - later[:3])[:, opaque]) * 255 > 20


def test_the_prior_is_an_input(loaded: Target) -> None:
    network = Constant(0)
    renderer = Renderer(network)
    place = loaded.track.placement(int(loaded.source_frames[0]))
    points = np.concatenate(
        [
            place.project(place.canonical_vertices),
            place.project(inner_grid(place.canonical_vertices)),
        ]
    )
    mesh, source = build_mesh(face_model()), loaded.sources[0]
    at = (points - np.array(source.origin, np.float32)) * np.float32(source.zoom)
    texture, _ = warp_mesh(
        source.rgb, at.astype(np.float32), canonical_uv(mesh), mesh.lip_triangles, TEXTURE_SHAPE
    )
    painted(loaded, renderer, None, None)
    painted(loaded, renderer, None, texture)
    alone, has_prior = (planes[0] for planes in network.inputs)
    np.testing.assert_array_equal(alone[6:9], alone[:3])
    np.testing.assert_array_equal(has_prior[:3], alone[:3])
    # The same lips, only coarser; the texture here has no gap.
    apart = np.abs(has_prior[6:9] - has_prior[:3]) * 255
    lips = (has_prior[3] == 1) & (has_prior[4] == 0)
    assert lips.sum() > 1000
    assert 0 < apart[:, lips].mean() < 3
    assert apart[:, has_prior[3] == 0].max() == 0
    painted(loaded, renderer, None, BLUE)
    painted(loaded, renderer, None, BLUE, 0.25)
    blue, little = (planes[0] for planes in network.inputs[2:])
    gap = np.minimum(alone[5] * np.float32(255 / SYNTHETIC), 1)
    shown = (1 - 0.75 * gap) * (blue[6:9] - alone[:3])
    assert (gap > 0).sum() > 100
    np.testing.assert_allclose(little[6:9] - alone[:3], shown, atol=1e-5)


def test_choices() -> None:
    with pytest.raises(UsageError, match="auto, network, none"):
        load_renderer("best", "auto")
    assert load_renderer("none", "auto") is None
    assert load_renderer("network", "openvino") is not None


def test_where_a_backend_cannot_run_it_auto_warps_and_logs_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "lipstream.engine.rendering.refiner"):
        assert load_renderer("auto", "numpy") is None
    assert "warped only" in caplog.text
    with pytest.raises(BackendUnavailable, match="numpy"):
        load_renderer("network", "numpy")


@pytest.mark.parametrize("backend", ["cuda", "tensorrt", "torch"])
def test_a_backend_for_cards_that_cannot_run_is_not_done_without(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for a card by name would get mouths that are not refined at all."""

    def unavailable(*_: object) -> None:
        raise BackendUnavailable(f"backend {backend!r}: no card")

    monkeypatch.setitem(registry._LOADERS, backend, unavailable)
    with pytest.raises(BackendUnavailable, match="no card"):
        load_renderer("auto", backend, models=Models())


def crop(seed: int) -> F32:
    """Inputs like those of a face: smooth colours, an opaque middle, a gap."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 1, (CHANNELS, 9, 9))
    at = (np.linspace(0, 8, n)[:, None] for n in CROP_SHAPE)
    down, across = (np.maximum(0, 1 - np.abs(one - np.arange(9))) for one in at)
    smooth = np.einsum("yh,chw,xw->cyx", down, coarse, across)
    return smooth[None].astype(np.float32)


def outputs(backend: str, precision: str) -> F32:
    network = select_backend(backend, shipped("renderer"), precision)
    return np.concatenate(
        [network.run({RENDERER_INPUT: crop(seed)})[RENDERER_OUTPUT] for seed in range(3)]
    )


def test_openvino_is_the_reference() -> None:
    pytest.importorskip("torch")
    apart = np.abs(outputs("openvino", "f32") - outputs("torch", "f32"))
    assert apart.max() < TOLERANCE


def test_the_fast_precision_makes_no_visible_difference() -> None:
    apart = np.abs(outputs("auto", FAST) - outputs("openvino", "f32")) * 255
    assert apart.mean() < FAST_MEAN
    assert apart.max() < FAST_LARGEST


def test_int8_makes_no_visible_difference() -> None:
    apart = np.abs(outputs("openvino", "int8") - outputs("openvino", "f32")) * 255
    assert 0 < apart.mean() < FAST_MEAN, "it does differ from f32"
    assert apart.max() < FAST_LARGEST


def native_or_skip() -> None:
    if not (use_native() and convolution.fits()):
        pytest.skip("needs compiled kernels and a processor with AVX2")


def test_our_16_bits_are_nearer_than_8() -> None:
    native_or_skip()
    exact = outputs("openvino", "f32")
    ours = np.abs(outputs("native", FAST) - exact) * 255
    assert 0 < ours.mean() < 0.1  # measured 0.046
    assert ours.max() < 1.5  # measured 0.56
    assert 3 * ours.mean() < np.abs(outputs("openvino", "int8") - exact).mean() * 255


def test_auto_takes_native_where_avx2_is_the_widest(monkeypatch: pytest.MonkeyPatch) -> None:
    native_or_skip()
    model = shipped("renderer")
    monkeypatch.setattr(convolution, "has_wider_simd", lambda: False)
    network = select_backend("auto", model, FAST)
    assert (network.name, network.precision) == ("native", "int16")
    assert select_backend("auto", model, "f32").name == "openvino", "int16 is not f32"
    with pytest.raises(BackendUnavailable, match="int16, not 'f32'"):
        select_backend("native", model, "f32")
    monkeypatch.setattr(convolution, "has_wider_simd", lambda: True)
    from lipstream.engine.networks.openvino import library

    able = library().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    network = select_backend("auto", model, FAST)
    assert network.name == "openvino"
    assert network.precision == ("bf16" if "BF16" in able else "int8" if "INT8" in able else "f32")


def test_int8_needs_the_range_of_every_convolution() -> None:
    from lipstream.engine.networks.openvino import load

    model = shipped("renderer")
    ranges = model.ranges()
    del ranges["leave.weight"]
    with pytest.raises(BackendUnavailable, match=r"leave\.weight.*f32"):
        load(model.onnx, "int8", ranges)


@pytest.mark.parametrize("crop_resolution", CROP_RESOLUTIONS)
def test_a_finer_crop_shows_the_same_mouth_in_more_pixels(
    loaded: Target, crop_resolution: int
) -> None:
    network = Constant(1)
    fine = painted(loaded, Renderer(network, crop_resolution))
    rows, columns = CROP_SHAPE[0] * crop_resolution // 256, CROP_SHAPE[1] * crop_resolution // 256
    assert fine.previous_output is not None and fine.previous_output.shape == (rows, columns, 3)
    step = crop_resolution // 128
    coarse = Constant(1)
    painted(loaded, Renderer(coarse))
    seen, usual = network.inputs[0][0, :3], coarse.inputs[0][0, :3]
    small = seen.reshape(3, rows // step, step, columns // step, step).mean((2, 4))
    usual = usual.reshape(3, rows // step, 2, columns // step, 2).mean((2, 4))
    assert np.abs(small - usual).mean() * 255 < 2, "the same part of the face"


def test_the_model_takes_every_crop_resolution_and_no_other() -> None:
    network = select_backend("auto", shipped("renderer"), FAST)
    exact = select_backend("openvino", shipped("renderer"), "f32")
    for crop_resolution in CROP_RESOLUTIONS:
        rows, columns = crop_shape(crop_resolution)
        step = np.ones((crop_resolution // 8, crop_resolution // 8))
        crops = np.kron(crop(0)[:, :, ::32, ::32], step).astype(np.float32)[..., :rows, :columns]
        got, wanted = (
            one.run({RENDERER_INPUT: crops})[RENDERER_OUTPUT] for one in (network, exact)
        )
        assert got.shape == (1, 3, rows, columns)
        assert np.abs(got - wanted).mean() * 255 < FAST_MEAN
    with pytest.raises(UsageError, match="256, 384, 512"):
        load_renderer("network", "openvino", 300)


def test_lips_of_the_widest_mouth_lie_inside_the_crop(loaded: Target) -> None:
    rows, columns = CROP_SHAPE
    model = face_model()
    placement = loaded.track.placement(0)
    crop = MouthCrop.around(placement, model)
    for spread in (-2.0, 2.0):
        for one in range(3):
            expression = np.zeros(model.size, np.float32)
            expression[one] = spread * model.spread[one]
            vertices, _ = drive(build_mesh(model), placement, expression)
            lips = placement.project(vertices)
            at = (lips[list(LIP_OUTLINE)] - [crop.left, crop.top]) / crop.step
            assert (at > 4).all() and (at < [columns - 4, rows - 4]).all()


def test_it_fits_the_budget() -> None:
    pytest.importorskip("torch")
    from lipstream.engine.networks.renderer_torch import load_net, multiply_adds

    assert multiply_adds(load_net(shipped("renderer").safetensors).size) <= 0.45e9
