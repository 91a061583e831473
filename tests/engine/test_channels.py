"""Channels to one: their mean, or the loudest where they cancel."""

from __future__ import annotations

import numpy as np
import pytest

from lipstream.engine.channels import ChannelMixer
from lipstream.engine.types import F32

RATE_HZ = 16_000


def mixed(*channels: F32, size: int = 320) -> F32:
    sound = np.stack(channels).astype(np.float32)
    mixer = ChannelMixer(len(channels), RATE_HZ)
    return np.concatenate(
        [mixer.push(sound[:, k : k + size]) for k in range(0, sound.shape[1], size)]
    )


def voice(seed: int = 0) -> F32:
    return (0.1 * np.random.default_rng(seed).standard_normal(RATE_HZ)).astype(np.float32)


@pytest.mark.parametrize("others", [[1.0], [0.0], [0.5], [-0.3], [0.0] * 5, [1.0, 0.0]])
def test_channels_that_do_not_cancel_are_their_mean(others: list[float]) -> None:
    channels = [voice(), *(share * voice() for share in others)]
    np.testing.assert_array_equal(
        mixed(*channels), np.stack(channels).astype(np.float32).mean(axis=0)
    )


def test_channels_of_different_sounds_are_their_mean() -> None:
    np.testing.assert_array_equal(mixed(voice(), voice(1)), (voice() + voice(1)) / 2)


@pytest.mark.parametrize("size", [16, 100, 960, RATE_HZ])
@pytest.mark.parametrize("share", [-0.98, -0.9, -0.6])
def test_of_channels_that_cancel_the_louder_is_heard_from_the_first_sample(
    share: float, size: int
) -> None:
    np.testing.assert_array_equal(mixed(share * voice(), voice(), size=size), voice())


def test_it_follows_a_change_without_a_click() -> None:
    tone = (0.3 * np.sin(np.arange(4 * RATE_HZ) / 25)).astype(np.float32)
    other = tone * np.where(np.arange(tone.size) < 2 * RATE_HZ, 1, -1).astype(np.float32)
    other[2 * RATE_HZ - 200 : 2 * RATE_HZ + 200] = tone[2 * RATE_HZ - 200 : 2 * RATE_HZ + 200]
    heard = mixed(tone, other)
    assert np.abs(heard[:RATE_HZ]).max() == pytest.approx(0.3, abs=0.01)
    assert np.abs(heard[-RATE_HZ:]).max() == pytest.approx(0.3, abs=0.01)
    assert np.abs(np.diff(heard[2 * RATE_HZ + 400 :])).max() < 0.03
