"""A real file system that fails on request (FUSE): errors come up through the kernel, not from a seam."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes.util
import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from behaviour.work import fill, frame, guid, missing
from uringblob import AsyncFileBlobStore, BlobStoreIOError, StorePoisoned

pytestmark = [pytest.mark.one_interpreter, pytest.mark.usefixtures("needs_root")]

PAGE = 4096
TESTS = Path(__file__).resolve().parents[1]


class Faulty:
    """A mounted pass-through: ``path`` is a store on it; ``plan`` says what fails from now on."""

    def __init__(self, mountpoint, plan_file):
        self.path = mountpoint / "store.blobs"
        self._plan_file = plan_file
        self.plan()

    def plan(self, **what):
        new = self._plan_file.with_suffix(".new")
        new.write_text(json.dumps(what))
        os.replace(new, self._plan_file)


@pytest.fixture
def faulty(disk_dir):
    installed = shutil.which("fusermount3") and ctypes.util.find_library("fuse3")
    if not os.path.exists("/dev/fuse") or not installed:
        pytest.skip("n/a: no FUSE 3 here (Debian: fuse3)")
    if importlib.util.find_spec("mfusepy") is None:
        pytest.skip("n/a: no mfusepy here")
    root, mountpoint, plan = disk_dir / "root", disk_dir / "mount", disk_dir / "plan.json"
    root.mkdir()
    mountpoint.mkdir()
    made = Faulty(mountpoint, plan)
    command = [sys.executable, "-m", "faults.fuse_passthrough", *map(str, (root, mountpoint, plan))]
    server = subprocess.Popen(command, cwd=TESTS, stderr=subprocess.PIPE)
    try:
        while not os.path.ismount(mountpoint):
            if server.poll() is not None:
                pytest.skip(f"n/a: FUSE does not mount here: {server.stderr.read().decode()[-200:]}")
            os.sched_yield()
        yield made
    finally:
        made.plan()
        subprocess.run(["fusermount3", "-u", "-z", str(mountpoint)], check=False, capture_output=True)
        server.wait(30)
        server.stderr.close()


LIBFUSE_2_BESIDE = """
import ctypes.util
real = ctypes.util.find_library
ctypes.util.find_library = lambda name: "libfuse.so.2" if name == "fuse" else real(name)
from faults import fuse_passthrough
print(fuse_passthrough.mfusepy.fuse_version_major)
"""


def test_the_file_system_runs_on_libfuse_3_whatever_else_is_installed(faulty):
    """Ceph's packages bring libfuse 2, and a write that is to be cut short was not."""
    command = [sys.executable, "-c", LIBFUSE_2_BESIDE]
    answer = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert answer.stdout == "3\n", answer.stderr


@contextlib.asynccontextmanager
async def opened(faulty, engine):
    store = await AsyncFileBlobStore.open(faulty.path, engine=engine, page_size=PAGE, buffers=4)
    try:
        yield store
    finally:
        faulty.plan()
        with contextlib.suppress(StorePoisoned):
            await store.aclose()


async def reopens_with(faulty, engine, numbers):
    async with AsyncFileBlobStore.open(faulty.path, engine=engine) as store:
        assert not await missing(store, numbers)
        assert (await store.verify()).ok


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
async def test_an_fsync_that_the_kernel_fails_poisons(faulty, engine, number):
    async with opened(faulty, engine) as store:
        await fill(store, range(4))
        faulty.plan(kind="fsync", errno=number)
        with pytest.raises(BlobStoreIOError) as failed:
            await store.commit([(guid(9), frame(9, PAGE))])
        assert failed.value.errno == number
        assert failed.value.applied is None
        faulty.plan()  # a later success is not believed
        with pytest.raises(StorePoisoned) as refused:
            await store.commit([(guid(10), frame(10, PAGE))])
        assert refused.value.__cause__.errno == number
        assert store.needs_flush()
        assert not await missing(store, range(4))
    await reopens_with(faulty, engine, range(4))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=errno.errorcode.get)
async def test_writes_without_room_are_refused_and_the_store_goes_on(faulty, engine, number):
    async with opened(faulty, engine) as store:
        await fill(store, range(4))
        faulty.plan(kind="write", errno=number)
        with pytest.raises(BlobStoreIOError) as failed:
            await store.write_blob(guid(9), frame(9, PAGE))
        assert (failed.value.errno, failed.value.applied) == (number, False)
        faulty.plan()
        assert not store.stats().poisoned
        await fill(store, [9])
    await reopens_with(faulty, engine, [*range(4), 9])


async def test_a_write_error_of_the_kernel_is_raised_and_reopening_heals(faulty, engine):
    async with opened(faulty, engine) as store:
        await fill(store, range(4))
        faulty.plan(kind="write", errno=errno.EIO)
        with pytest.raises(BlobStoreIOError) as failed:
            await store.commit([(guid(9), frame(9, PAGE))])
        assert failed.value.errno == errno.EIO
        faulty.plan()
        assert not await missing(store, range(4))
    await reopens_with(faulty, engine, range(4))


async def test_a_read_error_concerns_that_read_alone(faulty, engine):
    async with opened(faulty, engine) as store:
        await fill(store, range(4))
        faulty.plan(kind="read", errno=errno.EIO)
        with pytest.raises(BlobStoreIOError) as failed:
            await store.read_blob(guid(1), bytearray(PAGE))
        assert (failed.value.errno, failed.value.guid) == (errno.EIO, guid(1))
        faulty.plan()
        assert not store.stats().poisoned
        assert not await missing(store, range(4))
        await fill(store, [9])


@pytest.mark.parametrize("short", [512, 2048])
async def test_writes_that_the_kernel_cuts_short_are_finished_or_refused(faulty, engine, short):
    """Each write moves so many bytes at a time: a sector more, or no progress past a page."""
    async with opened(faulty, engine) as store:
        await fill(store, range(4))
        faulty.plan(kind="write", short=short)
        with pytest.raises(BlobStoreIOError):
            await store.commit([(guid(9), frame(9, PAGE))])
        faulty.plan()
        assert not await missing(store, range(4))
    await reopens_with(faulty, engine, range(4))


async def test_a_slow_disk_holds_up_only_its_own_request(faulty, engine):
    """While one commit waits half a second for its writes, the loop's other tasks go on."""
    async with opened(faulty, engine) as store:
        await fill(store, range(4))
        faulty.plan(kind="write", pause_s=0.5)
        slow = asyncio.ensure_future(store.commit([(guid(9), frame(9, PAGE))]))
        ticks = 0
        while not slow.done():
            await asyncio.sleep(0)
            ticks += 1
            assert await store.has_blob(guid(1))
        faulty.plan()
        await slow
        assert ticks > 10
        assert not await missing(store, [*range(4), 9])
