"""Row 20 on real file systems: full or over quota where overwriting takes new room, and where it does not.

A change goes through or is refused by name; nothing is poisoned; the store closes and opens while the
file system is as full, with every blob readable; deletions go on as soon as there is room.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from behaviour.work import frame, guid
from file_systems import (
    MIB,
    btrfs,
    copy_sharing_blocks,
    ext4,
    fill_to_the_last_block,
    full_steps,
    quota_of,
    run,
    snapshot_below,
    tmpfs,
    xfs,
)
from uringblob import BlobStoreIOError, FileBlobStore
from uringblob.engines.copy_on_write import why_copied

pytestmark = [pytest.mark.one_interpreter, pytest.mark.usefixtures("needs_root")]

PAGE = 4096
BLOBS = 300
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def make(path, engine, *, overwritable) -> None:
    """Make a store with some blobs; on btrfs, unless ``overwritable``, as version 0.1 made it."""
    if not overwritable:
        FileBlobStore.open(path, page_size=PAGE, engine=engine).close()
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    with FileBlobStore.open(path, page_size=PAGE, engine=engine) as store:
        for first in range(0, BLOBS, 10):
            store.commit([(guid(n), frame(n, PAGE)) for n in range(first, first + 10)])


def check(store, there) -> None:
    """Every blob of ``there`` is readable, and no other is there."""
    assert set(store.list_blobs()) == {guid(n) for n in there}
    buffer = bytearray(PAGE)
    for n in there:
        store.read_blob(guid(n), buffer)
        assert bytes(buffer) == bytes(frame(n, PAGE)), n


def live_on_what_is_full(path, engine, ballast, *, steps=8) -> int:
    """Delete and write at each step of a full file system, reopening in between; returns how often refused."""
    there, refused, number = set(range(BLOBS)), 0, 0
    for _ in full_steps(ballast, steps):
        with FileBlobStore.open(path, engine=engine) as store:
            check(store, there)
            for _ in range(6):
                doomed = {number, number + 1}
                number += 2
                new = 1000 + number
                for writes, deletes in (((), doomed), ([new], ())):
                    try:
                        store.commit([(guid(n), frame(n, PAGE)) for n in writes], [guid(n) for n in deletes])
                    except BlobStoreIOError as error:
                        if error.errno not in NO_ROOM:
                            raise
                        refused += 1
                    else:
                        there = there - deletes if deletes else there | {new}
            assert not store.stats().poisoned
            check(store, there)
    ballast.unlink()
    with FileBlobStore.open(path, engine=engine) as store:
        check(store, there)
        store.commit([(guid(9999), frame(9999, PAGE))], [guid(n) for n in there])
        assert not any("make room" in note for note in store.stats().notes)
        check(store, {9999})
        assert store.verify().ok
    return refused


@pytest.mark.parametrize("place", [btrfs, xfs, ext4, tmpfs], ids=lambda place: place.__name__)
def test_a_new_store_overwrites_in_place_and_deletes_on_a_full_file_system(
    disk_dir, engine, place, count_row
):
    with place(disk_dir / "small", *([32 * MIB] if place in (ext4, tmpfs) else [])) as directory:
        path = directory / "s"
        make(path, engine, overwritable=True)
        with FileBlobStore.open(path, engine=engine) as store:
            assert store.stats().notes == ()
            ballast = fill_to_the_last_block(directory)
            for n in range(0, BLOBS, 2):
                store.commit(deletes=[guid(n)])
            check(store, set(range(1, BLOBS, 2)))
        with FileBlobStore.open(path, engine=engine) as store:
            check(store, set(range(1, BLOBS, 2)))
        ballast.unlink()
    count_row(20, **{"full file systems": 1})


def with_shared_copy(directory, path):
    copy_sharing_blocks(path, directory / "copy")


def with_snapshot(directory, _path):
    snapshot_below(directory)


CASES = {
    "btrfs, copied": (btrfs, False, None, "is not no-COW"),
    "btrfs, snapshot below": (btrfs, True, with_snapshot, "shares blocks"),
    "btrfs, shared copy": (btrfs, True, with_shared_copy, "shares blocks"),
    "xfs, shared copy": (xfs, True, with_shared_copy, "shares blocks"),
}


@pytest.mark.parametrize("case", CASES)
def test_where_overwriting_takes_room_a_full_disk_refuses_by_name(disk_dir, engine, case, count_row):
    place, overwritable, share, why = CASES[case]
    with place(disk_dir / "small") as directory:
        path = directory / "s"
        make(path, engine, overwritable=overwritable)
        if share is not None:
            share(directory, path)
        with FileBlobStore.open(path, engine=engine, read_only=True) as store:
            assert any(why in note for note in store.stats().notes), store.stats().notes
        live_on_what_is_full(path, engine, fill_to_the_last_block(directory))
    count_row(20, **{"full file systems": 1})


CHILD = """
    import os, signal, sys
    from uringblob import BlobStoreError, FileBlobStore
    store = FileBlobStore.open(sys.argv[1], engine=sys.argv[2])
    for n in range(200):
        try:
            store.commit([(n.to_bytes(16, "big"), bytes(4096))], [(n + 1).to_bytes(16, "big")])
        except BlobStoreError:
            pass
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_on_a_full_disk_that_copies_it_opens_and_shows_all_that_it_showed(disk_dir, engine, count_row):
    with btrfs(disk_dir / "small") as directory:
        path = directory / "s"
        make(path, engine, overwritable=False)
        ballast = fill_to_the_last_block(directory)
        command = [sys.executable, "-c", textwrap.dedent(CHILD), path, engine]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        with FileBlobStore.open(path, engine=engine) as store:
            assert len(store.list_blobs()) >= BLOBS // 2
            shown = {name: bytes(store_read(store, name)) for name in store.list_blobs()}
        ballast.unlink()
        with FileBlobStore.open(path, engine=engine) as store:
            assert {name: bytes(store_read(store, name)) for name in store.list_blobs()} == shown
            store.commit(deletes=list(shown))
            assert store.verify().ok
    count_row(20, **{"full file systems": 1})


def store_read(store, name) -> bytearray:
    buffer = bytearray(PAGE)
    store.read_blob(name, buffer)
    return buffer


@pytest.mark.parametrize("overwritable", [True, False], ids=["in place", "copied"])
@pytest.mark.parametrize("place", [btrfs, xfs, ext4], ids=lambda place: place.__name__)
def test_over_quota_is_as_full(disk_dir, engine, place, overwritable, count_row):
    with quota_of(disk_dir / "small", 24 * MIB, place) as directory:
        path = directory / "s"
        make(path, engine, overwritable=overwritable)
        ballast = fill_to_the_last_block(directory)
        assert os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize > 2 * MIB, (
            "full, not over quota"
        )
        # btrfs needs quota even to cut a file; it takes it away as a whole.
        live_on_what_is_full(path, engine, ballast, steps=1 if place is btrfs else 8)
    count_row(20, **{"file systems over quota": 1})


def test_a_directory_that_compresses_gets_a_store_that_is_overwritten_in_place(disk_dir, engine):
    with btrfs(disk_dir / "small") as directory:
        (directory / "d").mkdir()
        run(["btrfs", "property", "set", directory / "d", "compression", "zstd"])
        path = directory / "d" / "s"
        make(path, engine, overwritable=True)
        with open(path, "rb") as file:
            assert why_copied(file.fileno()) == ""


def test_an_older_store_becomes_no_cow_by_the_copy_that_the_note_describes(disk_dir, engine):
    with btrfs(disk_dir / "small") as directory:
        path = directory / "s"
        make(path, engine, overwritable=False)
        run(["sh", "-c", f"cd {directory} && touch NEW && chattr +C NEW && cat s > NEW && mv NEW s"])
        with FileBlobStore.open(path, engine=engine) as store:
            assert store.stats().notes == ()
            check(store, set(range(BLOBS)))
