"""Which frame is next: every frame once in random order, then again in the same order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator


class Picker:
    """An endless supply of frame numbers below ``count``; with ``once`` each comes once only.

    :raises Exhausted: by :meth:`one` and :meth:`some`, when ``once`` and all were had.
    """

    def __init__(self, count: int, *, seed: int = 0, once: bool = False) -> None:
        order = list(range(count))
        random.Random(seed).shuffle(order)  # noqa: S311 - a benchmark repeats itself from its seed
        self._numbers: Iterator[int] = iter(order) if once else itertools.cycle(order)

    def one(self) -> int:
        """Return the next frame's number."""
        for number in self._numbers:
            return number
        raise Exhausted

    def some(self, count: int) -> list[int]:
        """Return ``count`` numbers."""
        found = list(itertools.islice(self._numbers, count))
        if len(found) < count:
            raise Exhausted
        return found


class Exhausted(Exception):
    """Every frame was had once."""
