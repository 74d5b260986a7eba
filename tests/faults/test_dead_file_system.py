"""A file system that dies under a live store: every error is the library's and names the file."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import struct
import subprocess

import pytest

from behaviour.mounts import MIB, mounted
from behaviour.work import frame, guid
from uringblob import AsyncFileBlobStore, BlobStoreError

pytestmark = [pytest.mark.one_interpreter, pytest.mark.usefixtures("needs_root")]

PAGE = 4096
#: XFS_IOC_GOINGDOWN, and its flag: nothing more is logged.
GOING_DOWN = 0x8004587D
NO_LOG = 2


@contextlib.contextmanager
def xfs(directory):
    """A small xfs, and how to kill it."""
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("no mkfs.xfs here (Debian: xfsprogs)")
    image = directory.with_suffix(".image")
    with open(image, "wb") as file:
        file.truncate(320 * MIB)
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True, capture_output=True)
    try:
        with mounted(directory, "xfs", "loop", source=str(image)):
            yield lambda: shut_down(directory)
    finally:
        image.unlink()


def shut_down(directory):
    root = os.open(directory, os.O_RDONLY)
    try:
        fcntl.ioctl(root, GOING_DOWN, struct.pack("=I", NO_LOG))
    finally:
        os.close(root)


CALLS = {
    "read_blob": lambda store: store.read_blob(guid(1), bytearray(PAGE)),
    "read_blob_range": lambda store: store.read_blob_range(guid(1), 0, bytearray(PAGE)),
    "write_blob": lambda store: store.write_blob(guid(50), frame(50, PAGE)),
    # More than there are slots: the file must grow.
    "write_blobs": lambda store: store.write_blobs([(guid(n), frame(n, PAGE)) for n in range(100, 700)]),
    "commit": lambda store: store.commit([(guid(n), frame(n, PAGE)) for n in range(700, 1300)]),
    "flush": lambda store: store.flush(),
    "aclose": lambda store: store.aclose(),
}


async def test_every_error_names_the_file_and_the_figures_go_on(disk_dir, engine):
    with xfs(disk_dir / "mount") as die:
        path = os.path.realpath(disk_dir / "mount" / "store")
        store = await AsyncFileBlobStore.open(path, engine=engine, page_size=PAGE)
        await store.commit([(guid(n), frame(n, PAGE)) for n in range(10)])
        before = store.stats()
        die()
        failed = set()
        for name, call in CALLS.items():
            [outcome] = await asyncio.gather(call(store), return_exceptions=True)
            if outcome is not None:
                assert isinstance(outcome, BlobStoreError), name
                assert path in str(outcome), name
                failed.add(name)
        assert failed >= {"read_blob", "write_blobs", "commit", "aclose"}
        after = store.stats()
        assert (after.blobs, after.file_bytes) == (before.blobs, before.file_bytes)


async def test_a_size_that_cannot_be_asked_for_is_the_last_one_seen(store_path, engine, monkeypatch):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE) as store:
        before = store.stats()

        def die(_fd):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as dead:
            dead.setattr(os, "fstat", die)
            after = store.stats()
            with pytest.raises(BlobStoreError, match=store_path):
                await store.write_blobs([(guid(n), frame(n, PAGE)) for n in range(600)])
        assert after.file_bytes == before.file_bytes > 0
        assert "EIO" in after.notes[-1]
