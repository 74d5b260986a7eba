"""Planted bugs of the real engines: found where these work on real files."""

from __future__ import annotations

import collections
import contextlib
import errno
import os
from unittest import mock

from uringblob import tuning
from uringblob.engines.pread import engine as pread
from uringblob.engines.uring import engine as uring
from uringblob.ring import Op
from uringblob.ring.completions import _COMPLETION, _SIZE, InFlight
from uringblob.ring.driver import RingDriver
from uringblob.ring.submission import SubmissionQueue


@contextlib.contextmanager
def interrupted_wait_takes_the_next_completion():
    """After EINTR, whoever has waited longest takes the next completion for his own.

    So nobody looks at whose it is; the one it belongs to gets the other's, when that comes.
    """
    interrupted: set[object] = set()
    #: Per ring: whose completion will go to whom.
    mistaken: dict[object, dict[int, int]] = collections.defaultdict(dict)
    #: The bug is wrong bytes, not a crash: memory is kept until the kernel has done with it.
    kept: dict[object, dict[int, object]] = collections.defaultdict(dict)
    enter, block = SubmissionQueue._enter, RingDriver._block

    def entering(self, ops):
        taken = enter(self, ops)
        if taken == -errno.EINTR:
            interrupted.add(self._c_ring)
        return taken

    def blocking(self):
        block(self)
        interrupted.add(self._c_ring)

    def reap(self):
        total, swaps, used = 0, mistaken[self._c_ring], kept[self._c_ring]
        while (count := self.lib.ub_reap(self._c_ring, tuning.CHECKED_BYTES_AT_ONCE)) > 0:
            for user_data, result, _flags in _COMPLETION.iter_unpack(self._cqe_buffer[: count * _SIZE]):
                used.pop(user_data, None)
                owner = swaps.pop(user_data, user_data)
                if self._c_ring in interrupted and owner in self.table:
                    oldest = next(iter(self.table))
                    swaps[next((each for each, to in swaps.items() if to == oldest), oldest)] = owner
                    owner = oldest
                    interrupted.discard(self._c_ring)
                if owner != user_data:
                    used[owner] = self.table.get(owner)
                self.complete(owner, result)
            self._c_ring.consumed = 1
            total += count
        return total

    with (
        mock.patch.object(SubmissionQueue, "_enter", entering),
        mock.patch.object(RingDriver, "_block", blocking),
        mock.patch.object(InFlight, "reap", reap),
    ):
        yield


@contextlib.contextmanager
def link_broken():
    """The fsync of a gathered write goes out beside it, not behind it."""
    with mock.patch.object(Op, "link", lambda self: self):
        yield


@contextlib.contextmanager
def wrong_file_flushed_by_the_ring():
    with (
        _other_file() as other,
        mock.patch.object(uring, "_FDATASYNC", uring._FDATASYNC._replace(file=other, flags=0)),
        # A staged one is always on the registered file.
        mock.patch.object(uring.UringEngine, "start_sync", return_value=False),
    ):
        yield


@contextlib.contextmanager
def wrong_file_flushed_by_a_thread():
    with (
        _other_file() as other,
        mock.patch.object(pread, "sync_file", lambda calls, _fd: calls.sync(other) or 0),
    ):
        yield


@contextlib.contextmanager
def _other_file():
    other = os.open(os.path.dirname(__file__), os.O_RDONLY)
    try:
        yield other
    finally:
        os.close(other)


#: Bug: the hunt that finds it.
PLANTED_IN_ENGINES = {
    interrupted_wait_takes_the_next_completion: "a busy kernel",
    link_broken: "the trace of io_uring",
    wrong_file_flushed_by_the_ring: "the trace of io_uring",
    wrong_file_flushed_by_a_thread: "the trace of pread",
}
