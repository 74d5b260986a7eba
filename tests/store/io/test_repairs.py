"""No room to overwrite what must be overwritten first: it stays due, and is neither forgotten nor poison."""

from __future__ import annotations

import asyncio
import errno
import logging

import pytest

from store.taken_writes import take_writes
from uringblob import AsyncFileBlobStore, BlobGuid, BlobStoreIOError, StorePoisoned
from uringblob.completion import Completion
from uringblob.store.format import HEADER_SIZE

PAGE = 4096
MARKED = b"no" * (PAGE // 2)
NO_ROOM = [errno.ENOSPC, errno.EDQUOT]


def guid(number):
    return BlobGuid(number.to_bytes(16, "big"))


def fill(number):
    return number.to_bytes(2, "little") * (PAGE // 2)


class FullDisk:
    """Refuses the writes that ``refuses`` chooses, for lack of room; counts them."""

    def __init__(self, store, number=errno.ENOSPC):
        take_writes(store._core.file_io.engine, self.ask)
        self.number = number
        self.refuses = lambda offset, data: False
        self.refused = 0
        self.written = []

    def ask(self, real, offset, frames):
        data = b"".join(bytes(frame.view) for frame in frames)
        if not self.refuses(offset, data):
            self.written.append(offset)
            return real(offset, frames)
        self.refused += 1
        failed = Completion(loop=asyncio.get_running_loop())
        asyncio.get_running_loop().call_soon(failed.resolve, -self.number)
        return failed


def place_of_next_group(store):
    return store._core.log.next_offsets(1)[0]


async def contents(store):
    frame, found = bytearray(PAGE), {}
    for name in await store.list_blobs():
        await store.read_blob(name, frame)
        found[name] = bytes(frame)
    return found


@pytest.fixture
async def store(store_path, engine):
    store = await AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine)
    await store.commit([(guid(n), fill(n)) for n in range(8)])
    yield store
    await store.aclose()


@pytest.mark.parametrize("number", NO_ROOM, ids=errno.errorcode.get)
async def test_a_wipe_without_room_stays_due_and_nothing_changes_before_it(store, number):
    """The group's block is there and its frame is not: its place and its slots wait for the wipe."""
    disk = FullDisk(store, number)
    place, before = place_of_next_group(store), await contents(store)
    disk.refuses = lambda offset, data: data == MARKED or (offset == place and not any(data))
    with pytest.raises(BlobStoreIOError) as unknown:
        await store.commit([(guid(9), MARKED)])
    assert (unknown.value.errno, unknown.value.applied) == (number, None)
    assert disk.refused == 2

    disk.written.clear()
    changes = [
        lambda: store.commit([(guid(10), fill(10))]),
        lambda: store.commit(deletes=[guid(0)]),
        lambda: store.write_blob(guid(11), fill(11)),
    ]
    for tries, change in enumerate(changes, 3):
        with pytest.raises(BlobStoreIOError, match="make room") as refused:
            await change()
        assert (refused.value.errno, refused.value.applied) == (number, False)
        assert disk.refused == tries, "every change tries the wipe once more"
    assert disk.written == []
    assert await contents(store) == before
    assert not store.stats().poisoned
    assert any("make room" in note for note in store.stats().notes)
    await store.flush()  # nothing is pending: nothing to refuse

    disk.refuses = lambda offset, data: False
    await store.commit([(guid(9), fill(9))], deletes=[guid(0)])
    assert disk.written[0] == place, "the wipe comes first"
    assert store.stats().notes == ()
    assert await contents(store) == {**{n: f for n, f in before.items() if n != guid(0)}, guid(9): fill(9)}
    assert (await store.verify()).ok


async def test_no_member_of_a_group_that_is_not_wiped_is_said_to_be_refused(store):
    """A crash may bring it back for all: its members may not go into another group, either."""
    disk = FullDisk(store)
    log = range(place_of_next_group(store), place_of_next_group(store) + 32 * PAGE)
    disk.refuses = lambda offset, data: data == MARKED or (offset in log and not any(data))
    calls = [store.commit([(guid(20 + n), MARKED if n == 2 else fill(n))]) for n in range(5)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    shared = [error for error in outcomes if isinstance(error, BlobStoreIOError) and error.applied is None]
    assert outcomes[2] in shared
    assert all(isinstance(error, BlobStoreIOError) for error in outcomes[2:])
    disk.refuses = lambda offset, data: False
    await store.commit([(guid(20), fill(20))])
    assert (await store.verify()).ok


async def test_a_group_whose_blocks_found_no_room_is_refused_and_nothing_is_due(store):
    """What was not written need not be wiped: a copy-on-write disk would have no room for that, too."""
    disk = FullDisk(store)
    place = place_of_next_group(store)
    disk.refuses = lambda offset, data: offset == place
    with pytest.raises(BlobStoreIOError) as refused:
        await store.commit(deletes=[guid(0)])
    assert (refused.value.errno, refused.value.applied) == (errno.ENOSPC, False)
    assert (disk.refused, store.stats().notes) == (1, ())
    disk.refuses = lambda offset, data: False
    await store.commit(deletes=[guid(0)])
    assert disk.written[-1] == place


async def test_a_close_without_room_for_its_seal_loses_nothing_and_raises_nothing(store_path, engine, caplog):
    caplog.set_level(logging.INFO, "uringblob")
    store = await AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine)
    await store.commit([(guid(0), fill(0))])
    FullDisk(store).refuses = lambda offset, data: offset < HEADER_SIZE
    await store.aclose()
    assert [r.levelname for r in caplog.records if getattr(r, "event", "") == "closed_unsealed"] == ["INFO"]
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert await contents(store) == {guid(0): fill(0)}


async def test_a_log_that_was_switched_to_is_named_before_anything_else_changes(store, store_path, engine):
    """Until both superblocks name it, the old log's segments belong to it."""
    disk = FullDisk(store)
    before = await contents(store)
    disk.refuses = lambda offset, data: offset < HEADER_SIZE
    with pytest.raises(BlobStoreIOError, match="make room"):
        await store._core.maintenance.start_compaction()
    disk.written.clear()
    with pytest.raises(BlobStoreIOError, match="make room"):
        await store.commit([(guid(9), fill(9))])
    assert disk.written == []
    assert await contents(store) == before
    in_log = store.stats().slots_log
    disk.refuses = lambda offset, data: False
    await store.commit([(guid(9), fill(9))])
    assert sorted(disk.written[:2]) == [0, PAGE]
    assert store.stats().slots_log <= in_log
    await store.aclose()
    async with AsyncFileBlobStore.open(store_path, engine=engine) as again:
        assert await contents(again) == {**before, guid(9): fill(9)}
        assert (await again.verify()).ok


async def test_a_repair_that_fails_for_another_reason_poisons(store):
    disk = FullDisk(store)
    place = place_of_next_group(store)
    disk.refuses = lambda offset, data: data == MARKED or (offset == place and not any(data))
    with pytest.raises(BlobStoreIOError):
        await store.commit([(guid(9), MARKED)])
    disk.number = errno.EIO
    with pytest.raises(BlobStoreIOError) as broken:
        await store.commit(deletes=[guid(0)])
    assert broken.value.errno == errno.EIO
    assert store.stats().poisoned
    with pytest.raises(StorePoisoned):
        await store.aclose()
