"""Chooses the next frame: every frame once in random order, then again in the same order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator


class Picker:
    """Yields frame numbers below ``count`` without end; with ``once`` each number once.

    :raises Exhausted: by :meth:`one` and :meth:`some`, when ``once`` and no number is left.
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
    """Every frame number was returned once."""
