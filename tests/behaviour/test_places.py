"""Paths at which there is no store, or none of ours: the error says so, and nothing is touched."""

from __future__ import annotations

import errno
import os

import pytest

from behaviour import children
from behaviour.mounts import MIB, ext4, fill_up, tmpfs
from behaviour.work import fill, frame, guid, missing
from uringblob import AsyncFileBlobStore, BlobStoreIOError, PageSizeMismatch, StoreCorrupt

pytestmark = pytest.mark.one_interpreter


def look_of(path):
    """What an outsider can see of a file: bytes, times of change, kind, rights."""
    status = os.stat(path)
    return path.read_bytes(), status.st_mtime_ns, status.st_ctime_ns, status.st_mode, status.st_ino


NOT_OURS = {
    "empty": b"",
    "one byte": b"u",
    "text": b"Dear diary,\n" * 1000,
    "zeros": bytes(100_000),
    "only the magic": b"uringblb",
    "half a superblock": b"uringblb" + bytes(2000),
    "someone's database": b"SQLite format 3\0" + os.urandom(50_000),
}


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
@pytest.mark.parametrize("content", NOT_OURS.values(), ids=NOT_OURS)
async def test_a_file_that_is_not_ours_is_left_as_it_is(disk_dir, engine, content, read_only):
    path = disk_dir / "file"
    path.write_bytes(content)
    before = look_of(path)
    with pytest.raises(StoreCorrupt) as caught:
        await AsyncFileBlobStore.open(path, engine=engine, read_only=read_only)
    assert str(path) in str(caught.value)
    assert look_of(path) == before
    assert os.listdir(disk_dir) == ["file"]


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
async def test_a_directory(disk_dir, read_only):
    with pytest.raises(IsADirectoryError):
        await AsyncFileBlobStore.open(disk_dir, read_only=read_only)
    assert os.listdir(disk_dir) == []


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
async def test_a_fifo_is_refused_at_once(disk_dir, read_only):
    """Opening one would wait for somebody at its other end."""
    path = disk_dir / "fifo"
    os.mkfifo(path)
    with pytest.raises(StoreCorrupt, match="not a regular file"):
        await AsyncFileBlobStore.open(path, read_only=read_only)


async def test_a_device(disk_dir):
    with pytest.raises(StoreCorrupt, match="not a regular file"):
        await AsyncFileBlobStore.open("/dev/null")


@pytest.mark.parametrize("options", [{"create": False}, {"read_only": True}], ids=str)
async def test_nothing_there_and_nothing_made(disk_dir, options):
    with pytest.raises(FileNotFoundError):
        await AsyncFileBlobStore.open(disk_dir / "store", **options)
    assert os.listdir(disk_dir) == []


async def test_a_missing_parent(disk_dir):
    with pytest.raises(FileNotFoundError):
        await AsyncFileBlobStore.open(disk_dir / "missing" / "store")


async def test_a_parent_that_is_a_file(disk_dir):
    (disk_dir / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        await AsyncFileBlobStore.open(disk_dir / "file" / "store")


async def test_a_symbolic_link_is_followed_and_stays(disk_dir, engine):
    (disk_dir / "elsewhere").mkdir()
    link = disk_dir / "link"
    link.symlink_to(disk_dir / "elsewhere" / "store")
    for _ in range(2):
        async with AsyncFileBlobStore.open(link, engine=engine, page_size=4096) as store:
            await fill(store, range(3))
    assert link.is_symlink()
    assert os.listdir(disk_dir / "elsewhere") == ["store"]


async def test_a_store_of_another_page_size(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=8192) as store:
        await fill(store, range(3))
    with open(store_path, "rb") as file:
        before = file.read()
    with pytest.raises(PageSizeMismatch, match="8192"):
        await AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096)
    with open(store_path, "rb") as file:
        assert file.read() == before
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert store.page_size == 8192
        assert not await missing(store, range(3))


async def test_the_rights_asked_for(store_path):
    before = os.umask(0o022)
    try:
        async with AsyncFileBlobStore.open(store_path, mode=0o666, page_size=4096):
            assert os.stat(store_path).st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


# ---- rights and mounts --------------------------------------------------------------------------


def test_what_another_user_may_not_do(needs_root, tmp_path_factory, engine):
    """A read-only directory, a store without the right to write it, and one without any."""
    answers = children.run("behaviour.child_rights:try_them", engine, 300_000 + os.getpid())
    assert answers == {
        "make a store": "PermissionError",
        "left behind": [],
        "open it writable": "PermissionError",
        "open it read-only": [3, 0, True],
        "open a hidden one": "PermissionError",
        "untouched": True,
    }


@pytest.mark.parametrize("full", [tmpfs, ext4], ids=["tmpfs", "ext4"])
async def test_no_room_for_a_new_store(needs_root, disk_dir, engine, full):
    with full(disk_dir / "full", 8 * MIB) as directory:
        ballast = fill_up(directory)
        with pytest.raises(BlobStoreIOError) as caught:
            await AsyncFileBlobStore.open(directory / "store", engine=engine, page_size=4096)
        assert caught.value.errno == errno.ENOSPC
        assert set(os.listdir(directory)) - {"lost+found"} == {"ballast"}
        ballast.unlink()
        async with AsyncFileBlobStore.open(directory / "store", engine=engine, page_size=4096) as store:
            await store.commit([(guid(1), frame(1, 4096))])


@pytest.mark.parametrize("full", [tmpfs, ext4], ids=["tmpfs", "ext4"])
async def test_a_store_whose_file_system_is_full_opens(needs_root, disk_dir, engine, full):
    with full(disk_dir / "full", 16 * MIB) as directory:
        path = directory / "store"
        async with AsyncFileBlobStore.open(path, engine=engine, page_size=4096) as store:
            await fill(store, range(30))
        fill_up(directory)
        async with AsyncFileBlobStore.open(path, engine=engine) as store:
            assert not await missing(store, range(30))
            await store.commit(deletes=[guid(0)])
            assert not await store.has_blob(guid(0))
        async with AsyncFileBlobStore.open(path, engine=engine, read_only=True) as store:
            assert not await missing(store, range(1, 30))
