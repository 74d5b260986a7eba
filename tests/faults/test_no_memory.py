"""The n-th of our own mmap and registration calls fails, for every n (row 16).

``MemoryError``, or what is documented instead: the pread engine, fewer registered frames, a refused
engine.  The store goes on or is poisoned, and nothing leaks.  (The C half's own callocs are
seen from here as their callers' ``-ENOMEM``.)

Found here: out of memory for a log block, or for the trial of O_DIRECT, was an ``OSError`` that no
caller expects.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import os
import sys
from unittest import mock

import pytest

from behaviour.work import fill, frame, guid, missing
from uringblob import AsyncFileBlobStore, BlobStoreError, EngineUnavailable, StorePoisoned, _native
from uringblob.ring import submission as queue

pytestmark = pytest.mark.one_interpreter

PAGE = 4096
#: Calls of C that the kernel may answer with ENOMEM.
C_CALLS = ["ub_open", "ub_probe", "ub_register_files", "ub_register_buffers"]


class NthFails:
    """Counts mappings and C calls, and fails the ``nth`` of them, or every one from there on."""

    def __init__(self, nth, *, forever):
        self.count = -1
        self._nth = nth
        self._forever = forever
        self.struck = []

    def _strikes(self, what):
        self.count += 1
        strikes = self.count == self._nth or (self._forever and self.count > self._nth)
        if strikes:
            self.struck.append(what)
        return strikes

    @contextlib.contextmanager
    def armed(self):
        real = mmap.mmap
        nth = self

        class Mapping(real):
            def __new__(cls, *args, **kwargs):
                ours = sys._getframe(1).f_globals["__name__"].startswith("uringblob")  # not the order monitor
                if ours and nth._strikes("mmap"):
                    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
                return real(*args, **kwargs)

        def guarded(name):
            call = getattr(_native.lib, name)
            return lambda *args: -errno.ENOMEM if self._strikes(name) else call(*args)

        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(mmap, "mmap", Mapping))
            if _native.lib is not None:
                lib = mock.Mock(wraps=_native.lib, **{name: guarded(name) for name in C_CALLS})
                lib.UB_MISMATCH = _native.lib.UB_MISMATCH  # a number, which a mock does not wrap
                stack.enter_context(mock.patch.object(_native, "lib", lib))
            yield


async def live(path, engine, errors):
    """Open, change, read, close; what is refused for lack of memory goes to ``errors``."""
    store = await AsyncFileBlobStore.open(path, engine=engine, buffers=2)
    try:
        for n in range(4):
            with _refused(errors):
                buffer = store.alloc_blob_buf_uninit()  # the third one lies on the heap
                buffer.view[:] = frame(n, PAGE, 1)
                await store.write_blob(guid(n), buffer)
                if n % 2:
                    buffer.release()
        for change in (
            lambda: store.flush(),
            lambda: store.commit([(guid(n), b"%4096d" % n) for n in (10, 11)], [guid(3)]),
            lambda: store.read_blob(guid(1), bytearray(PAGE)),
            lambda: store.verify(),
            lambda: store._core.maintenance.start_compaction(),
            lambda: store.commit([(guid(12), frame(12, PAGE))]),
        ):
            with _refused(errors):
                await change()
    finally:
        buffer = None
        poisoned = store.stats().poisoned
        with _refused(errors):
            await store.aclose()
    return poisoned


@contextlib.contextmanager
def _refused(errors):
    try:
        yield
    except (MemoryError, BlobStoreError) as error:
        errors.append(error)


@pytest.mark.parametrize("forever", [False, True], ids=["once", "on"])
@pytest.mark.parametrize("engine", ["auto", "io_uring", "pread"])
async def test_every_call_that_asks_for_memory(quick_path, uring_missing, engine, forever):
    if engine == "io_uring" and uring_missing:
        pytest.skip(uring_missing)
    async with AsyncFileBlobStore.open(quick_path, page_size=PAGE) as store:
        await fill(store, range(3))
    with open(quick_path, "rb") as file:
        template = file.read()
    before = set(os.listdir("/proc/self/fd"))
    for nth in itertools.count():
        failing = NthFails(nth, forever=forever)
        try:
            await strike(quick_path, template, engine, failing)
            assert set(os.listdir("/proc/self/fd")) == before, "a descriptor leaked"
        except Exception as error:
            raise AssertionError(
                f"{error!r}\nreplay: {engine=} {nth=} {forever=} {failing.struck}"
            ) from error
        if not failing.struck:
            break
    assert nth > 5


async def strike(path, template, engine, failing):
    with open(path, "wb") as file:
        file.write(template)
    errors, poisoned = [], ""
    with failing.armed():
        try:
            poisoned = await live(path, engine, errors)
        except (MemoryError, EngineUnavailable) as error:
            errors.append(error)  # it could not be opened
    for error in errors:
        assert isinstance(error, (MemoryError, EngineUnavailable, StorePoisoned)), repr(error)
        assert poisoned or not isinstance(error, StorePoisoned)
    async with AsyncFileBlobStore.open(path, engine="pread") as store:
        assert (await store.verify()).ok
        assert not set(await missing(store, [2])) or await store.has_blob(guid(2))
        await store.commit([(guid(1), frame(1, PAGE, 5))])
        assert not await missing(store, [1], 5)


async def test_a_submission_that_runs_out_of_memory_is_sent_later(needs_uring, quick_path):
    """Found here: with nothing in the kernel's hands nobody looked at it again, and its caller hung."""
    async with AsyncFileBlobStore.open(quick_path, engine="io_uring", page_size=PAGE) as store:
        await fill(store, range(3))
        real = queue.SubmissionQueue._enter
        left = [MemoryError(), MemoryError()]

        def enter(self, ops):
            if left:
                raise left.pop()
            return real(self, ops)

        store._loop.set_exception_handler(lambda _loop, context: None)
        with mock.patch.object(queue.SubmissionQueue, "_enter", enter):
            assert not await missing(store, range(3))
            await store.commit([(guid(4), frame(4, PAGE))])
        assert not left
