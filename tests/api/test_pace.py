"""How fast, and for how long: a pure function of the clock."""

from __future__ import annotations

import pytest

from uringblob.api.pace import Pace


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_without_limits_nothing_waits(clock):
    pace = Pace(None, None, clock)
    assert [pace.delay_s(1 << 20) for _ in range(3)] == [0, 0, 0]
    assert pace.frames_at_once(4096, 64) == 64


def test_bytes_wait_until_their_rate_allows_them(clock):
    pace = Pace(100, None, clock)
    assert pace.delay_s(50) == 0
    assert pace.delay_s(50) == 0.5
    clock.now += 0.5
    assert pace.delay_s(100) == 0.5
    clock.now += 0.75
    assert pace.delay_s(1) == 0.75, "a little time that was lost is caught up"
    clock.now += 3600
    assert [pace.delay_s(50) for _ in range(4)] == [0, 0, 0, 0.5], "an hour is not"


def test_steps_are_small_where_the_rate_is_low(clock):
    assert [Pace(rate, None, clock).frames_at_once(1000, 64) for rate in (1, 10_000, 50_000, 1e9)] == [
        1,
        1,
        5,
        64,
    ]


def test_after_the_deadline_there_is_no_time_left(clock):
    pace = Pace(None, 10, clock)
    assert pace.delay_s(1) == 0
    clock.now += 9.9
    assert pace.delay_s(1) == 0
    clock.now += 0.1
    assert pace.delay_s(1) is None


def test_nothing_waits_for_longer_than_until_the_deadline(clock):
    pace = Pace(1, 10, clock)
    assert pace.delay_s(10) == 0
    assert pace.delay_s(1) is None


def test_the_first_bytes_always_have_time(clock):
    pace = Pace(None, 0, clock)
    clock.now += 1
    assert pace.delay_s(1) == 0
    assert pace.delay_s(1) is None


@pytest.mark.parametrize(
    ("rate", "deadline", "error"),
    [
        (0, None, ValueError),
        (-1, None, ValueError),
        (float("nan"), None, ValueError),
        (None, -1, ValueError),
        ("1", None, TypeError),
        (None, "1", TypeError),
    ],
)
def test_what_is_no_rate_or_deadline_is_refused(clock, rate, deadline, error):
    with pytest.raises(error):
        Pace(rate, deadline, clock)
