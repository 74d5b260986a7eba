"""The n-th allocation of each hand-over fails, for every n: from thread to loop, from job to waiter (row 24).

Every call ends: with what it came to, or with ``MemoryError``.  The store goes on or is poisoned, what was
acknowledged is there after the next opening, and closing closes.

One failed allocation while the store's thread began a call left its caller, and all behind him, waiting for
ever.  Found here: asyncio drops a future's callbacks where it has no memory to schedule them, and the ring
never submitted again when its tick could not be scheduled; a commit that could not begin a group left its
frames' slots to the next group and to the next writer both.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from unittest import mock

import pytest

import seeds
from behaviour.work import frame, guid
from uringblob import BlobNotFound, BlobStoreError, FileBlobStore, StorePoisoned
from uringblob.completion import Completion
from uringblob.sync.call import LoopCall

pytestmark = pytest.mark.one_interpreter

PAGE = 4096
PATIENCE = 60  # seconds until a call that does not end fails the test
BLOBS = 6


class NthFails:
    """Counts what a hand-over allocates, and fails the ``nth``."""

    def __init__(self, nth):
        self.count = -1
        self.nth = nth
        self.struck = ""

    def strike(self, what):
        self.count += 1
        if self.count == self.nth:
            self.struck = what
            raise MemoryError(what)

    def guard(self, function, what):
        """Return ``function``, whose calls count; those of an engine's own threads do not."""

        def guarded(*args, **options):
            if "pread" not in threading.current_thread().name:
                self.strike(what)
            return function(*args, **options)

        return guarded

    @contextlib.contextmanager
    def armed(self, store):
        """While this lasts, what ``store`` allocates counts."""
        loop = store._handle._loop._loop

        def completion_init(completion, *, loop):
            self.strike("a completion")
            asyncio.Future.__init__(completion, loop=loop)

        with contextlib.ExitStack() as stack:
            for name in ("call_soon", "call_later", "call_soon_threadsafe", "create_task"):
                guarded = self.guard(getattr(loop, name), name)
                stack.enter_context(mock.patch.object(loop, name, guarded))
            # (A future's first callback, by which a task waits for it, takes no memory.)
            for owner, name in ((Completion, "add_immediate_callback"), (LoopCall, "__init__")):
                guarded = self.guard(getattr(owner, name), f"{owner.__name__}.{name}")
                stack.enter_context(mock.patch.object(owner, name, guarded))
            stack.enter_context(mock.patch.object(Completion, "__init__", completion_init))
            yield


def live(store, ended):
    """Use ``store`` from two threads; note of each call how it ended."""

    def commits(first):
        for n in range(first, BLOBS, 2):
            note(f"commit {n}", lambda n=n: store.commit([(guid(n), frame(n, PAGE))]))

    def note(what, call):
        try:
            call()
        except (MemoryError, BlobStoreError) as error:
            ended[what] = error
        else:
            ended[what] = None

    other = threading.Thread(target=commits, args=(1,), daemon=True)
    other.start()
    commits(0)
    other.join()
    note("writes", lambda: store.write_blobs([(guid(n), frame(n, PAGE)) for n in (20, 21)]))
    note("synced writes", lambda: store.write_blobs_with_data_sync([(guid(22), frame(22, PAGE))]))
    note("reads", lambda: store.read_blobs([(guid(n), bytearray(PAGE)) for n in range(4)]))
    note("names", store.list_blobs)
    note("flush", store.flush)
    note("deletion", lambda: store.commit(deletes=[guid(20)]))
    note("verify", lambda: store.verify(lambda done, total: None))


def strike(path, engine, failing):
    store = FileBlobStore.open(path, engine=engine, page_size=PAGE, buffers=2)
    store._handle._loop._loop.set_exception_handler(lambda _loop, context: None)
    ended = {}

    def use():
        with failing.armed(store):
            live(store, ended)
            with contextlib.suppress(MemoryError, BlobStoreError):
                ended["close"] = store.close()

    user = threading.Thread(target=use, daemon=True)
    user.start()
    user.join(PATIENCE)
    assert not user.is_alive(), f"a call has not ended, after {list(ended)}"
    assert store.closed
    store._handle._loop.thread.join(PATIENCE)  # a close that could not wait has asked it to leave
    assert not store._handle._loop.thread.is_alive()
    poisoned = any(isinstance(error, StorePoisoned) for error in ended.values())
    for what, error in ended.items():
        unknown = isinstance(error, BlobNotFound)
        assert unknown or error is None or isinstance(error, (MemoryError, StorePoisoned)), (
            what,
            repr(error),
        )
    assert poisoned or sum(error is not None for error in ended.values()) <= 3
    with FileBlobStore.open(path, engine="pread") as store:
        assert store.verify().ok
        for n in range(BLOBS):
            if ended[f"commit {n}"] is None:
                got = bytearray(PAGE)
                store.read_blob(guid(n), got)
                assert got == frame(n, PAGE), f"commit {n} was acknowledged"
        store.commit([(guid(n), frame(n, PAGE, 1)) for n in range(BLOBS)])
        assert store.verify().ok
    os.unlink(path)


def test_every_allocation_of_a_hand_over(quick_path, uring_missing, count_row):
    """The engines take turns, and change places with the next commit."""
    engines = ["pread"] if uring_missing else ["io_uring", "pread"]
    before = set(os.listdir("/proc/self/fd"))
    beyond = 0
    for nth in itertools.count():
        failing = NthFails(nth)
        engine = engines[(nth + seeds.number()) % len(engines)]
        try:
            strike(quick_path, engine, failing)
            assert set(os.listdir("/proc/self/fd")) == before, "a descriptor leaked"
        except Exception as error:
            raise AssertionError(f"{error!r}\nreplay: {engine=} {nth=} {failing.struck}") from error
        beyond = 0 if failing.struck else beyond + 1
        if beyond == len(engines):
            break
    assert nth > 50
    count_row(24, **{"failed allocations of hand-overs": nth + 1 - beyond})
