"""The GPU kernels and their launches, run thread by thread on the CPU.

lipstream.cu is compiled by g++ with a header that stands for CUDA's built-in variables; a driver
made of NumPy arrays launches it through the real loader. What stays untested without a GPU is
pycuda itself and the fat binary.
"""

import ctypes
import itertools
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.kernels import build
from lipstream.kernels.cuda import loader
from lipstream.kernels.reference import color, composite, mesh, viterbi

KERNELS = Path(build.__file__).resolve().parent
SESSIONS = 2


class Index(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in "xyz"]


class OnDevice:
    """A NumPy array that says it lies on a device."""

    def __init__(self, array):
        self.array = np.ascontiguousarray(array)

    @property
    def __cuda_array_interface__(self):
        face = self.array.__array_interface__
        return {"shape": face["shape"], "typestr": face["typestr"], "data": face["data"]}


class Function:
    def __init__(self, library, name):
        self.library, self.run = library, getattr(library, name)

    def __call__(self, *arguments, block, grid, stream):
        assert stream == "a stream"
        values = []
        for argument in arguments:
            if isinstance(argument, OnDevice):
                values.append(ctypes.c_void_p(argument.array.ctypes.data))
            elif isinstance(argument, np.uint64):
                values.append(ctypes.c_void_p(int(argument)))
            else:
                assert isinstance(argument, np.int32)
                values.append(ctypes.c_int32(int(argument)))
        at = {n: Index.in_dll(self.library, n) for n in ("blockIdx", "blockDim", "threadIdx")}
        for name, size in zip("xyz", block, strict=True):
            setattr(at["blockDim"], name, size)
        for where in itertools.product(*map(range, grid)):
            for name, value in zip("xyz", where, strict=True):
                setattr(at["blockIdx"], name, value)
            for thread in itertools.product(*map(range, block)):
                for name, value in zip("xyz", thread, strict=True):
                    setattr(at["threadIdx"], name, value)
                self.run(*values)


class Driver(types.ModuleType):
    """As much of pycuda.driver as the loader uses."""

    class Error(Exception):
        pass

    def __init__(self, library=None, failure=None):
        super().__init__("pycuda.driver")
        self.library, self.failure, self.depth, self.loaded = library, failure, 0, None

    def init(self):
        if self.failure:
            raise self.Error(self.failure)

    def Device(self, ordinal):  # noqa: N802
        return types.SimpleNamespace(retain_primary_context=lambda: self)

    def push(self):
        self.depth += 1

    def pop(self):
        self.depth -= 1

    def module_from_buffer(self, fatbin):
        assert self.depth == 1
        self.loaded = fatbin
        return types.SimpleNamespace(get_function=lambda name: Function(self.library, name))


@pytest.fixture
def install(monkeypatch):
    def put(driver):
        package = types.ModuleType("pycuda")
        package.driver = driver
        monkeypatch.setitem(sys.modules, "pycuda", package)
        monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
        return driver

    return put


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not on the path")
    output = tmp_path_factory.mktemp("gpu") / "emulated.so"
    subprocess.run(
        ["g++", "-x", "c++", "-include", str(Path(__file__).with_name("cuda_on_cpu.h")), "-w"]
        + [*build.COMPILE_FLAGS, "-shared", "-fPIC", "-o", str(output)]
        + [str(KERNELS / "cuda" / "lipstream.cu")],
        check=True,
    )
    return ctypes.CDLL(str(output))


@pytest.fixture
def gpu(library, install):
    driver = install(Driver(library))
    kernels = loader.load()
    assert driver.loaded == (KERNELS / "cuda" / build.FATBIN).read_bytes()
    yield kernels
    assert driver.depth == 0


@pytest.fixture
def random():
    return np.random.default_rng(7)


def test_colour(gpu, random):
    i420 = random.integers(0, 256, (SESSIONS, 36, 20), dtype=np.uint8)
    rgb = OnDevice(np.zeros((SESSIONS, 24, 20, 3), np.uint8))
    gpu.i420_to_rgb(OnDevice(i420), rgb, "a stream")
    for got, picture in zip(rgb.array, i420, strict=True):
        np.testing.assert_array_equal(got, color.i420_region_to_rgb(picture, 0, 0, 20, 24))

    pixels = random.integers(0, 256, (SESSIONS, 24, 20, 3), dtype=np.uint8)
    masks = random.integers(0, 2, (SESSIONS, 24, 20), dtype=np.uint8)
    for mask in (None, masks):
        out = OnDevice(i420.copy())
        device_mask = None if mask is None else OnDevice(mask)
        gpu.rgb_into_i420(OnDevice(pixels), device_mask, out, "a stream")
        for b in range(SESSIONS):
            expected = i420[b].copy()
            chosen = None if mask is None else mask[b]
            color.rgb_region_into_i420(pixels[b], expected, 0, 0, chosen)
            np.testing.assert_array_equal(out.array[b], expected)


def test_min_plus(gpu, random):
    states, slots = 300, 5
    score, emission = random.integers(0, 5, (2, SESSIONS, states)).astype(np.float32)
    score[random.random(score.shape) < 0.5] = np.inf
    predecessors = random.integers(0, states, (states, slots), dtype=np.int32)
    cost = random.integers(0, 5, (states, slots)).astype(np.float32)
    best = OnDevice(np.zeros((SESSIONS, states), np.float32))
    back = OnDevice(np.zeros((SESSIONS, states), np.int32))
    gpu.min_plus(
        (OnDevice(score), OnDevice(emission)),
        (OnDevice(predecessors), OnDevice(cost)),
        (best, back),
        "a stream",
    )
    for b in range(SESSIONS):
        expected = viterbi.min_plus(score[b], predecessors, cost, emission[b])
        np.testing.assert_array_equal(best.array[b], expected[0])
        np.testing.assert_array_equal(back.array[b], expected[1])


def test_warp(gpu, random):
    images = random.integers(0, 256, (SESSIONS, 19, 23, 3), dtype=np.uint8)
    source, target = random.uniform(-4, 28, (2, SESSIONS, 12, 2)).astype(np.float32)
    triangles = random.integers(0, 12, (9, 3), dtype=np.int32)
    origins = np.array([[0, 0], [3, -2]], np.int32)
    mapped = OnDevice(np.full((SESSIONS, 18, 21, 2), 9, np.float32))
    coverage = OnDevice(np.full((SESSIONS, 18, 21), 9, np.uint8))
    gpu.mesh_map(
        (OnDevice(source), OnDevice(target)),
        OnDevice(triangles),
        OnDevice(origins),
        (mapped, coverage),
        "a stream",
    )
    out = OnDevice(np.full((SESSIONS, 18, 21, 3), 9, np.uint8))
    gpu.remap(OnDevice(images), (mapped, coverage), out, "a stream")
    for b in range(SESSIONS):
        warp = (source[b], target[b], triangles, (18, 21), tuple(origins[b]))
        np.testing.assert_array_equal(mapped.array[b], mesh.mesh_map(*warp)[0])
        np.testing.assert_array_equal(coverage.array[b], mesh.mesh_map(*warp)[1])
        np.testing.assert_array_equal(out.array[b], mesh.warp_mesh(images[b], *warp)[0])
    assert coverage.array.any()


def match_color(layer, gain, bias):
    """The twin of `ls_match_color`, which the GPU alone uses: layer * gain + bias, rounded."""
    value = layer.astype(np.float32) * gain + bias
    return np.clip(np.floor(value + np.float32(0.5)), 0, 255).astype(np.uint8)


def test_blend(gpu, random):
    background, layer = random.integers(0, 256, (2, SESSIONS, 13, 11, 3), dtype=np.uint8)
    alpha = random.uniform(-0.1, 1.1, (SESSIONS, 13, 11)).astype(np.float32)
    match = random.uniform(0.5, 1.5, (SESSIONS, 2, 3)).astype(np.float32)
    out = OnDevice(np.zeros_like(background))
    pair = (OnDevice(background), OnDevice(layer))
    gpu.blend(pair, OnDevice(alpha), OnDevice(match), out, "a stream")
    for b in range(SESSIONS):
        expected = composite.blend(background[b], match_color(layer[b], *match[b]), alpha[b])
        np.testing.assert_array_equal(out.array[b], expected)
    gpu.blend(pair, OnDevice(alpha), None, out, "a stream")
    expected = composite.blend(background[1], layer[1], alpha[1])
    np.testing.assert_array_equal(out.array[1], expected)


def test_arrays_that_a_kernel_must_not_walk_are_refused(gpu):
    rgb = OnDevice(np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(UsageError, match="expected an array on the device"):
        gpu.i420_to_rgb(np.zeros((1, 6, 4), np.uint8), rgb)
    with pytest.raises(UsageError, match=r"i420 is \|u1 \(1, 7, 4\)"):
        gpu.i420_to_rgb(OnDevice(np.zeros((1, 7, 4), np.uint8)), rgb)
    with pytest.raises(UsageError, match="even"):
        gpu.i420_to_rgb(rgb, OnDevice(np.zeros((1, 3, 4, 3), np.uint8)))


def test_what_is_missing_is_named(install, monkeypatch):
    install(Driver(failure="no CUDA-capable device"))
    with pytest.raises(BackendUnavailable, match="no CUDA-capable device"):
        loader.load()
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.delitem(sys.modules, "pycuda.driver")
    with pytest.raises(BackendUnavailable, match="pycuda does not import"):
        loader.load()


def test_the_fat_binary_is_small_and_made_from_these_sources():
    assert (KERNELS / "cuda" / build.FATBIN).stat().st_size < 1_000_000
    made_from = (KERNELS / "cuda" / f"{build.FATBIN}.sha256").read_text().strip()
    assert made_from == build.gpu_sources_digest(), "run `python kernels/build.py --gpu`"
