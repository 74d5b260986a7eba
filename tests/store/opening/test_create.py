"""A new store appears whole under its own name, or not at all, whatever the file system refuses."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from uringblob import AsyncFileBlobStore, BlobStoreIOError
from uringblob.store.opening import create as creation

PAGE = 4096


def refuse(monkeypatch, name, number, *, only=lambda *_: True):
    """From now on ``os.name`` of the creating module is refused with ``number`` where ``only`` says so."""
    real = getattr(os, name)

    def call(*args):
        if only(*args):
            raise OSError(number, os.strerror(number))
        return real(*args)

    monkeypatch.setattr(creation.os, name, call)


async def works(path):
    async with AsyncFileBlobStore.open(path, create=False) as store:
        await store.commit([(bytes(16), b"1" * PAGE)])
        return store.page_size == PAGE


@pytest.mark.parametrize("number", sorted(creation._NO_LINKS), ids=errno.errorcode.get)
async def test_without_hard_links_it_is_renamed(needs_uring, store_path, disk_dir, monkeypatch, number):
    refuse(monkeypatch, "link", number)
    creation.create_store(store_path, PAGE, 0o600)
    assert os.listdir(disk_dir) == [os.path.basename(store_path)]
    assert await works(store_path)


async def test_renaming_replaces_nothing_either(needs_uring, store_path, disk_dir, monkeypatch):
    """Somebody else was faster: the file that is there stays, and ours is removed."""
    creation.create_store(store_path, PAGE, 0o600)
    there = os.stat(store_path).st_ino
    refuse(monkeypatch, "link", errno.EPERM)
    creation.create_store(store_path, PAGE, 0o600)
    assert os.stat(store_path).st_ino == there
    assert os.listdir(disk_dir) == [os.path.basename(store_path)]


async def test_a_rename_that_fails_is_raised_and_leaves_nothing(store_path, disk_dir, monkeypatch):
    refuse(monkeypatch, "link", errno.EOPNOTSUPP)
    door = SimpleNamespace(ub_rename_noreplace=lambda *_: -errno.EINVAL)
    monkeypatch.setattr(creation._native, "lib", door)
    with pytest.raises(OSError, match="Invalid argument") as raised:
        creation.create_store(store_path, PAGE, 0o600)
    assert raised.value.filename == store_path
    assert os.listdir(disk_dir) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EPERM], ids=errno.errorcode.get)
async def test_a_link_that_fails_is_raised_and_leaves_nothing(store_path, disk_dir, monkeypatch, number):
    """EPERM fails only without the extension, which has the other call."""
    refuse(monkeypatch, "link", number)
    monkeypatch.setattr(creation._native, "lib", None)
    with pytest.raises(OSError, match=os.strerror(number)):
        creation.create_store(store_path, PAGE, 0o600)
    assert os.listdir(disk_dir) == []


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
async def test_a_write_that_fails_is_raised_and_leaves_nothing(store_path, disk_dir, monkeypatch, call):
    refuse(monkeypatch, call, errno.ENOSPC)
    with pytest.raises(BlobStoreIOError, match=r"creating .*: ENOSPC") as raised:
        creation.create_store(store_path, PAGE, 0o600)
    assert raised.value.errno == errno.ENOSPC
    assert os.listdir(disk_dir) == []


async def test_a_directory_that_may_not_be_read_is_flushed_with_everything(store_path, disk_dir, monkeypatch):
    flushed = []
    refuse(monkeypatch, "open", errno.EACCES, only=lambda path, *_: path == str(disk_dir))
    monkeypatch.setattr(creation.os, "sync", lambda: flushed.append(True))
    creation.create_store(store_path, PAGE, 0o600)
    assert flushed == [True]
    monkeypatch.undo()
    assert await works(store_path)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO], ids=errno.errorcode.get)
async def test_the_directorys_own_flush(store_path, monkeypatch, number):
    """EINVAL says that its entries need none; any other error means that the store may be gone tomorrow."""

    def is_directory(fd):
        return os.path.isdir(f"/proc/self/fd/{fd}")

    refuse(monkeypatch, "fsync", number, only=is_directory)
    if number == errno.EINVAL:
        creation.create_store(store_path, PAGE, 0o600)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            creation.create_store(store_path, PAGE, 0o600)
    monkeypatch.undo()
    assert await works(store_path)
