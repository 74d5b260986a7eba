"""The end of a ring: closed, abandoned, forked, collected."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import gc
import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.slab import Slab
from uringblob.completion import Completion
from uringblob.ring import Ring, SqeFlags, driver

_spec = importlib.util.spec_from_file_location("ring_faulty", Path(__file__).with_name("faulty.py"))
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
FaultyLib = _module.FaultyLib


def test_close_waits_for_everything_also_for_what_was_not_submitted(file):
    ring = Ring(8)
    slab = Slab(4096, 1)
    reads = [ring.read(file, 4096, slab.frame(0)) for _ in range(100)]
    ring.close()
    assert [read.result() for read in reads] == [4096] * 100
    ring.close()


async def test_aclose_waits_for_everything(pipe):
    ring = Ring(8, loop=asyncio.get_running_loop())
    read = ring.read(pipe[0], 0, Slab(4096, 1).frame(0))
    closing = asyncio.ensure_future(ring.aclose())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not closing.done()
    os.write(pipe[1], b"xyz")
    await closing
    assert read.result() == 3
    await ring.aclose()


async def test_aclose_waits_for_everything_also_if_memory_is_short_for_a_moment(pipe, monkeypatch):
    """A ring that did not wait outlived its loop, with its descriptor."""
    tries = []

    def scarce(*, loop):
        tries.append(loop)
        if len(tries) == 1:
            raise MemoryError
        return Completion(loop=loop)

    ring = Ring(8, loop=asyncio.get_running_loop())
    read = ring.read(pipe[0], 0, Slab(4096, 1).frame(0))
    monkeypatch.setattr(driver, "Completion", scarce)
    closing = asyncio.ensure_future(ring.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    os.write(pipe[1], b"xyz")
    await closing
    assert (len(tries), read.result(), ring._c_ring.fd) == (2, 3, -1)


async def test_cancelling_aclose_does_not_stop_it(pipe):
    ring = Ring(8, loop=asyncio.get_running_loop())
    read = ring.read(pipe[0], 0, Slab(4096, 1).frame(0))
    closing = asyncio.ensure_future(ring.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.sleep(0)
    assert not closing.done()
    os.write(pipe[1], b"xyz")
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert read.result() == 3
    assert ring._c_ring.fd == -1


async def test_two_acloses_wait_for_the_same_end(pipe):
    ring = Ring(8, loop=asyncio.get_running_loop())
    ring.read(pipe[0], 0, Slab(4096, 1).frame(0))
    closings = [asyncio.ensure_future(ring.aclose()) for _ in range(2)]
    await asyncio.sleep(0)
    os.write(pipe[1], b"x")
    await asyncio.gather(*closings)


def test_use_after_close_is_a_runtime_error(file):
    ring = Ring(8)
    ring.close()
    calls = [
        ring.nop,
        lambda: ring.submit([]),
        lambda: ring.fsync(file),
        lambda: ring.register_files([file]),
        lambda: ring.register_slab(Slab(4096, 1)),
        lambda: ring.supports(0),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="closed"):
            call()
    assert ring.closed


def test_files_and_buffers_are_unregistered_before_the_ring_is_left(disk_dir):
    """Else the kernel keeps the lock, and the pinned memory, for a while after close."""
    path = disk_dir / "locked"
    for _ in range(50):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ring = Ring(8)
        ring.register_files([fd])
        slab = Slab(4096, 4)
        ring.register_slab(slab)
        assert ring.wait(ring.write_fixed(0, 0, slab.frame(0, 0), flags=SqeFlags.FIXED_FILE)) == 4096
        ring.close()
        os.close(fd)


def in_child(work):
    """Fork, run ``work``, and return its exit status: 0 if it returned true."""
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_cannot_use_the_ring_and_its_close_changes_nothing(ring, pipe):
    read = ring.read(pipe[0], 0, Slab(4096, 1).frame(0))
    ring.flush()

    def child():
        try:
            ring.wait(read)
        except RuntimeError as error:
            refused = "parent" in str(error)
        ring.close()
        return refused and ring._c_ring.fd == -1

    assert in_child(child) == 0
    assert ring.in_flight == 1
    os.write(pipe[1], b"x")
    assert ring.wait(read) == 1


def test_a_forked_child_closes_its_copy_at_once(ring):
    assert in_child(lambda: ring._c_ring.fd == -1) == 0
    assert ring.wait(ring.nop()) == 0


async def test_a_child_that_abandons_leaves_the_parents_reader(loop_ring):
    assert await loop_ring.nop() == 0

    def child():
        loop_ring.abandon()
        return loop_ring.closed

    assert in_child(child) == 0
    assert await asyncio.gather(*(loop_ring.nop() for _ in range(50))) == [0] * 50


async def test_abandoned_on_a_living_loop_it_ends_when_all_has_completed(pipe):
    ring = Ring(8, loop=asyncio.get_running_loop())
    frame = Slab(4096, 1).frame(0)
    read = ring.read(pipe[0], 0, frame)
    ring.abandon()
    with pytest.raises(RuntimeError, match="closed"):
        ring.nop()
    os.write(pipe[1], b"x")
    assert await read == 1
    while ring._c_ring.fd >= 0:
        await asyncio.sleep(0)


async def test_abandoned_before_anything_has_completed_it_ends_with_the_last(pipe):
    ring = Ring(8, loop=asyncio.get_running_loop())
    reads = [ring.read(pipe[0], 0, Slab(4096, 1).frame(0)) for _ in range(2)]
    ring.abandon()
    for ended in (1, 2):
        await a_few_rounds()
        assert ring._c_ring.fd >= 0, "the kernel may still write"
        os.write(pipe[1], b"x")
        while sum(read.done() for read in reads) < ended:
            await asyncio.sleep(0)
    while ring._c_ring.fd >= 0:
        await asyncio.sleep(0)


async def test_abandoned_while_it_is_closed_both_wait_for_the_same_end(pipe):
    ring = Ring(8, loop=asyncio.get_running_loop())
    ring.read(pipe[0], 0, Slab(4096, 1).frame(0))
    closing = asyncio.ensure_future(ring.aclose())
    await a_few_rounds()
    ring.abandon()
    await a_few_rounds()
    assert not closing.done()
    os.write(pipe[1], b"x")
    await closing
    await a_few_rounds()
    assert ring._c_ring.fd == -1


async def test_abandoning_twice_frees_once():
    ring = Ring(8, loop=asyncio.get_running_loop())
    ring.abandon()
    ring.abandon()
    await a_few_rounds()
    assert ring._c_ring.fd == -1


async def a_few_rounds():
    for _ in range(3):
        await asyncio.sleep(0)


def test_abandoned_without_a_loop_it_keeps_the_memory_that_the_kernel_may_write(pipe):
    ring = Ring(8)
    freed = {0: "leased"}
    read_into_exporter(ring, pipe, freed)
    ring.abandon()
    assert ring._c_ring.fd == -1
    del ring
    gc.collect()
    assert freed
    os.write(pipe[1], b"x")  # here a ring that let go of the memory would be corruption


def test_abandoned_idle_and_without_a_loop_it_is_freed_at_once():
    ring = Ring(8)
    fd = ring._c_ring.fd
    assert ring.wait(ring.nop()) == 0
    ring.abandon()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)


def test_abandoned_in_the_moment_in_which_its_loop_is_closed(pipe):
    """The loop is not closed when it is asked whether, and refuses the call that follows."""

    class Closing:
        def __init__(self, loop):
            self.is_closed = loop.is_closed

        def call_soon_threadsafe(self, *_):
            raise RuntimeError("Event loop is closed")

    loop = asyncio.new_event_loop()
    ring = Ring(8, loop=loop)
    freed = {0: "leased"}
    read_into_exporter(ring, pipe, freed)
    loop.remove_reader(ring._c_ring.fd)
    ring._loop = Closing(loop)
    ring.abandon()
    loop.close()
    assert ring._c_ring.fd == -1
    del ring
    gc.collect()
    assert freed


def test_a_close_that_the_kernel_refuses_to_wait_for_is_raised_and_keeps_the_memory(pipe):
    ring = Ring(8)
    freed = {0: "leased"}
    read_into_exporter(ring, pipe, freed)
    FaultyLib(ring, waits=[-errno.EPERM])
    with pytest.raises(OSError, match="waiting for a completion") as raised:
        ring.close()
    assert raised.value.errno == errno.EPERM
    assert ring._c_ring.fd == -1
    ring.close()
    del ring, raised
    gc.collect()
    assert freed


def test_close_blocks_until_the_last_has_completed(pipe):
    ring = Ring(8)
    read = ring.read(pipe[0], 0, Slab(4096, 1).frame(0))
    faulty = FaultyLib(ring)
    real = faulty._lib

    class WritesFirst:
        def __getattr__(self, name):
            return getattr(real, name)

        def ub_wait(self, core):
            os.write(pipe[1], b"x")
            return real.ub_wait(core)

    faulty._lib = WritesFirst()
    ring.close()
    assert read.result() == 1
    assert ring._c_ring.fd == -1


def read_into_exporter(ring, pipe, freed):
    """Let the kernel write into memory that is taken out of ``freed`` when it is released."""
    slab = Slab(4096, 1)
    exporter = slab.exporter(0, freed.pop)
    ring.read(pipe[0], 0, IoBuffer(memoryview(exporter), slab.address, 4096))
    ring.flush()


def step_into_aclose(ring):
    """Return a coroutine of ``aclose`` that waits."""
    closing = ring.aclose()
    closing.send(None)
    return closing


def drop(closing, _loop):
    closing.close()


def throw(closing, _loop):
    with pytest.raises(ZeroDivisionError):
        closing.throw(ZeroDivisionError)


def close_the_loop_and_drop(closing, loop):
    loop.close()
    closing.close()


def drop_elsewhere(closing, _loop):
    """As the garbage collector, which runs in any thread."""
    elsewhere = threading.Thread(target=closing.close)
    elsewhere.start()
    elsewhere.join()


@pytest.mark.parametrize(
    "end", [drop, throw, close_the_loop_and_drop, drop_elsewhere], ids=lambda f: f.__name__
)
def test_an_aclose_that_ends_before_its_condition_frees_nothing_that_the_kernel_may_write(pipe, end):
    loop = asyncio.new_event_loop()
    ring = Ring(8, loop=loop)
    freed = {0: "leased"}
    read_into_exporter(ring, pipe, freed)
    end(step_into_aclose(ring), loop)
    assert freed, "the kernel may still write"
    with pytest.raises(RuntimeError, match="closed"):
        ring.nop()
    os.write(pipe[1], b"x")
    if not loop.is_closed():
        # Then the loop frees it when all operations have ended.
        assert ring._c_ring.fd >= 0
        while ring._c_ring.fd >= 0:
            loop.run_until_complete(asyncio.sleep(0))
        del ring
        gc.collect()
        assert not freed
        loop.close()


def test_an_aclose_that_is_collected_with_its_ring_and_its_loop_frees_nothing_either(pipe):
    loop = asyncio.new_event_loop()
    ring = Ring(8, loop=loop)
    freed = {0: "leased"}
    read_into_exporter(ring, pipe, freed)
    closing = step_into_aclose(ring)
    fd = ring._c_ring.fd
    loop.close()
    del ring, closing, loop
    gc.collect()
    assert freed
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)
    os.write(pipe[1], b"x")


def test_of_two_acloses_one_may_be_dropped(pipe):
    loop = asyncio.new_event_loop()
    ring = Ring(8, loop=loop)
    freed = {0: "leased"}
    read_into_exporter(ring, pipe, freed)
    closing = ring.aclose()
    dropped = loop.create_task(closing)
    other = loop.create_task(ring.aclose())
    loop.run_until_complete(asyncio.sleep(0))
    closing.close()
    loop.run_until_complete(asyncio.sleep(0))
    assert freed
    assert not other.done()
    os.write(pipe[1], b"x")
    loop.run_until_complete(other)
    assert ring._c_ring.fd == -1
    with pytest.raises(RuntimeError, match="already awaited"):
        loop.run_until_complete(dropped)
    loop.close()


async def test_an_aclose_that_another_loop_refuses_to_wait_for_frees_nothing(pipe):
    ring = Ring(8)  # without a loop
    freed = {0: "leased"}
    read_into_exporter(ring, pipe, freed)
    with pytest.raises(RuntimeError):
        await ring.aclose()
    assert ring._c_ring.fd == -1
    del ring
    gc.collect()
    assert freed
    os.write(pipe[1], b"x")


async def test_an_aclose_that_there_is_no_memory_to_begin_frees_nothing(pipe, monkeypatch):
    ring = Ring(8, loop=asyncio.get_running_loop())
    freed = {0: "leased"}
    read_into_exporter(ring, pipe, freed)

    def flush(_ring):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Ring, "flush", flush)
        with pytest.raises(MemoryError):
            await ring.aclose()
    assert freed
    await a_few_rounds()
    assert ring._c_ring.fd >= 0
    os.write(pipe[1], b"x")
    while ring._c_ring.fd >= 0:
        await asyncio.sleep(0)


def test_a_ring_forgotten_while_the_kernel_may_still_write_keeps_the_memory(pipe):
    ring = Ring(8)
    freed = {0: "leased"}
    read_into_exporter(ring, pipe, freed)
    with pytest.warns(ResourceWarning, match="unclosed <Ring of 8 entries, 1 in flight"):
        del ring
        gc.collect()
    assert freed


def test_a_ring_forgotten_while_idle_warns_and_is_freed():
    ring = Ring(8)
    fd = ring._c_ring.fd
    with pytest.warns(ResourceWarning, match="unclosed"):
        del ring
        gc.collect()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)


def test_a_ring_that_could_not_be_made_leaves_nothing_behind():
    with pytest.raises(OSError, match="EINVAL"):
        Ring(0)


def test_a_process_may_end_with_operations_in_flight():
    code = """
        import os
        from uringblob.ring import Ring
        from uringblob.buffers.slab import Slab
        ring = Ring(8)
        ring.read(os.pipe()[0], 0, Slab(4096, 1).frame(0))
        ring.flush()
        print("ended")
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert (child.returncode, child.stdout) == (0, "ended\n")
