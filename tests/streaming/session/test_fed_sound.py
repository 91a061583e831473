"""Two counts of the same samples: the engine's, and the session's with what was skipped."""

from __future__ import annotations

from lipstream.streaming.session.fed_sound import FedSound


def test_each_sample_keeps_the_slip_it_was_fed_with() -> None:
    fed = FedSound()
    fed.skip(50)
    fed.feed(320)
    assert fed.next_sample == 370
    fed.skip(1000)
    fed.skip(20)
    fed.feed(320)
    assert (fed.end_sample, fed.slip_samples, fed.next_sample) == (640, 1070, 1710)
    assert [fed.session_sample(k) for k in (0, 319, 320, 639)] == [50, 369, 1390, 1709]


def test_what_no_frame_refers_to_any_more_is_forgotten() -> None:
    fed = FedSound()
    for _ in range(1000):
        fed.skip(320)
        fed.feed(320)
        fed.session_sample(fed.end_sample - 1)
    assert len(fed._slips) == 1
