"""``rate=``: so many bytes a second, on average."""

from __future__ import annotations

import numbers
from collections.abc import Awaitable, Callable

#: Seconds that a caller who fell behind may catch up on: more would be a burst.
_CATCH_UP_S = 1.0


class RateLimit:
    """Waits as long as so many bytes take.

    :param rate: bytes per second; ``None``: no limit.
    :param now: the clock, in seconds; ``sleep`` waits by it.
    """

    def __init__(
        self, rate: float | None, now: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        given: object = rate
        if not (given is None or isinstance(given, numbers.Real)):
            raise TypeError(f"rate must be a number of bytes per second, not {type(given).__name__}")
        if rate is not None and not rate > 0:
            raise ValueError(f"rate must be more than 0 bytes per second, or None, not {rate}")
        self.rate = rate
        self._now, self._sleep = now, sleep
        self._due = now()

    async def wait(self, size_bytes: int) -> None:
        """Count ``size_bytes``, and wait until the next ones may follow."""
        if self.rate is None:
            return
        now = self._now()
        self._due = max(self._due, now - _CATCH_UP_S) + size_bytes / self.rate
        if self._due > now:
            await self._sleep(self._due - now)
