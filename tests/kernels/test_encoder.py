"""A step of the encoder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipstream.engine.errors import UsageError
from lipstream.kernels import gru
from tests.kernels.guard_bytes import Guards, assert_twins_agree
from tests.kernels.strategies import FEW, MORE, SEEDS

promise = pytest.mark.usefixtures("kernels")  # of each implementation, as a process chooses it
twins = pytest.mark.usefixtures("library")  # compiled code against NumPy


@twins
@MORE
@given(SEEDS, st.integers(1, 40), st.integers(1, 150))
def test_twins_of_affine(seed, inputs, outputs):
    random = np.random.default_rng(seed)
    weights = random.normal(0, 1, (outputs, inputs)).astype(np.float16)
    weights[0, 0] = np.float16(3e-6)  # below the normal range of halves
    x, bias = (random.normal(size=n).astype(np.float32) for n in (inputs, outputs))
    assert_twins_agree(gru.affine, x, weights, bias)


SIZES = {"features": 128, "hidden": 24, "head": 16, "phones": 2 * 5, "code": 6, "outputs": 2 * 3}


def an_encoder(random):
    s = SIZES
    shapes = {"dense.": (s["hidden"], s["features"])}
    for name, width, inputs in (
        ("gru1", s["hidden"], s["hidden"]), ("gru2", s["hidden"], s["hidden"]),
        ("head_gru", s["head"], s["phones"] + s["code"]),
    ):  # fmt: skip
        shapes[f"{name}.ih_l0"] = (3 * width, inputs)
        shapes[f"{name}.hh_l0"] = (3 * width, width)
    shapes |= {"phone.": (s["phones"], s["hidden"]), "code.": (s["code"], s["hidden"])}
    shapes["head."] = (s["outputs"], s["head"])
    weights = {"look_aheads_ms": np.array([40, 80])}
    for name, shape in shapes.items():
        layer, side = name.split(".")
        end = f"_{side}" if side else ""
        weights[f"{layer}.weight{end}"] = random.normal(0, 0.3, shape).astype(np.float16)
        weights[f"{layer}.bias{end}"] = random.normal(0, 0.3, shape[0]).astype(np.float32)
    return weights


def step_by_hand(weights, features, *states):
    """GRUs and dense layers in double precision, from their definitions."""

    def dense(name, x, side=""):
        weight = weights[f"{name}.weight{side}"].astype(np.float64)
        return weight @ x + weights[f"{name}.bias{side}"]

    def gru_cell(name, x, state):
        a, b = dense(name, x, "_ih_l0"), dense(name, state, "_hh_l0")
        (ra, za, na), (rb, zb, nb) = np.split(a, 3), np.split(b, 3)
        reset, update = 1 / (1 + np.exp(-(ra + rb))), 1 / (1 + np.exp(-(za + zb)))
        fresh = np.tanh(na + reset * nb)
        return (1 - update) * fresh + update * state

    h1 = gru_cell("gru1", np.maximum(dense("dense", features), 0), states[0])
    h2 = gru_cell("gru2", h1, states[1])
    phones = np.exp(dense("phone", h2)).reshape(2, -1)
    phones /= phones.sum(1, keepdims=True)
    h3 = gru_cell("head_gru", np.append(phones, np.tanh(dense("code", h2))), states[2])
    return dense("head", h3).reshape(2, -1), 1 - phones[:, 0], h1, h2, h3


@twins
@FEW
@given(SEEDS)
def test_a_step_is_what_its_layers_are(seed):
    random = np.random.default_rng(seed)
    weights = an_encoder(random)
    inputs = [
        random.normal(size=SIZES[n]).astype(np.float32)
        for n in ("features", "hidden", "hidden", "head")
    ]
    got = Guards().call(gru.EncoderStep(weights), *inputs)
    for one, expected in zip(got, step_by_hand(weights, *inputs), strict=True):
        np.testing.assert_allclose(one, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["gru2.weight_ih_l0", "head.weight", "phone.bias"])
def test_layers_that_do_not_fit_are_refused(name):
    weights = an_encoder(np.random.default_rng(0))
    weights[name] = weights[name][..., 1:]
    with pytest.raises(UsageError, match=r"layers are|expected \["):
        gru.EncoderStep(weights)
