"""Groups that are written by callbacks: simulated engines that end requests oddly, and a census.

The census counts how the groups of small commits went on, so that an explorer can show that it met each way.
"""

from __future__ import annotations

import collections
import contextlib
from unittest import mock

from uringblob.store.log.flat_group import FlatGroup
from uringblob.store.log.group_commit import GroupQueue
from uringblob.testing.sim.engine import SimEngine


class _Twice:
    """A sink that is given each answer twice."""

    light = False

    def __init__(self, sink) -> None:
        self._sink = sink
        self.keep = None

    def complete(self, result, mismatch=0):
        self._sink.complete(result, mismatch)
        self._sink.complete(result, mismatch)

    def reject(self, error):
        self._sink.reject(error)


@contextlib.contextmanager
def stuttering():
    """Each answer into a sink is given twice, as after a signal handler that raised in the reaper."""

    def twice(name):
        real = getattr(SimEngine, name)
        return mock.patch.object(
            SimEngine, name, lambda self, *arguments: real(self, *arguments[:-1], _Twice(arguments[-1]))
        )

    with twice("start_read"), twice("start_write"), twice("start_sync"):
        yield


@contextlib.contextmanager
def pushing_ends_requests():
    """A push ends requests, as the ring's does where the kernel refuses them for good."""

    def push(self):
        while self._rng is not None and self._waiting and self._rng.random() < 0.5:
            self._waiting.pop(self._rng.randrange(len(self._waiting)))()

    def pushed(name):
        real = getattr(SimEngine, name)

        def ask(self, *arguments):
            push(self)
            return real(self, *arguments)

        return mock.patch.object(SimEngine, name, ask)

    with mock.patch.object(SimEngine, "push", push), pushed("start_read"), pushed("start_write"):
        yield


@contextlib.contextmanager
def census():
    """Yield a counter of small groups begun, and of how they went on."""
    seen: collections.Counter[str] = collections.Counter()
    start, landed, give_up = FlatGroup.start, FlatGroup._landed, FlatGroup._give_up
    of, end_group = FlatGroup.of, GroupQueue.end_group

    def starting(self):
        seen["begun"] += 1
        start(self)

    def landing(self, pending):
        if pending.result != pending.size_bytes and not self._over:
            seen["failed" if pending.result < 0 else "short"] += 1
            if pending is self._block:
                seen["its block"] += 1
        landed(self, pending)

    def giving_up(self, error=None):
        if self._over:
            pass  # a second answer
        elif error is not None:
            seen["not formed"] += 1
        elif self._synced is None:
            poisoned = self._file_io.poison_cause is not None
            seen["not synced: " + ("poisoned" if poisoned else "a write, or another sync")] += 1
        else:
            seen["synced: " + ("failed" if self._synced < 0 else "overlapped")] += 1
        give_up(self, error)

    def ending(self, group):
        if group is self._group:
            seen["durable"] += 1
            seen["closing"] += bool(self._writer.maintenance._ended)
        end_group(self, group)

    def picking(cls, writer, members, groups):
        group = of(writer, members, groups)
        if group is None:
            seen["by a coroutine"] += 1
            if writer.active.exclusive.locked():
                seen["by a coroutine: the log is held"] += 1
            elif writer.active.log.room < 1 or not writer.maintenance.log_fits(1):
                seen["by a coroutine: no room"] += 1
            elif not writer.file_io.takes_changes:
                seen["by a coroutine: poisoned, or a repair is due"] += 1
        return group

    with (
        mock.patch.object(FlatGroup, "start", starting),
        mock.patch.object(FlatGroup, "_landed", landing),
        mock.patch.object(FlatGroup, "_give_up", giving_up),
        mock.patch.object(FlatGroup, "of", classmethod(picking)),
        mock.patch.object(GroupQueue, "end_group", ending),
    ):
        yield seen
