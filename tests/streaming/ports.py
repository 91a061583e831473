"""Ports that nothing uses."""

from __future__ import annotations

import random
import socket

# Below those that a system gives to whoever asks for any: another test would be given it between
# the probe and its use.
_RANGE = range(20_000, 32_000)
_ANY = random.SystemRandom()  # two processes that choose at once choose differently


def is_free(port: int, kind: int = socket.SOCK_DGRAM) -> bool:
    """Whether the port can be bound on loopback."""
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(kind: int = socket.SOCK_STREAM, count: int = 1) -> int:
    """The first of `count` neighbouring ports."""
    while True:
        low = _ANY.choice(_RANGE)
        if all(is_free(low + k, kind) for k in range(count)):
            return low
