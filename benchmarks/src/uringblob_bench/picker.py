"""Chooses the next frame: every frame once in random order, then again in the same order.

Workers share one order and begin at places spread over it: to shuffle 16,384 numbers for each of 64 takes a second.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator

#: Multiples of the golden ratio lie apart from each other, however many there are.
_GOLDEN = (5**0.5 - 1) / 2


class Picker:
    """Yields frame numbers below ``count`` without end; with ``once`` each number once.

    :raises Exhausted: by :meth:`one` and :meth:`some`, when ``once`` and no number is left.
    """

    def __init__(self, count: int, *, seed: int = 0, once: bool = False) -> None:
        first = int(seed * _GOLDEN % 1 * count)
        shuffled = _shuffled(count)
        order = shuffled[first:] + shuffled[:first]
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


@functools.lru_cache(maxsize=4)
def _shuffled(count: int) -> list[int]:
    order = list(range(count))
    random.Random(count).shuffle(order)  # noqa: S311 - a benchmark repeats itself
    return order


class Exhausted(Exception):
    """Every frame number was returned once."""
