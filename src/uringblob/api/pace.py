"""How fast, and for how long, a call that reads a whole store goes on.  Pure: it is given a clock."""

from __future__ import annotations

import numbers
from collections.abc import Callable

#: Seconds of its rate that a call may catch up which was held up: timers are late.
BURST_S = 1.0
#: Seconds of its rate that are moved in one step.
STEP_S = 0.1


class Pace:
    """``rate``: bytes a second, at most; ``deadline``: seconds in all; ``None``: without limit.

    :raises ValueError: a rate that is not above 0, or a deadline below 0.
    :raises TypeError: one of them is no number.
    """

    def __init__(self, rate: float | None, deadline: float | None, clock: Callable[[], float]) -> None:
        given: dict[str, object] = {"rate": rate, "deadline": deadline}
        for name, value in given.items():
            if value is not None and not isinstance(value, numbers.Real):
                raise TypeError(f"{name} must be a number or None, not {type(value).__name__}")
        if rate is not None and not rate > 0:
            raise ValueError(f"rate must be above 0 bytes a second, not {rate}")
        if deadline is not None and not deadline >= 0:
            raise ValueError(f"deadline must be 0 or more seconds, not {deadline}")
        self._rate = rate
        self._clock = clock
        self._due = clock()  # when the next bytes may be moved
        self._end = None if deadline is None else self._due + deadline
        self._begun = False

    def frames_at_once(self, frame_bytes: int, most: int) -> int:
        """Return how many frames, at least one, are moved between two pauses: few where the rate is low."""
        if self._rate is None:
            return most
        return max(1, min(most, int(self._rate * STEP_S / frame_bytes)))

    def delay_s(self, size_bytes: int) -> float | None:
        """Return for how long to wait before moving the next bytes; ``None``: there is no time left for them.

        The first ones always have time: or calls with a short deadline, each of which resumes the one before,
        would get nowhere.
        """
        now = self._clock()
        delay = 0.0
        if self._rate is not None:
            due = max(self._due, now - BURST_S)
            delay = max(0.0, due - now)
            self._due = due + size_bytes / self._rate
        if self._begun and self._end is not None and now + delay >= self._end:
            return None
        self._begun = True
        return delay
