"""What the store does for many blobs goes in steps, so that the loop serves others between them.

Once a commit of 64 MiB in ordinary memory held the loop up for 77 ms, a list of 100,000 names for 50, and
a commit of 100,000 records for a second.  Counted here is what each loop iteration does.
"""

from __future__ import annotations

import asyncio
import collections
import errno

import pytest

from uringblob import AlignedBlobBuf, BlobGuid, BlobStoreIOError, StoreClosed, tuning
from uringblob.buffers.checksum import frame_checksum
from uringblob.store import arguments, file_reads
from uringblob.store.async_store import AsyncFileBlobStore
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.free_map import FreeMap
from uringblob.store.index.shards import FEW, Shards
from uringblob.store.io import file_io
from uringblob.store.io.bounces import Bounces
from uringblob.store.io.checksum_budget import GUIDS_AT_ONCE, ChecksumBudget
from uringblob.store.io.job import Job
from uringblob.store.log import writer as log
from uringblob.store.multi_read import SLOW_COST

PAGE = 4096
MANY = 3000
#: Changes that an iteration may make, with the step that passes the limit; two, as a beat may see them.
CHANGES_MAX = 2 * (tuning.BYTES_PER_ITERATION // tuning.CHANGE_COST_BYTES + GUIDS_AT_ONCE)


@pytest.fixture
async def store(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        yield store


class Iterations:
    """Counts what each iteration of the running loop did."""

    def __init__(self):
        self.number = 0
        self.done = collections.Counter()
        self._beat()

    def _beat(self):
        self.number += 1
        self.handle = asyncio.get_running_loop().call_soon(self._beat)

    def add(self, amount=1):
        self.done[self.number] += amount

    def counting(self, real, amount=lambda *_: 1):
        def counted(*args, **options):
            self.add(amount(*args))
            return real(*args, **options)

        return counted

    @property
    def most(self):
        return max(self.done.values())


@pytest.fixture
async def iterations():
    counted = Iterations()
    yield counted
    counted.handle.cancel()


def guid(number):
    return BlobGuid(number.to_bytes(16, "big"))


def frames(first, count):
    frame = bytes(PAGE)
    return [(guid(number), frame) for number in range(first, first + count)]


# ---- each kind of work ------------------------------------------------------------------------


def slots_of(_free_map, *slots):
    return len(slots)


STEPS = {
    "arguments": (arguments, "frame_of", CHANGES_MAX),
    "merging": (BlobIndex, "join_group", CHANGES_MAX),
    "settling slots": (BlobIndex, "mark_slot_live", CHANGES_MAX),
    "applying": (BlobIndex, "apply_change", CHANGES_MAX),
    "log blocks": (log, "encode_block", 2 * (tuning.BYTES_PER_ITERATION // tuning.LOG_BLOCK_COST_BYTES + 1)),
    "freeing": (FreeMap, "freed", CHANGES_MAX),
}


async def test_a_large_commit_goes_in_turns(store, monkeypatch):
    await store.commit(frames(0, MANY))
    await store.commit(frames(0, MANY))
    counted = {}
    for name, (owner, function, _) in STEPS.items():
        counted[name] = Iterations()
        amount = [slots_of] if function == "freed" else []
        monkeypatch.setattr(owner, function, counted[name].counting(getattr(owner, function), *amount))
    await store.commit(frames(0, MANY))
    for name, iterations in counted.items():
        iterations.handle.cancel()
        assert sum(iterations.done.values()) >= MANY // 119, name
        assert iterations.most <= STEPS[name][2], name


async def test_a_flush_of_many_goes_in_turns(store, iterations, monkeypatch):
    await store.write_blobs(frames(0, MANY))
    monkeypatch.setattr(BlobIndex, "join_group", iterations.counting(BlobIndex.join_group))
    await store.flush()
    assert sum(iterations.done.values()) == MANY
    assert iterations.most <= CHANGES_MAX


async def test_a_large_group_that_is_given_up_is_aborted_in_turns(store, iterations, monkeypatch):
    """Its log blocks find no room; the next flush brings the same changes."""

    async def no_room(*_):
        raise BlobStoreIOError(errno.ENOSPC, "no room")

    await store.write_blobs(frames(0, MANY))
    monkeypatch.setattr(BlobIndex, "abort_change", iterations.counting(BlobIndex.abort_change))
    with monkeypatch.context() as patched:
        patched.setattr(log.Log, "ensure_room", no_room)
        with pytest.raises(BlobStoreIOError):
            await store.flush()
    assert sum(iterations.done.values()) == MANY
    assert iterations.most <= CHANGES_MAX
    assert store.needs_flush()
    await store.flush()
    assert not store.needs_flush()


async def test_what_a_compaction_confirms_is_freed_in_turns(store, iterations, monkeypatch):
    await store.commit(frames(0, MANY))
    await store.commit(frames(0, MANY))
    monkeypatch.setattr(FreeMap, "freed", iterations.counting(FreeMap.freed, slots_of))
    await store._core.maintenance.start_compaction()
    assert sum(iterations.done.values()) >= MANY
    assert iterations.most <= CHANGES_MAX


async def test_many_writes_are_published_in_turns(store, iterations, monkeypatch):
    counted = iterations.counting(BlobIndex.publish, lambda _self, entries: len(entries))
    monkeypatch.setattr(BlobIndex, "publish", counted)
    await store.write_blobs(frames(0, MANY))
    assert sum(iterations.done.values()) == MANY
    assert iterations.most <= CHANGES_MAX


async def test_many_reads_are_asked_for_in_turns(store, iterations, monkeypatch):
    await store.commit(frames(0, MANY))
    monkeypatch.setattr(BlobIndex, "find", iterations.counting(BlobIndex.find))
    pool = [store.alloc_blob_buf_uninit() for _ in range(8)]
    reads = [(guid(number), pool[number % 8]) for number in range(MANY)]
    assert await store.read_blobs(reads) == [None] * MANY
    assert iterations.most <= CHANGES_MAX


async def test_large_reads_into_memory_that_must_be_pinned_are_requested_in_turns(
    store_path, engine, iterations, monkeypatch
):
    size, count = tuning.URING_LARGE_BYTES, 64
    async with AsyncFileBlobStore.open(store_path, page_size=size, engine=engine) as store:
        await store.write_blobs([(guid(number), bytes(size)) for number in range(count)])
        kind = type(store._core.file_io.engine)
        monkeypatch.setattr(kind, "start_read", iterations.counting(kind.start_read))
        reads = [(guid(number), AlignedBlobBuf.uninit(size)) for number in range(count)]
        assert await store.read_blobs(reads) == [None] * count
        assert sum(iterations.done.values()) == count
        # Two such steps, as a beat may see them.
        assert iterations.most <= 2 * tuning.READS_AT_ONCE // SLOW_COST


async def test_many_names_are_listed_in_turns(store, iterations, monkeypatch):
    for first in range(0, 9000, MANY):
        await store.write_blobs(frames(first, MANY))
    monkeypatch.setattr(file_reads, "known_guids", iterations.counting(file_reads.known_guids, len))
    assert sorted(await store.list_blobs()) == [guid(number) for number in range(9000)]
    assert iterations.most <= 2 * tuning.LISTED_AT_ONCE


async def test_a_compaction_brings_in_what_changed_meanwhile_in_turns(store, iterations, monkeypatch):
    await store.commit(frames(0, 8))
    index = store._core.index
    index.freeze()
    await store.commit(frames(0, MANY))
    index.thaw()
    monkeypatch.setattr(BlobIndex, "_store_in_base", iterations.counting(BlobIndex._store_in_base))
    await store._core.maintenance.start_compaction()
    assert sum(iterations.done.values()) >= MANY
    assert iterations.most <= CHANGES_MAX
    assert sorted(await store.list_blobs()) == [guid(number) for number in range(MANY)]


# ---- bytes ------------------------------------------------------------------------------------


class Memory:
    """Notes how much is copied into it."""

    def __init__(self, iterations):
        self._iterations = iterations

    def __setitem__(self, place, data):
        assert place.stop - place.start == len(data)
        self._iterations.add(len(data))


async def test_a_large_frame_is_copied_in_turns(iterations):
    shared = ChecksumBudget(asyncio.get_running_loop(), lambda: None)
    size = 9 * 1024 * 1024 + 4096
    await asyncio.gather(
        *(Job(shared.copy(Memory(iterations), memoryview(bytes(size))), shared._loop) for _ in range(2))
    )
    assert sum(iterations.done.values()) == 2 * size
    assert iterations.most * tuning.COPY_COST <= 2 * (
        tuning.BYTES_PER_ITERATION + tuning.STEP_BYTES * tuning.COPY_COST
    )


async def test_a_large_frame_is_checksummed_in_turns_and_has_the_same_checksum(iterations):
    shared = ChecksumBudget(asyncio.get_running_loop(), lambda: None)
    frame = memoryview(bytes(range(256)) * (5 * 1024 * 4 + 1))
    before = iterations.number
    assert await shared.checksum(frame) == frame_checksum(frame)
    assert iterations.number - before >= len(frame) // (tuning.BYTES_PER_ITERATION + tuning.STEP_BYTES)


@pytest.mark.parametrize("buffers", [0, 64])
async def test_memory_that_cannot_be_moved_goes_through_few_frames(store_path, engine, monkeypatch, buffers):
    size, count = 1024 * 1024, 24
    out = []
    real = Bounces.acquire

    async def acquire(self):
        lease = await real(self)
        out.append(self._out)
        return lease

    monkeypatch.setattr(Bounces, "acquire", acquire)
    async with AsyncFileBlobStore.open(store_path, page_size=size, engine=engine, buffers=buffers) as store:
        if store._core.file_io.engine.memory_align == 1:
            pytest.skip("I/O is buffered here: any memory can be moved")
        sources = [memoryview(bytearray([n]) * (size + 64))[64:] for n in range(1, count + 1)]
        targets = [memoryview(bytearray(size + 64))[64:] for _ in range(count)]
        await store.commit([(guid(n), source) for n, source in enumerate(sources)])
        answers = await store.read_blobs([(guid(n), target) for n, target in enumerate(targets)])
        assert answers == [None] * count
        assert targets == sources
        assert len(out) > count, "one or two may lie well by chance"
        assert max(out) <= store._core.file_io.bounces.limit == 8
        assert store._core.file_io.bounces._out == 0
        assert store.stats().buffers_leased == 0


async def test_scratch_memory_has_a_bound(store, monkeypatch):
    door, mapped, written = store._core.file_io, [], []
    real = type(door)._map_scratch
    monkeypatch.setattr(
        type(door), "_map_scratch", lambda self, size: mapped.append(size) or real(self, size)
    )

    async def write_whole(_engine, _offset, frames, _what):
        written.append(sum(frame.size for frame in frames))
        await door.next_tick()

    monkeypatch.setattr(file_io.transfers, "write_whole", write_whole)
    sizes = [PAGE * (1 + number * 7 % 500) for number in range(120)]
    writes = [door.start(door.write(0, bytes(size), "a test")) for size in sizes]
    await asyncio.gather(*writes, door.start(door.zero(0, 2**24 + PAGE, "a test")))
    assert sum(written) == sum(sizes) + 2**24 + PAGE
    assert max(mapped) == tuning.SCRATCH_BYTES
    kept = sum(frame.size for frames in door._scratch.values() for frame in frames)
    assert kept <= 8 * (tuning.SCRATCH_BYTES + PAGE)


# ---- and yet at once --------------------------------------------------------------------------


async def test_a_large_commit_is_seen_wholly_or_not_at_all(store):
    old, new = range(MANY), range(MANY, 2 * MANY)
    await store.commit(frames(0, MANY))
    commit = asyncio.ensure_future(store.commit(frames(MANY, MANY), deletes=map(guid, old)))
    seen = set()
    while not commit.done():
        await asyncio.sleep(0)
        find = store._core.index.find
        seen.add((all(find(guid(n)) is not None for n in old), any(find(guid(n)) is not None for n in new)))
    assert seen <= {(True, False), (False, True)}
    assert sorted(await store.list_blobs()) == [guid(n) for n in new]
    assert store.stats().blobs == MANY


async def test_changes_beside_a_large_commit_that_is_being_applied_win(store, monkeypatch):
    await store.commit(frames(0, MANY))
    shown = asyncio.Event()
    real = BlobIndex.show_group

    def show_group(self, changes):
        real(self, changes)
        shown.set()

    monkeypatch.setattr(BlobIndex, "show_group", show_group)
    commit = asyncio.ensure_future(store.commit(frames(MANY, MANY), deletes=[guid(n) for n in range(10)]))
    await shown.wait()
    assert store._core.index.applying
    await asyncio.gather(
        *(store.delete_blob(guid(n)) for n in range(2 * MANY - 20, 2 * MANY)), store.write_blobs(frames(0, 5))
    )
    await commit
    names = [guid(n) for n in (*range(5), *range(10, 2 * MANY - 20))]
    assert sorted(await store.list_blobs()) == names
    assert store.stats().blobs == len(names)
    await store.flush()
    assert store.stats().slots_live == len(names)


@pytest.mark.parametrize("change", ["commit", "write", "delete", "flush"])
async def test_a_list_is_that_of_its_moment(store, change):
    count = 2 * tuning.LISTED_AT_ONCE
    await store.commit(frames(0, count))
    await store.write_blobs(frames(count, 10))
    listing = asyncio.ensure_future(store.list_blobs())
    await asyncio.sleep(0)
    assert store._core.index.moments.open, "it has begun, and has not ended"
    if change == "commit":
        await store.commit(frames(9000, 200), deletes=[guid(n) for n in range(0, count + 10, 100)])
    elif change == "write":
        await store.write_blobs(frames(9000, MANY))
    elif change == "flush":
        await store.flush()
    else:
        await asyncio.gather(*(store.delete_blob(guid(n)) for n in range(0, count + 10, 50)))
    assert sorted(await listing) == [guid(n) for n in range(count + 10)]
    assert not store._core.index.moments.open


async def test_a_cancelled_list_leaves_nothing(store):
    await store.commit(frames(0, 2 * tuning.LISTED_AT_ONCE))
    listing = asyncio.ensure_future(store.list_blobs())
    await asyncio.sleep(0)
    listing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listing
    assert not store._core.index.moments.open
    assert not store._core.groups.names_still.locked()


async def test_a_list_cancelled_while_it_waits_for_a_large_commit_leaves_nothing(store):
    await store.commit(frames(0, MANY))
    commit = asyncio.ensure_future(store.commit(frames(MANY, MANY)))
    while not store._core.index.applying:
        await asyncio.sleep(0)
    listing = asyncio.ensure_future(store.list_blobs())
    await asyncio.sleep(0)
    assert not listing.done()
    listing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listing
    await commit
    assert not store._core.groups.names_still.locked()
    assert len(await store.list_blobs()) == 2 * MANY


# ---- arguments --------------------------------------------------------------------------------


async def test_nothing_is_written_if_the_last_of_many_arguments_is_wrong(store):
    with pytest.raises(ValueError, match="exactly 4096"):
        await store.commit([*frames(0, MANY), (guid(9999), bytes(1))])
    with pytest.raises(ValueError, match="both writes and deletes"):
        await store.commit(frames(0, MANY), deletes=[guid(n) for n in range(MANY + 5, MANY - 2, -1)])
    assert await store.list_blobs() == []


async def test_the_last_of_many_writes_to_a_guid_wins_in_a_large_map_too(store):
    writes = frames(0, FEW + 10)
    await store.write_blobs([*writes, (guid(3), b"\7" * PAGE)])
    got = bytearray(PAGE)
    await store.read_blob(guid(3), got)
    assert got == b"\7" * PAGE
    assert store.stats().blobs == FEW + 10


async def test_a_call_cancelled_while_its_arguments_are_checked_keeps_no_buffer(store):
    buffers = [store.alloc_blob_buf_zeroed() for _ in range(4)]
    call = asyncio.ensure_future(store.commit([(guid(n), buffers[n % 4]) for n in range(MANY)]))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await call
    del call
    for buffer in buffers:
        buffer.release()
    assert caught.value is not None
    assert await store.list_blobs() == []


@pytest.mark.parametrize("count", [4, FEW + 4])
async def test_a_call_whose_last_argument_is_refused_keeps_no_buffer(store, count):
    buffers = [store.alloc_blob_buf_zeroed() for _ in range(4)]
    with pytest.raises(ValueError, match="both writes and deletes") as caught:
        await store.commit([(guid(n), buffers[n % 4]) for n in range(count)], [guid(0)])
    for buffer in buffers:
        buffer.release()  # while the error, and the traceback in it, is alive
    assert caught.value.__traceback__ is not None


async def test_a_store_closed_while_arguments_are_checked_says_so(store_path, engine):
    store = await AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine)
    call = asyncio.ensure_future(store.commit(frames(0, MANY)))
    await asyncio.sleep(0)
    await store.aclose()
    with pytest.raises(StoreClosed):
        await call


# ---- the map ----------------------------------------------------------------------------------


def test_parts_answer_as_a_dict_does():
    plain, parts = {}, Shards()
    for number in range(2000):
        plain[guid(number % 700)] = parts[guid(number % 700)] = number
        if number % 3 == 0:
            plain.pop(guid(number % 91), None)
            parts.discard(guid(number % 91))
        assert len(parts) == len(plain)
    assert dict(parts.items()) == plain
    assert all(parts.get(guid(n)) == plain.get(guid(n)) for n in range(800))


def test_no_part_of_the_map_is_large():
    entries = Shards()
    entries.update((guid(number), number) for number in range(100_000))
    assert len(entries) == 100_000
    assert max(map(len, entries.parts)) < 400, "and also where names are counted up"
