"""The file behind a path: what is refused between finding it and trusting it."""

from __future__ import annotations

import errno
import os

import pytest

from uringblob import AsyncFileBlobStore, BlobStoreIOError
from uringblob.store import store_file

PAGE = 4096


@pytest.fixture
async def made(store_path):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE) as store:
        await store.commit([(bytes(16), b"1" * PAGE)])
    return store_path


async def test_a_file_that_vanishes_before_it_is_locked_is_not_opened(made, monkeypatch):
    """Its name is gone, so the lock on it would keep nobody out: the path is looked at again."""
    real = store_file._lock

    async def lock(file, *rest):
        os.unlink(made)
        await real(file, *rest)

    monkeypatch.setattr(store_file, "_lock", lock)
    with pytest.raises(FileNotFoundError):
        await AsyncFileBlobStore.open(made, create=False)


async def test_with_create_the_vanished_file_is_made_anew(made, monkeypatch):
    real, left = store_file._lock, [made]

    async def lock(file, *rest):
        if left:
            os.unlink(left.pop())
        await real(file, *rest)

    monkeypatch.setattr(store_file, "_lock", lock)
    async with AsyncFileBlobStore.open(made, page_size=PAGE) as store:
        assert await store.list_blobs() == []


async def test_a_file_system_without_locks_is_named(made, monkeypatch):
    def flock(fd, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(store_file.fcntl, "flock", flock)
    with pytest.raises(OSError, match="No locks available"):
        await AsyncFileBlobStore.open(made)


@pytest.fixture
def flush_fails(monkeypatch):
    def with_errno(number):
        def fdatasync(fd):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(store_file.os, "fdatasync", fdatasync)

    return with_errno


@pytest.mark.parametrize("number", [errno.EROFS, errno.EINVAL, errno.EBADF], ids=errno.errorcode.get)
async def test_a_read_only_medium_has_nothing_to_flush(made, flush_fails, number):
    flush_fails(number)
    async with AsyncFileBlobStore.open(made, read_only=True) as store:
        assert len(await store.list_blobs()) == 1


@pytest.mark.parametrize(
    ("number", "read_only"), [(errno.EIO, True), (errno.EIO, False), (errno.EROFS, False)]
)
async def test_what_cannot_be_flushed_before_recovery_is_not_recovered(
    made, flush_fails, monkeypatch, number, read_only
):
    """The cache may show what the disk does not hold; and the file is unlocked again."""
    flush_fails(number)
    with pytest.raises(BlobStoreIOError, match="fdatasync before recovery") as raised:
        await AsyncFileBlobStore.open(made, read_only=read_only)
    assert raised.value.errno == number
    monkeypatch.undo()
    async with AsyncFileBlobStore.open(made, lock_timeout=0) as store:
        assert len(await store.list_blobs()) == 1
