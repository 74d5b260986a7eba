"""A kernel in a bad mood: it takes few or no requests, interrupts waits, lets its queues run full.

Every mood is one that ``io_uring_enter`` has: none harms a request, each only puts it off.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import random
from unittest import mock

from uringblob import _native

REFUSALS = [-errno.EAGAIN, -errno.EBUSY, -errno.EINTR]


class StormyDoor:
    """``lib``, except that every other submission is refused or cut; ``seen`` counts each branch."""

    def __init__(self, lib, seed, chance=0.5):
        self._lib = lib
        self._dice = random.Random(seed)
        self._chance = chance
        self.seen = collections.Counter()

    def __getattr__(self, name):
        return getattr(self._lib, name)

    def ub_submit(self, core, ops, count):
        if count == core.sq_entries:
            self.seen["submission queue full"] += 1
        if self._dice.random() >= self._chance:
            return self._lib.ub_submit(core, ops, count)
        if count > 1 and self._dice.random() < 0.5:
            self.seen["took a part"] += 1
            return self._lib.ub_submit(core, ops, self._dice.randrange(1, count))
        answer = self._dice.choice([*REFUSALS, 0])
        self.seen[errno.errorcode.get(-answer, "took nothing")] += 1
        return answer

    def ub_push(self, core):
        if self._dice.random() >= self._chance:
            return self._lib.ub_push(core)
        answer = self._dice.choice([*REFUSALS, 0])
        self.seen[errno.errorcode.get(-answer, "took nothing")] += 1
        return answer

    def ub_reap(self, core, bytes_max):
        before = core.enters
        count = self._lib.ub_reap(core, bytes_max)
        # It enters only where the kernel says that it holds completions back.
        self.seen["completion queue overflow"] += core.enters - before
        return count

    def ub_wait(self, core):
        if self._dice.random() >= self._chance:
            return self._lib.ub_wait(core)
        answer = self._dice.choice(REFUSALS)
        self.seen[f"{errno.errorcode[-answer]} in a wait"] += 1
        return answer


@contextlib.contextmanager
def storm(seed, chance=0.5):
    """While entered, the rings that are made go through a :class:`StormyDoor`."""
    door = StormyDoor(_native.lib, seed, chance)
    with mock.patch.object(_native, "lib", door):
        yield door
