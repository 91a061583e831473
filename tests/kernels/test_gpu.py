"""The renderer's stage for GPUs, run on the CPU through the real loader, against the CPU's kernels.

lipstream.cu is compiled by g++ with a header that stands for CUDA's built-in variables; a driver
made of NumPy arrays launches it. What stays untested without a GPU is pycuda itself and the fat
binary.
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
from lipstream.engine.networks.stage_cpu import residual
from lipstream.kernels import build
from lipstream.kernels.crop import crop_in, crop_out
from lipstream.kernels.cuda import loader
from lipstream.kernels.cuda.stage import ROW, Row, Stage

KERNELS = Path(build.__file__).resolve().parent


class Index(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in "xyz"]


class OnDevice:
    """A NumPy array that says it lies on a device."""

    def __init__(self, array):
        self.array = np.ascontiguousarray(array)

    @property
    def __cuda_array_interface__(self):
        face = self.array.__array_interface__
        return {name: face[name] for name in ("shape", "typestr", "data")}


class HostMemory:
    """Poisoned: what a kernel should have written and did not is seen."""

    def empty(self, shape, dtype):
        array = np.empty(shape, dtype)
        array.view(np.uint8).fill(0xFF)  # NaN, as f32
        return OnDevice(array)

    def upload(self, values, onto, stream):
        onto.array[...] = values


class Function:
    """A kernel. `threads`: as the launch says, or one for each picture, which is quick."""

    def __init__(self, library, name, every_thread):
        self.library, self.run, self.every_thread = library, getattr(library, name), every_thread

    def __call__(self, *arguments, block, grid, stream):
        assert stream == "a stream"
        values = []
        for argument in arguments:
            if hasattr(argument, "__cuda_array_interface__"):
                address, _ = argument.__cuda_array_interface__["data"]
                values.append(ctypes.c_void_p(address))
            else:
                assert isinstance(argument, np.int32)
                values.append(ctypes.c_int32(int(argument)))
        if not self.every_thread:
            block, grid = (1, 1, 1), (1, 1, grid[2])
        names = ("blockIdx", "blockDim", "gridDim", "threadIdx")
        at = {name: Index.in_dll(self.library, name) for name in names}
        for size, name in ((block, "blockDim"), (grid, "gridDim")):
            for axis, length in zip("xyz", size, strict=True):
                setattr(at[name], axis, length)
        for where in itertools.product(*map(range, grid)):
            for axis, value in zip("xyz", where, strict=True):
                setattr(at["blockIdx"], axis, value)
            for thread in itertools.product(*map(range, block)):
                for axis, value in zip("xyz", thread, strict=True):
                    setattr(at["threadIdx"], axis, value)
                self.run(*values)


class Driver(types.ModuleType):
    """As much of pycuda.driver as the loader uses."""

    class Error(Exception):
        pass

    def __init__(self, library=None, failure=None):
        super().__init__("pycuda.driver")
        self.library, self.failure, self.depth, self.loaded = library, failure, 0, None
        self.detached = 0
        self.every_thread = False

    def init(self):
        if self.failure:
            raise self.Error(self.failure)

    def Device(self, ordinal):  # noqa: N802
        return types.SimpleNamespace(retain_primary_context=lambda: self)

    def push(self):
        self.depth += 1

    def pop(self):
        self.depth -= 1

    def detach(self):
        self.detached += 1

    def module_from_buffer(self, fatbin):
        assert self.depth == 1
        self.loaded = fatbin
        get = lambda name: Function(self.library, name, self.every_thread)  # noqa: E731
        return types.SimpleNamespace(get_function=get)


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
        ["g++", "-x", "c++", "-include", str(KERNELS / "cuda" / "on_host.cuh"), "-w"]
        + [*build.COMPILE_FLAGS, "-shared", "-fPIC", "-o", str(output)]
        + [str(KERNELS / "cuda" / "lipstream.cu")],
        check=True,
    )
    return ctypes.CDLL(str(output))


@pytest.fixture
def driver(library, install):
    driver = install(Driver(library))
    yield driver
    assert driver.depth == 0


def stage(driver, crop_shape, most):
    kernels = loader.load()
    assert driver.loaded == (KERNELS / "cuda" / build.FATBIN).read_bytes()
    return Stage(kernels, HostMemory(), crop_shape, most)


class Call:
    """A conversation's picture and what it should become, frame after frame."""

    def __init__(self, random, crop_shape):
        self.random, self.shape = random, crop_shape
        self.size = tuple(int(side) for side in random.integers(crop_shape[0] // 2, 120, 2))
        self.prior_shape = tuple(int(side) for side in random.integers(8, 60, 2))
        self.previous = None

    def picture(self, *shape):
        coarse = self.random.integers(0, 256, (*(-(-side // 8) for side in shape), 3))
        near = np.kron(coarse, np.ones((8, 8, 1)))[: shape[0], : shape[1]]
        noise = self.random.integers(-9, 10, near.shape)
        return np.clip(near + noise, 0, 255).astype(np.uint8)

    def row(self):
        """The row, and what the CPU makes of it: picture and crop."""
        random = self.random
        painted, maps = self.picture(*self.size), self.picture(*self.size)
        maps[..., 0][random.random(self.size) < 0.3] = 0
        maps[..., 2][: self.size[0] // 2] = 0
        prior = self.picture(*self.prior_shape) if random.random() < 0.6 else None
        step = float(random.uniform(0.3, 2.0))
        left, top = random.uniform(-20, 20, 2)
        place = (float(left), float(top), step)
        confidence, sharpen = float(random.uniform(0, 1)), float(random.uniform(0, 1))

        expected = painted.copy()
        crop, planes = crop_in(expected, maps, prior, self.previous, place, self.shape, confidence)
        difference = residual(
            gates_of(planes[None])[0], planes, crop, sharpen, has_prior=prior is not None
        )
        refined = crop_out(difference, crop, expected, maps, place)
        row = Row(
            OnDevice(painted.copy()),
            OnDevice(maps),
            None if prior is None else OnDevice(prior),
            None if self.previous is None else OnDevice(self.previous),
            OnDevice(np.zeros((*self.shape, 3), np.uint8)),
            place,
            confidence,
            sharpen,
        )
        self.previous = refined
        return row, expected, refined


def gates_of(planes):
    """A network that answers each pixel by itself; NaN where a plane is above 0.99."""
    gates = np.stack([planes[:, k] * 2 - planes[:, 5 - k] for k in range(3)], 1)
    gates[:, 2][planes[:, 11] > 0.99] = np.nan
    return gates.astype(np.float32)


def network(planes, gates, batch):
    gates.array[:batch] = gates_of(planes.array[:batch])


def compare(rows):
    for row, expected, refined in rows:
        for got, wanted in ((row.picture.array, expected), (row.refined.array, refined)):
            apart = np.abs(got.astype(int) - wanted)
            assert apart.max() <= 1 and apart.mean() < 0.001


@pytest.mark.parametrize(("count", "batch", "shape"), [(1, 1, (160, 192)), (7, 8, (160, 192))])
def test_pictures_are_as_the_cpu_paints_them(driver, count, batch, shape):
    random = np.random.default_rng(count)
    calls = [Call(random, shape) for _ in range(count)]
    on_device = stage(driver, shape, batch)
    for _ in range(2):  # the second frame has a previous one
        rows = [call.row() for call in calls]
        refused = on_device.run([row for row, _, _ in rows], network, batch, "a stream")
        assert refused == [None] * count
        compare(rows)


def test_calls_that_start_end_and_fail_leave_the_others_alone(driver):
    random = np.random.default_rng(5)
    shape = (40, 48)
    on_device, calls = stage(driver, shape, 64), []
    for _ in range(4):
        calls = [call for call in calls if random.random() < 0.8]
        calls += [Call(random, shape) for _ in range(64 - len(calls))]
        rows = [call.row() for call in calls]
        wrong = set(random.choice(64, 9, replace=False).tolist())
        sent = [bad(random, row) if k in wrong else row for k, (row, _, _) in enumerate(rows)]
        refused = on_device.run(sent, network, 64, "a stream")
        assert {k for k, error in enumerate(refused) if error is not None} == wrong
        compare(each for k, each in enumerate(rows) if k not in wrong)
        for k in wrong:
            assert not rows[k][0].refined.array.any(), "left alone"


def bad(random, row):
    fields = {name: getattr(row, name) for name in row.__slots__}
    small = OnDevice(np.zeros((3, 5, 3), np.uint8))
    changes = [
        {"place": (float("nan"), 0.0, 1.0)},
        {"place": (0.0, 0.0, 0.0)},
        {"place": (0.0, float("inf"), 1.0)},
        {"confidence": float("nan")},
        {"conditioning": small},
        {"previous": small},
        {"picture": OnDevice(np.zeros((0, 5, 3), np.uint8))},
        {"prior": OnDevice(np.zeros((4, 0, 3), np.uint8))},
        {"picture": OnDevice(np.zeros(row.picture.array.shape, np.float32))},
    ]
    return Row(**{**fields, **changes[random.integers(len(changes))]})


def test_the_device_refuses_what_the_host_let_through(driver):
    """A row whose numbers are spoilt on the way is left alone, and its planes are 0."""
    shape = (16, 24)
    random = np.random.default_rng(3)
    on_device, seen = stage(driver, shape, 2), []
    rows = [Call(random, shape).row() for _ in range(2)]
    upload = on_device._memory.upload

    def spoil(values, onto, stream):
        values = values.copy()
        if onto is on_device._table:
            values.reshape(-1).view(ROW)["step"][1] = np.nan
        upload(values, onto, stream)

    on_device._memory.upload = spoil
    before = rows[1][0].picture.array.copy()

    def watching(planes, gates, batch):
        seen.append(planes.array[1].copy())
        network(planes, gates, batch)

    on_device.run([row for row, _, _ in rows], watching, 2, "a stream")
    compare(rows[:1])
    assert not seen[0].any()
    np.testing.assert_array_equal(rows[1][0].picture.array, before)


def test_every_thread_of_the_launch_has_its_own_pixels(driver):
    """Thread by thread, on a grid that does not divide the picture."""
    driver.every_thread = True
    shape = (24, 40)
    random = np.random.default_rng(9)
    rows = [Call(random, shape).row() for _ in range(2)]
    stage(driver, shape, 2).run([row for row, _, _ in rows], network, 2, "a stream")
    compare(rows)


def test_the_table_has_the_layout_of_the_kernels(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not on the path")
    names = ", ".join(f"(int)offsetof(LsRow, {name})" for name in ROW.names)
    source = tmp_path / "layout.cpp"
    source.write_text(
        f'#include <cstddef>\n#include "{KERNELS / "cuda" / "stage.cuh"}"\n'
        f'extern "C" const int places[] = {{{names}, (int)sizeof(LsRow)}};\n'
    )
    made = tmp_path / "layout.so"
    subprocess.run(["g++", "-shared", "-fPIC", source, "-o", made], check=True)
    wanted = [ROW.fields[name][1] for name in ROW.names] + [ROW.itemsize]
    places = (ctypes.c_int * len(wanted)).in_dll(ctypes.CDLL(str(made)), "places")
    assert list(places) == wanted


def test_launches_have_as_many_threads_as_the_kernels_have_strips():
    cuda = KERNELS / "cuda"
    assert f"#define LS_STRIP {loader._STRIP} " in (cuda / "strip.cuh").read_text()
    parts = (cuda / "lipstream.cu").read_text().split("\nLS_KERNEL ")[1:]
    in_strips = {part.split("(")[0] for part in parts if "LS_EACH_STRIP" in part}
    assert in_strips == set(loader._IN_STRIPS)


def test_a_batch_that_does_not_fit_is_refused(driver):
    random = np.random.default_rng(1)
    rows = [Call(random, (16, 24)).row()[0] for _ in range(3)]
    with pytest.raises(UsageError, match="3 rows in a batch of 2"):
        stage(driver, (16, 24), 2).run(rows, network, 2, "a stream")


def test_the_context_is_given_back_with_the_kernels(driver):
    kernels = loader.load()
    assert driver.detached == 0
    del kernels
    assert driver.detached == 1


def test_what_is_missing_is_named(install, monkeypatch):
    install(Driver(failure="no CUDA-capable device"))
    with pytest.raises(BackendUnavailable, match="no CUDA-capable device"):
        loader.load()

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "pycuda.driver":
                raise ImportError("libcuda.so.1: cannot open shared object file")

    package = types.ModuleType("pycuda")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.delitem(sys.modules, "pycuda.driver")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(BackendUnavailable, match="no NVIDIA driver for pycuda .libcuda.so.1"):
        loader.load()
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.delitem(sys.modules, "pycuda.driver", raising=False)
    with pytest.raises(BackendUnavailable, match="pycuda does not import"):
        loader.load()


def test_the_fat_binary_is_small_and_made_from_these_sources():
    assert (KERNELS / "cuda" / build.FATBIN).stat().st_size < 1_000_000
    made_from = (KERNELS / "cuda" / f"{build.FATBIN}.sha256").read_text().strip()
    assert made_from == build.gpu_sources_digest(), "run `python kernels/build.py --gpu`"
