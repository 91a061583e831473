"""Models are loaded once while somebody uses them, and let go after that."""

from __future__ import annotations

import gc
import threading
from weakref import ref

import pytest

from lipstream.engine.errors import UsageError
from lipstream.engine.networks import models as models_module
from lipstream.engine.networks.base import Model, Network
from lipstream.engine.networks.models import Models
from lipstream.engine.networks.registry import select_backend, shipped


class Loads:
    """Counts what `select_backend` is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, str]] = []
        self._load = select_backend
        monkeypatch.setattr(models_module, "select_backend", self.load)

    def load(self, backend: str, model: Model, precision: str) -> Network:
        self.asked.append((backend, precision))
        return self._load(backend, model, precision)


def test_once_for_each_backend_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, models, encoder = Loads(monkeypatch), Models(), shipped("encoder")
    first = models.load("numpy", encoder)
    assert models.load("numpy", encoder) is first
    other = models.load("numpy", encoder, "fast")
    assert other is not first
    assert loads.asked == [("numpy", "f32"), ("numpy", "fast")]


def test_threads_that_ask_at_once_wait_for_one_load(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, models = Loads(monkeypatch), Models()
    found: list[Network] = []
    threads = [
        threading.Thread(target=lambda: found.append(models.load("numpy", shipped("encoder"))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads.asked) == 1
    assert len({id(network) for network in found}) == 1


def test_a_model_lives_as_long_as_its_users(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, models = Loads(monkeypatch), Models()
    network = models.load("numpy", shipped("encoder"))
    gone = ref(network)
    del network
    gc.collect()
    assert gone() is None
    models.load("numpy", shipped("encoder"))
    assert len(loads.asked) == 2


def test_a_failed_load_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, models = Loads(monkeypatch), Models()
    for _ in range(2):
        with pytest.raises(UsageError, match="expected one of"):
            models.load("vulkan", shipped("encoder"))
    assert len(loads.asked) == 2
