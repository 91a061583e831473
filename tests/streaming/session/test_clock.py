"""Session time against wall time."""

from __future__ import annotations

import pytest

from lipstream.streaming.session.clock import MediaClock
from tests.clock import ScriptedClock


def test_wall_time_is_exact_after_a_day() -> None:
    clock = MediaClock(ScriptedClock(5.0))
    day = 24 * 3600 * 16_000
    assert clock.wall_s(day) == 5.0 + 86_400
    assert clock.wall_s(day + 320) - clock.wall_s(day) == pytest.approx(0.02, abs=1e-9)


def test_the_origin_never_moves() -> None:
    now = ScriptedClock(5.0)
    clock = MediaClock(now)
    now.time_s = 7.5
    assert (clock.sample(), clock.origin_s) == (40_000, 5.0)
