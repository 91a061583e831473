"""What is said of GPUs, by a driver that a C compiler makes of a few lines."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from lipstream import doctor, doctor_gpu
from lipstream.engine.errors import BackendUnavailable
from lipstream.engine.networks import registry
from lipstream.engine.networks.gpus import Gpu, Gpus, find_gpus

DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return FAILURE; }
int cuDriverGetVersion(int* version) { *version = 13010; return 0; }
int cuDeviceGetCount(int* count) { *count = CARDS; return 0; }
int cuDeviceGetName(char* name, int size, int card) {
    strncpy(name, card ? "Second" : "First", size);
    return 0;
}
int cuDeviceGetAttribute(int* value, int which, int card) {
    *value = which == 75 ? 8 : which == 76 ? 9 - 3 * card : -1;
    return 0;
}
"""


def driver(folder: Path, failure: int = 0, cards: int = 2) -> ctypes.CDLL:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: cc is not in PATH")
    source, made = folder / "driver.c", folder / "driver.so"
    source.write_text(DRIVER)
    sizes = [f"-DFAILURE={failure}", f"-DCARDS={cards}"]
    subprocess.run([compiler, "-shared", "-fPIC", *sizes, source, "-o", made], check=True)
    return ctypes.CDLL(str(made))


def test_cards_are_told_by_the_driver(tmp_path: Path) -> None:
    found = find_gpus(driver(tmp_path))
    assert found == Gpus((Gpu("First", (8, 9)), Gpu("Second", (8, 6))), (13, 1))


@pytest.mark.parametrize(("failure", "cards", "said"), [(100, 1, "CUDA error 100"), (0, 0, "no G")])
def test_a_driver_without_a_card_says_so(
    tmp_path: Path, failure: int, cards: int, said: str
) -> None:
    with pytest.raises(BackendUnavailable, match=said):
        find_gpus(driver(tmp_path, failure, cards))


def with_card(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], library: str) -> None:
    gpus = Gpus((Gpu("A Card", capability),), (13, 0))
    monkeypatch.setattr(doctor_gpu, "find_gpus", lambda: gpus)
    module = SimpleNamespace(__name__=library, __version__="1.7")
    monkeypatch.setattr(doctor_gpu, "library", lambda: module)


def test_rtx_is_not_ok_on_a_card_that_it_does_not_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with_card(monkeypatch, (9, 0), "tensorrt_rtx")
    runs, found, remedy = doctor_gpu.tensorrt()
    assert not runs and "capability 9.0" in found and "--backend torch" in remedy
    with_card(monkeypatch, (9, 0), "tensorrt")
    assert doctor_gpu.tensorrt() == (True, "tensorrt 1.7 on A Card", "")
    with_card(monkeypatch, (7, 5), "tensorrt_rtx")
    assert not doctor_gpu.tensorrt()[0], "the encoder is in f32"
    with_card(monkeypatch, (8, 9), "tensorrt_rtx")
    assert doctor_gpu.tensorrt()[0]
    assert doctor_gpu.driver() == (True, "A Card (8.9); the driver serves CUDA 13.0", "")


def test_an_installed_library_without_a_card_is_not_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    with_card(monkeypatch, (8, 9), "tensorrt")

    def none() -> Gpus:
        raise BackendUnavailable("there is no NVIDIA driver")

    monkeypatch.setattr(doctor_gpu, "find_gpus", none)
    runs, found, _ = doctor_gpu.tensorrt()
    assert not runs and found == "tensorrt 1.7: there is no NVIDIA driver"
    assert not doctor_gpu.driver()[0]


def torch_with_a_card(monkeypatch: pytest.MonkeyPatch, sees: bool) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.setattr("torch.cuda.is_available", lambda: sees)


def test_what_would_paint_on_the_card_and_why_the_rest_would_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_card(monkeypatch, (9, 0), "tensorrt_rtx")
    torch_with_a_card(monkeypatch, sees=True)
    monkeypatch.setattr(doctor_gpu.metadata, "version", lambda name: "2026.1")
    monkeypatch.setattr(doctor_gpu.loader, "load", lambda: None)
    runs, found, remedy = doctor_gpu.backends()
    assert runs and found.startswith("--backend cuda or torch on A Card; not tensorrt: ")
    assert "capability 9.0" in found and not remedy
    torch_with_a_card(monkeypatch, sees=False)
    runs, found, remedy = doctor_gpu.backends()
    assert not runs and found.startswith("none runs on A Card; not tensorrt: torch ")
    assert found.count("sees no card") == 3 and "torch's CUDA wheels" in remedy


def test_kernels_that_do_not_load_are_not_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the metadata of pycuda says."""

    def fails() -> None:
        raise BackendUnavailable("lipstream.fatbin does not load")

    monkeypatch.setattr(doctor_gpu.metadata, "version", lambda name: "2026.1")
    monkeypatch.setattr(doctor_gpu.loader, "load", fails)
    assert doctor_gpu.pycuda()[:2] == (False, "pycuda 2026.1: lipstream.fatbin does not load")
    with_card(monkeypatch, (8, 9), "tensorrt")
    torch_with_a_card(monkeypatch, sees=True)
    runs, found, _ = doctor_gpu.backends()
    assert runs and found.startswith("--backend tensorrt or torch on A Card; not cuda: pycuda")


def test_auto_says_that_it_leaves_a_card_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Gpus((Gpu("A Card", (8, 9)),), (13, 0))
    monkeypatch.setattr(registry, "find_gpus", lambda: gpus)
    registry._cards_left_alone.cache_clear()
    try:
        network, reason = registry.auto_backend(registry.shipped("encoder"))
    finally:
        registry._cards_left_alone.cache_clear()
    assert network.device == "CPU" and "A Card is left alone" in reason
    assert "torch, cuda, tensorrt take it" in reason


def test_doctor_says_what_auto_takes_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    check = doctor._auto()
    assert check.status == "ok"
    for name in ("encoder: ", "renderer: "):
        assert name in check.found

    def nothing(*_: object) -> None:
        raise BackendUnavailable("no backend runs")

    monkeypatch.setattr(registry, "auto_backend", nothing)
    assert (doctor._auto().status, doctor._auto().found) == ("missing", "no backend runs")


@pytest.mark.parametrize("backend", ["cuda", "tensorrt"])
def test_a_backend_for_cards_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    torch_with_a_card(monkeypatch, sees=False)
    with pytest.raises(BackendUnavailable, match=f"'{backend}'.*(NVIDIA GPU|installed)"):
        registry.select_backend(backend, registry.shipped("renderer"), "fast")


def test_the_backend_cuda_leaves_the_encoder_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_with_a_card(monkeypatch, sees=True)
    monkeypatch.setattr(doctor_gpu.loader, "load", lambda: None)
    encoder = registry.shipped("encoder")
    assert registry.select_backend("cuda", encoder).name == registry.auto_backend(encoder)[0].name


def test_kernels_are_loaded_before_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_with_a_card(monkeypatch, sees=True)
    with pytest.raises(BackendUnavailable, match="pycuda does not import|no CUDA device"):
        registry.select_backend("cuda", registry.shipped("renderer"), "fast")
