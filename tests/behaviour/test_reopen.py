"""Closed and opened again without waiting: the lock is free when ``close`` returns."""

from __future__ import annotations

import pytest

from behaviour.stamps import blank, sequence_of, stamped
from uringblob import AsyncFileBlobStore, BlobGuid, FileBlobStore

pytestmark = pytest.mark.one_interpreter  # the lock is the kernel's
TIMES = 200
GUID = BlobGuid(bytes(range(16)))


class Turns:
    """What is done with the store each time: every third one leaves something for ``close`` to flush."""

    def __init__(self):
        self.frame = blank(4096)
        self.written = 0

    def sync(self, store, turn):
        if self.written:
            store.read_blob(GUID, self.frame)
            assert sequence_of(GUID, self.frame) == self.written
        if turn % 3 == 0:
            store.write_blob(GUID, stamped(GUID, turn + 1, 4096))
            self.written = turn + 1

    async def asynchronous(self, store, turn):
        if self.written:
            await store.read_blob(GUID, self.frame)
            assert sequence_of(GUID, self.frame) == self.written
        if turn % 3 == 0:
            await store.write_blob(GUID, stamped(GUID, turn + 1, 4096))
            self.written = turn + 1


@pytest.mark.parametrize("face", ["sync", "async", "both in turn"])
async def test_two_hundred_times(store_path, engine, face):
    options = {"engine": engine, "page_size": 4096, "lock_timeout": 0, "buffers": 16}
    turns = Turns()
    for turn in range(TIMES if face == "both in turn" else TIMES // 2):
        if face == "sync" or (face != "async" and turn % 2):
            with FileBlobStore.open(store_path, **options) as store:
                turns.sync(store, turn)
        else:
            async with AsyncFileBlobStore.open(store_path, **options) as store:
                await turns.asynchronous(store, turn)


def test_readers_and_a_writer_in_turn(store_path, engine):
    """Read-only openers hold no writer up, whether they come before it or after."""
    options = {"engine": engine, "page_size": 4096, "lock_timeout": 0, "buffers": 4}
    FileBlobStore.open(store_path, **options).close()
    for _ in range(10):
        readers = [FileBlobStore.open(store_path, read_only=True, **options) for _ in range(3)]
        with FileBlobStore.open(store_path, **options):
            readers.append(FileBlobStore.open(store_path, read_only=True, **options))
        for reader in readers:
            reader.close()
