"""The file behind a path: what is refused between finding it and trusting it."""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
import time

import pytest

from uringblob import AsyncFileBlobStore, BlobStoreError, BlobStoreIOError, StoreCorrupt
from uringblob.store import file as store_file
from uringblob.store.file import judge_superblocks
from uringblob.store.format import (
    BLOCK_SIZE,
    HEADER_SIZE,
    SUPERBLOCK_OFFSETS,
    VERSION,
    SlotRun,
    Superblock,
    decode_superblock,
)
from uringblob.store.opening import open as opening

PAGE = 4096


@pytest.fixture
async def made(store_path):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE) as store:
        await store.commit([(bytes(16), b"1" * PAGE)])
    return store_path


async def test_a_file_that_vanishes_before_it_is_locked_is_not_opened(made, monkeypatch):
    """Its name is gone, so a lock on it excludes no opener: the path is opened again."""
    real = store_file.lock

    async def lock(file, *rest, beside):
        os.unlink(made)
        await real(file, *rest, beside=beside)

    monkeypatch.setattr(store_file, "lock", lock)
    with pytest.raises(FileNotFoundError):
        await AsyncFileBlobStore.open(made, create=False)


async def test_with_create_the_vanished_file_is_made_anew(made, monkeypatch):
    real, left = store_file.lock, [made]

    async def lock(file, *rest, beside):
        if left:
            os.unlink(left.pop())
        await real(file, *rest, beside=beside)

    monkeypatch.setattr(store_file, "lock", lock)
    async with AsyncFileBlobStore.open(made, page_size=PAGE) as store:
        assert await store.list_blobs() == []


def before_creation(monkeypatch, meddle):
    """``meddle(path)`` runs just before each creation; returns the paths that were to be created."""
    real, asked = opening.create_store, []

    def create(path, *rest):
        asked.append(path)
        meddle(path)
        real(path, *rest)

    monkeypatch.setattr(opening, "create_store", create)
    return asked


async def test_a_path_that_becomes_a_dangling_link_is_followed(store_path, disk_dir, monkeypatch):
    """Creation never replaces a link, so it makes what the link names, and does not try again for ever."""
    target = str(disk_dir / "elsewhere")
    asked = before_creation(
        monkeypatch, lambda path: os.path.lexists(store_path) or os.symlink(target, store_path)
    )
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE) as store:
        assert store.path == target
    assert asked == [store_path, target]
    assert os.path.islink(store_path)
    assert sorted(os.listdir(disk_dir)) == ["elsewhere", os.path.basename(store_path)]


async def test_a_path_that_becomes_a_circle_of_links_is_an_error(store_path, disk_dir, monkeypatch):
    other = str(disk_dir / "other")
    os.symlink(store_path, other)
    asked = before_creation(monkeypatch, lambda path: os.symlink(other, store_path))
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        await AsyncFileBlobStore.open(store_path, page_size=PAGE)
    assert asked == [store_path]


async def test_what_is_deleted_each_time_it_is_made_is_given_up(store_path, monkeypatch):
    made = []
    monkeypatch.setattr(opening, "create_store", lambda path, *_: made.append(path))
    with pytest.raises(BlobStoreError, match="names another file, or none, each time"):
        await AsyncFileBlobStore.open(store_path, page_size=PAGE)
    assert made == [store_path] * store_file._ROUNDS_MAX


async def test_a_file_that_is_replaced_each_time_it_is_opened_is_given_up(made, monkeypatch):
    async def lock(file, *_, beside):
        os.unlink(made)
        with open(made, "wb"):
            pass

    monkeypatch.setattr(store_file, "lock", lock)
    with pytest.raises(BlobStoreError, match="names another file, or none, each time"):
        await AsyncFileBlobStore.open(made)


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


def unreadable(monkeypatch, *offsets):
    real = os.pread

    def pread(fd, size, offset):
        if offset in offsets:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, size, offset)

    monkeypatch.setattr(store_file.os, "pread", pread)


@pytest.mark.parametrize("offset", [0, BLOCK_SIZE])
@pytest.mark.parametrize("read_only", [False, True])
async def test_a_superblock_that_cannot_be_read_is_like_a_damaged_one(made, monkeypatch, offset, read_only):
    """The other one has all that counts."""
    unreadable(monkeypatch, offset)
    async with AsyncFileBlobStore.open(made, read_only=read_only) as store:
        assert len(await store.list_blobs()) == 1


async def test_two_superblocks_that_cannot_be_read_are_an_error_with_the_path(made, monkeypatch):
    unreadable(monkeypatch, 0, BLOCK_SIZE)
    with pytest.raises(BlobStoreIOError, match="no superblock is good") as raised:
        await AsyncFileBlobStore.open(made)
    assert raised.value.errno == errno.EIO
    assert made in str(raised.value)


async def test_a_file_that_is_no_store_and_cannot_be_read_says_what_could_not(disk_dir, monkeypatch):
    path = disk_dir / "text"
    path.write_bytes(b"hello" * 4000)
    with pytest.raises(StoreCorrupt, match="not a uringblob store"):
        await AsyncFileBlobStore.open(path)
    unreadable(monkeypatch, 0)
    with pytest.raises(BlobStoreIOError, match="not all can be read"):
        await AsyncFileBlobStore.open(path)


# --- what the superblocks say of themselves --------------------------------------------------

SOUND = Superblock(
    PAGE, b"0123456789abcdef", 7, 0xABCDEF, SlotRun(2, 16), floor=5, log_space=(SlotRun(2, 240),)
)
OLD = dataclasses.replace(SOUND, version=1, log_space=())


def header(first, second):
    """Return a file's first bytes: superblocks, or what lies in their places."""
    return b"".join(
        part if isinstance(part, bytes) else part.encode(offset)
        for part, offset in zip((first, second), SUPERBLOCK_OFFSETS, strict=True)
    )


def torn(superblock, offset=0):
    return superblock.encode(offset)[:512] + bytes(BLOCK_SIZE - 512)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("other", [OLD, SOUND, torn(SOUND), torn(OLD), bytes(BLOCK_SIZE)], ids=str)
def test_a_sound_superblock_of_a_newer_version_is_refused_whatever_lies_beside_it(other, swap):
    """The older one is what an upgrade that a crash cut has left; who began it finishes it."""
    newer = dataclasses.replace(SOUND, version=VERSION + 1, revision=8)
    pair = (other, newer) if swap else (newer, other)
    with pytest.raises(
        StoreCorrupt, match=r"some\.blobs has format version .*use the release that wrote it"
    ) as raised:
        judge_superblocks(header(*pair), "some.blobs")
    assert str(VERSION + 1) in str(raised.value)
    assert "this library reads versions 1 and 2" in str(raised.value)


def test_a_torn_superblock_that_claims_a_newer_version_is_only_torn_where_the_other_is_good():
    newer = torn(dataclasses.replace(SOUND, version=VERSION + 1))
    assert judge_superblocks(header(newer, SOUND), "some.blobs") == [None, SOUND]
    with pytest.raises(StoreCorrupt, match=f"has format version {VERSION + 1}"):
        judge_superblocks(header(newer, newer), "some.blobs")


@pytest.mark.parametrize(
    "pair", [(OLD, SOUND), (SOUND, OLD), (OLD, OLD), (SOUND, torn(OLD)), (torn(SOUND), OLD)]
)
def test_superblocks_of_both_versions_lie_beside_each_other_while_a_store_is_upgraded(pair):
    found = judge_superblocks(header(*pair), "some.blobs")
    assert found == [None if isinstance(part, bytes) else part for part in pair]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (1, "incompatible feature 0"),
        (1 << 63 | 1 << 5, "incompatible feature 5, incompatible feature 63"),
    ],
)
def test_an_unknown_incompatible_feature_refuses_the_store_and_is_named(flags, names, which):
    pair = [SOUND, SOUND]
    pair[which] = dataclasses.replace(SOUND, incompatible=flags)
    with pytest.raises(StoreCorrupt, match=f"some.blobs needs features of a newer release .*{names}\\)"):
        judge_superblocks(header(*pair), "some.blobs")


def with_flags(path, **flags):
    """Set feature flags in both superblocks, as a newer release does."""
    with open(path, "r+b") as file:
        for offset in SUPERBLOCK_OFFSETS:
            file.seek(offset)
            superblock = decode_superblock(file.read(BLOCK_SIZE), offset)
            file.seek(offset)
            file.write(dataclasses.replace(superblock, **flags).encode(offset))


@pytest.mark.parametrize("bit", [0, 63])
async def test_an_unknown_read_only_compatible_feature_refuses_writers_and_no_reader(made, bit):
    with_flags(made, read_only_compatible=1 << bit)
    before = pathlib.Path(made).read_bytes()
    name = f"read-only compatible feature {bit}"
    with pytest.raises(StoreCorrupt, match=f"{made} needs .*{name}.* open it with read_only=True"):
        await AsyncFileBlobStore.open(made, lock_timeout=0)
    async with AsyncFileBlobStore.open(made, read_only=True, lock_timeout=0) as store:
        assert len(await store.list_blobs()) == 1
        assert store.stats().features == (name,)
    assert pathlib.Path(made).read_bytes() == before


async def test_an_unknown_compatible_feature_is_ignored_and_kept(made):
    with_flags(made, compatible=1 << 7)
    for _ in range(2):  # the first one writes superblocks, too
        async with AsyncFileBlobStore.open(made, lock_timeout=0) as store:
            assert store.stats().features == ("compatible feature 7",)
            await store.commit([(os.urandom(16), bytes(store.page_size))])
            await store._core.maintenance.start_compaction()


async def test_label_and_time_of_creation_survive_a_stores_life(made):
    def superblocks():
        raw = pathlib.Path(made).read_bytes()[:HEADER_SIZE]
        return judge_superblocks(raw, made)

    born = {superblock.created_ns for superblock in superblocks()}
    assert len(born) == 1
    assert abs(born.pop() - time.time_ns()) < 600 * 10**9
    with open(made, "r+b") as file:
        for offset, superblock in zip(SUPERBLOCK_OFFSETS, superblocks(), strict=True):
            file.seek(offset)
            file.write(dataclasses.replace(superblock, label=b"thumbnails").encode(offset))
    kept = {(superblock.created_ns, superblock.label) for superblock in superblocks()}
    async with AsyncFileBlobStore.open(made) as store:
        await store.commit([(bytes(16), b"2" * PAGE)])
        await store._core.maintenance.start_compaction()
    assert {(superblock.created_ns, superblock.label) for superblock in superblocks()} == kept
