"""``rate=``: so many bytes a second, on average."""

from __future__ import annotations

import numbers
from collections.abc import Callable

#: Seconds that a caller who fell behind may catch up on: more would be a burst.
_CATCH_UP_S = 1.0


class RateLimit:
    """Returns how long to wait after so many bytes; waiting is the caller's.

    :param rate: bytes per second; ``None``: no limit.
    :param now: the clock, in seconds.
    """

    def __init__(self, rate: float | None, now: Callable[[], float]) -> None:
        if rate is not None and not isinstance(rate, numbers.Real):
            raise TypeError(f"rate must be a number of bytes per second, not {type(rate).__name__}")
        if rate is not None and not rate > 0:
            raise ValueError(f"rate must be more than 0 bytes per second, or None, not {rate}")
        self.rate = rate
        self._now = now
        self._due = now()

    def delay_s(self, size_bytes: int) -> float:
        """Count ``size_bytes``, and return the seconds to wait before the next ones."""
        if self.rate is None:
            return 0.0
        now = self._now()
        self._due = max(self._due, now - _CATCH_UP_S) + size_bytes / self.rate
        return max(0.0, self._due - now)
