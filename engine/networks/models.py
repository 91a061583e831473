"""The models of a process: each is loaded once, however many engines use it.

As native code the encoder loads in 0.08 s and the renderer in 0.06 s; OpenVINO compiles the
renderer for each core, in about a second on two cores. Engines for several targets share both.
"""

from __future__ import annotations

import threading
from typing import Final
from weakref import WeakValueDictionary

from lipstream.engine.networks import encoder_file
from lipstream.engine.networks.base import Model, Network
from lipstream.engine.networks.batcher import Batcher
from lipstream.engine.networks.encoder_file import EncoderFile
from lipstream.engine.networks.registry import load_stage, select_backend


class Models:
    """Loaded models by backend, files and precision. Safe to use from several threads.

    A model lives as long as one of its users does: the references here are weak.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: WeakValueDictionary[tuple[str, Model, str], Network] = WeakValueDictionary()
        self._batchers: WeakValueDictionary[tuple[int, tuple[int, int]], Batcher] = (
            WeakValueDictionary()
        )
        self._file_encoders: WeakValueDictionary[Model, EncoderFile] = WeakValueDictionary()

    def load(self, backend: str, model: Model, precision: str = "f32") -> Network:
        """`select_backend`, or what it returned for the same arguments.

        Two threads that ask at once wait for one load.
        Raises: UsageError and BackendUnavailable, as `select_backend` does.
        """
        key = (backend, model, precision)
        with self._lock:
            network = self._loaded.get(key)
            if network is None:
                network = self._loaded[key] = select_backend(backend, model, precision)
            return network

    def load_batcher(self, network: Network, crop_shape: tuple[int, int]) -> Batcher | None:
        """Batches of the renderer `network` for all sessions with crops of this shape.

        None for a backend that refines each session's frames by itself.
        Raises: BackendUnavailable when the device cannot run it.
        """
        key = (id(network), crop_shape)  # a batcher holds its network, so the number stays its own
        with self._lock:
            batcher = self._batchers.get(key)
            if batcher is None:
                executor = load_stage(network, crop_shape)
                if executor is None:
                    return None
                batcher = Batcher(executor)
                batcher.try_out()
                self._batchers[key] = batcher
            return batcher

    def load_file_encoder(self, model: Model) -> EncoderFile:
        """The encoder of whole files, which runs in NumPy whatever the backend."""
        with self._lock:
            network = self._file_encoders.get(model)
            if network is None:
                network = self._file_encoders[model] = encoder_file.load_network(model)
            return network


SHARED: Final = Models()  # what engines use that are given none
