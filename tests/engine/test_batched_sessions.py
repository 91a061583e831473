"""Sessions whose mouths are refined in batches paint what they paint alone."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipstream.engine import turns
from lipstream.engine.errors import BackendUnavailable, UsageError
from lipstream.engine.networks.base import Network
from lipstream.engine.networks.batcher import Batcher
from lipstream.engine.networks.models import Models
from lipstream.engine.networks.stage import Refined, StageExecutor, StageRow
from lipstream.engine.networks.stage_cpu import CpuStage
from lipstream.engine.pipeline import Engine
from lipstream.engine.rendering.refiner import load_renderer
from lipstream.engine.target.bundle import Target, load_target
from lipstream.engine.types import F32, STEP_SAMPLES, VideoFrame
from lipstream.streaming.workers.process import ComputeTurn
from tests.engine.voices import babble

Make = Callable[[Network, tuple[int, int]], StageExecutor]


class InBatches(Models):
    """Every renderer in batches of an executor, whatever its backend."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self._make = make

    def load_batcher(self, network: Network, crop_shape: tuple[int, int]) -> Batcher:
        self.batcher = Batcher(self._make(network, crop_shape))
        return self.batcher


class Watched:
    """The CPU's stage; notes the sizes of batches, and refuses the rows that `fault` names."""

    def __init__(self, network: Network, crop_shape: tuple[int, int]) -> None:
        self._stage, self.crop_shape = CpuStage(network, crop_shape), crop_shape
        self.name, self.device, self.precision = network.name, network.device, network.precision
        self.sizes: list[int] = []
        self.fault: Callable[[int], bool] = lambda count: False  # of rows so far

    def run(self, rows: Sequence[StageRow]) -> list[Refined | UsageError]:
        first = sum(self.sizes)
        self.sizes.append(len(rows))
        return [
            UsageError("gates that are no number") if self.fault(first + index) else one
            for index, one in enumerate(self._stage.run(rows))
        ]


@pytest.fixture(scope="module")
def loaded(target: Path) -> Target:
    return load_target(target)


@pytest.fixture(scope="module")
def alone(loaded: Target) -> list[VideoFrame]:
    return speak(Engine(loaded), babble(0.8))


def speak(engine: Engine, sound: F32) -> list[VideoFrame]:
    session = engine.session()
    frames: list[VideoFrame] = []
    for start in range(0, len(sound), STEP_SAMPLES):
        frames += session.push(sound[start : start + STEP_SAMPLES])
    frames += session.flush()
    session.close()
    return frames


def same(one: Sequence[VideoFrame], other: Sequence[VideoFrame]) -> list[bool]:
    assert len(one) == len(other) > 15
    return [np.array_equal(a.i420, b.i420) for a, b in zip(one, other, strict=True)]


def test_seven_that_share_batches_paint_what_one_paints_alone(
    loaded: Target, alone: list[VideoFrame]
) -> None:
    """In turns, as in a worker process: one computes at a time, and who waits lets the next go."""
    models = InBatches(Watched)
    engine, turn = Engine(loaded, models=models), ComputeTurn()
    executor: Any = models.batcher.executor
    found: dict[int, list[VideoFrame]] = {}

    def conversation(number: int) -> None:
        with turns.holding(turn.conversation):
            found[number] = speak(engine, babble(0.8))

    threads = [threading.Thread(target=conversation, args=(number,)) for number in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(all(same(found[number], alone)) for number in range(7))
    assert max(executor.sizes) > 1 and sum(executor.sizes) == 7 * len(alone)


def test_a_fault_repeats_the_picture_before_and_the_voice_goes_on(
    loaded: Target, alone: list[VideoFrame], caplog: pytest.LogCaptureFixture
) -> None:
    models = InBatches(Watched)
    engine = Engine(loaded, models=models)
    executor: Any = models.batcher.executor
    executor.fault = lambda count: count == 7
    with caplog.at_level(logging.WARNING):
        frames = speak(engine, babble(0.8))
    equal = same(frames, alone)
    assert equal[:7] == [True] * 7 and not equal[7]
    assert np.array_equal(frames[7].i420, frames[6].i420)
    assert not np.array_equal(frames[8].i420, frames[7].i420)
    for ours, theirs in zip(frames, alone, strict=True):
        assert np.array_equal(ours.audio.samples, theirs.audio.samples)
    assert "frame 7 repeats the one before: a frame was not refined: gates" in caplog.text


def test_without_a_first_picture_the_footage_is_shown(
    loaded: Target, alone: list[VideoFrame]
) -> None:
    models = InBatches(Watched)
    engine = Engine(loaded, models=models)
    executor: Any = models.batcher.executor
    executor.fault = lambda count: count == 0
    frames = speak(engine, babble(0.8))
    background = loaded.frames.decoder().read(frames[0].background)
    assert np.array_equal(frames[0].i420, background)
    assert not np.array_equal(frames[1].i420, background)


def test_a_fault_of_one_changes_no_bit_of_another(loaded: Target, alone: list[VideoFrame]) -> None:
    models = InBatches(Watched)
    engine = Engine(loaded, models=models)
    executor: Any = models.batcher.executor
    first, second = engine.session(), engine.session()
    found: list[list[VideoFrame]] = [[], []]
    sound = babble(0.8)
    executor.fault = lambda count: count % 2 == 1 and count % 3 == 0  # of the second
    for start in range(0, len(sound), STEP_SAMPLES):
        for frames, session in zip(found, (first, second), strict=True):
            frames += session.push(sound[start : start + STEP_SAMPLES])
    for frames, session in zip(found, (first, second), strict=True):
        frames += session.flush()
    assert all(same(found[0], alone)[:10])
    assert not all(same(found[1], alone))


def test_a_device_that_fails_for_good_ends_the_session(loaded: Target) -> None:
    models = InBatches(Watched)
    engine = Engine(loaded, models=models)
    executor: Any = models.batcher.executor
    executor.fault = lambda count: True
    with pytest.raises(BackendUnavailable, match="frames in a row are lost"):
        speak(engine, babble(0.8))


def test_sessions_that_come_and_go_leave_no_seat_and_no_thread(loaded: Target) -> None:
    models = InBatches(Watched)
    engine = Engine(loaded, models=models)
    for _ in range(20):
        engine.session().close()
        engine.session()
    gc.collect()
    assert not models.batcher._queue.seats
    speak(engine, babble(0.8))
    thread = models.batcher._thread
    assert thread is not None and thread.is_alive()
    del engine, models
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_which_backends_share_batches() -> None:
    pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")
    models = Models()
    one, other, plain = (
        load_renderer("network", backend, sharpen=sharpen, models=models)
        for backend, sharpen in (("torch", 0.1), ("torch", 0.9), ("openvino", 0.1))
    )
    assert one is not None and other is not None and plain is not None
    assert one.seat() is not None and plain.seat() is None
    assert one._batcher is other._batcher, "targets share them"


def test_torchs_own_steps_paint_what_the_cpu_paints(loaded: Target) -> None:
    """The refined crop of a frame is an input of the next: differences might add up."""
    pytest.importorskip("torch", reason="needs torch: pip install 'lipstream[torch]'")
    from lipstream.engine.networks.registry import select_backend, shipped
    from lipstream.engine.networks.stage_device import DeviceStage
    from lipstream.engine.networks.stage_torch import TorchBody

    network: Any = select_backend("torch", shipped("renderer"), "f32")
    sound = babble(0.6)
    wanted, found = (
        speak(Engine(loaded, models=InBatches(make)), sound)
        for make in (
            lambda _, shape: CpuStage(network, shape),
            lambda _, shape: DeviceStage(network, TorchBody, shape),
        )
    )
    apart = [np.abs(a.i420.astype(int) - b.i420) for a, b in zip(found, wanted, strict=True)]
    assert len(apart) > 10 and max(one.max() for one in apart) <= 1
    assert np.mean([one.mean() for one in apart]) < 1e-4
