"""A store of version 1 is read as it is, and upgraded by its first change: cut at any point, it is the old or the new.

The stores are those that release 0.1 wrote, on the simulated disk.
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import json
import lzma
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from sim.judging import Judge, read_only_view, recover, relapse, rotten
from sim.lives import PAGE, Moment, forget, frame, guid, lend, lent, read_all, small_log
from uringblob import BlobStoreIOError
from uringblob.store.file import judge_superblocks
from uringblob.store.format import BLOCK_SIZE, HEADER_SIZE, SUPERBLOCK_OFFSETS, decode_superblock
from uringblob.store.index import log_space
from uringblob.store.index.slot_states import SlotState
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.history import History
from uringblob.testing.sim.image import Image
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import open_sim_store

pytestmark = pytest.mark.one_interpreter

DATA = Path(__file__).resolve().parents[2] / "data"
NAMES = ["golden-0.1", "golden-0.1-killed"]
#: What makes a group, one after the other; the first of them upgrades.
CHANGES = {
    "commit": lambda store: store.commit(lent({guid(1): frame(1), guid(2): frame(2)})),
    "deletes": lambda store: store.commit(deletes=list(some_of(store, 3))),
    "flush of a write": lambda store: flushed(store, store.write_blob(guid(1), lend(frame(1)))),
    "flush of a deletion": lambda store: flushed(store, store.delete_blob(some_of(store, 1)[0])),
    "compaction": lambda store: store._core.maintenance.start_compaction(),
}


def image_of(name):
    raw = lzma.decompress((DATA / f"{name}.blobs.xz").read_bytes())
    image = Image(size=len(raw))
    image.write(0, raw)
    return image


def sums_of(name):
    return json.loads((DATA / f"{name.removesuffix('-killed')}.json").read_text())["sha256"]


def sums(found):
    return {name.hex(): hashlib.sha256(content).hexdigest() for name, content in found.items()}


def versions(image):
    """Return both superblocks' versions; 0 for one that is torn."""
    blocks = ((image.read(offset, BLOCK_SIZE), offset) for offset in SUPERBLOCK_OFFSETS)
    found = [decode_superblock(block, offset) for block, offset in blocks]
    return tuple(0 if superblock is None else superblock.version for superblock in found)


def some_of(store, count):
    return sorted(store._core.index.guids())[:count]


async def flushed(store, change):
    await change
    await store.flush()


def with_store(disk, story, **options):
    """Open the store on ``disk``, run ``story(store)``, close it."""
    loop = SimLoop()
    stores = []

    async def run():
        stores.append(store := await open_sim_store(disk, loop, **options))
        result = await story(store)
        await store.aclose()
        return result

    try:
        return loop.run(run())
    finally:
        for store in stores:
            forget(store)


# --- as it is --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_changes_no_byte_and_sees_what_was_there(name):
    image = image_of(name)
    found, notes = read_only_view(image)
    assert sums(found) == sums_of(name)
    assert notes == ()
    assert versions(image) == (1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_writer_who_changes_nothing_leaves_version_1_sealed_as_such(name):
    before = image_of(name)
    disk = SimDisk(image=before.copy())

    async def read(store):
        await store.write_blobs([])
        await store.flush()
        await store.commit(deletes=[guid(77)])  # there is none
        assert (await store.verify()).ok
        return await read_all(store), store._core.log.seq

    found, seq = with_store(disk, read)
    assert sums(found) == sums_of(name)
    after = disk.live
    superblocks = judge_superblocks(after.read(0, HEADER_SIZE), "simulated")
    assert [(s.version, s.floor, s.log_space) for s in superblocks] == [(1, seq, ())] * 2
    if name == "golden-0.1":
        assert after.read(0, before.size) == before.read(0, before.size), "it was sealed before"
    else:
        rest = before.size - HEADER_SIZE
        assert after.read(HEADER_SIZE, rest) == before.read(HEADER_SIZE, rest)
    assert sums(recover(after, None, deep=True)) == sums_of(name)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_and_not_flushed_upgrades_nothing_until_close_flushes_it(name):
    disk = SimDisk(image=image_of(name))

    async def write(store):
        await store.write_blob(guid(1), lend(frame(1)))
        assert versions(disk.live) == (1, 1)

    with_store(disk, write)
    assert versions(disk.live) == (2, 2)
    assert sums(recover(disk.live, None)) == sums_of(name) | sums({guid(1): frame(1)})


# --- the upgrade -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", CHANGES)
def test_the_first_change_upgrades_and_the_old_logs_slots_are_free(name, change):
    disk = SimDisk(image=image_of(name))

    async def story(store):
        core = store._core
        old, slots, known = core.log, core.index.slots, core.superblocks.current
        held = [slot for segment in old.chain for slot in range(segment.slot, segment.end)]
        assert {slots.state(slot) for slot in held} == {SlotState.LOG}
        assert core.log_space.free_granules == core.log_space.capacity, (
            "a log of its own lies among the frames"
        )
        await CHANGES[change](store)
        assert versions(disk.live) == versions(disk.durable) == (2, 2)
        assert core.maintenance.compactions == 1
        # A block of the change that upgraded may have gone to one of them at once: those are frames.
        assert SlotState.LOG not in {slots.state(slot) for slot in held}
        assert sum(slots.state(slot) is SlotState.FREE for slot in held) >= len(held) - 2
        for superblock in judge_superblocks(disk.live.read(0, HEADER_SIZE), "simulated"):
            assert superblock.log_space == tuple(core.log_space.extents)
            assert superblock.store_id == known.store_id
            assert (superblock.created_ns, superblock.label) == (0, b""), "version 1 did not know them"
            assert superblock.floor >= old.seq + 1
        assert all(core.log_space.owns(segment) for segment in core.log.chain)
        assert slots.count(SlotState.LOG) == core.log_space.capacity * core.log_space.granule
        assert (await store.verify()).ok
        return await read_all(store)

    found = with_store(disk, story)
    assert recover(disk.live, None, deep=True) == found
    assert set(sums_of(name)) - {name.hex() for name in found} <= {
        g.hex() for g in sorted(recover(image_of(name), None))[:3]
    }

    async def again(store):
        await CHANGES[change](store)
        assert store._core.maintenance.compactions == (change == "compaction"), "once is enough"
        return await read_all(store)

    found = with_store(disk, again)
    assert recover(disk.live, None) == found


@pytest.mark.parametrize("change", ["deletes", "flush of a deletion", "compaction"])
@pytest.mark.parametrize("name", NAMES)
def test_the_log_that_release_0_1_would_read_is_not_written_any_more(name, change):
    """Until the superblocks are of version 2 it is a store of version 1, whole, and names no log of version 2."""
    disk = SimDisk(image=image_of(name))

    async def story(store):
        segments = store._core.log.chain
        before = [disk.live.read(segment.slot * PAGE, segment.slots * PAGE) for segment in segments]
        await CHANGES[change](store)
        assert before == [disk.live.read(segment.slot * PAGE, segment.slots * PAGE) for segment in segments]

    with_store(disk, story)
    assert versions(disk.live) == (2, 2)


def test_the_slots_of_the_old_log_are_frames_soon_and_the_file_need_not_grow():
    disk = SimDisk(image=image_of("golden-0.1"))

    async def story(store):
        core = store._core
        held = {slot for segment in core.log.chain for slot in range(segment.slot, segment.end)}
        await store.commit(deletes=some_of(store, 1))
        size = disk.live.size
        free = core.index.slots.count(SlotState.FREE)
        await store.commit([(guid(n), lend(frame(n))) for n in range(free - 20)])
        assert disk.live.size == size
        assert len(held & {core.index.find(guid(n)) >> 64 for n in range(free - 20)}) > len(held) // 2
        return await read_all(store)

    assert with_store(disk, story) == recover(disk.live, None)


@pytest.mark.parametrize("batches", [0, 1, 3])
@pytest.mark.parametrize("step", range(-8, 6))
def test_log_space_that_grows_while_the_store_is_upgraded_is_listed_before_a_log_has_it(step, batches):
    """Before the first superblock, between the two, and behind both; a block holds two records, so a log is long."""
    with small_log(records=2, seed=1):
        steps, recorded = [], []
        for begin in (None, step):
            disk = SimDisk(image=image_of("golden-0.1"))

            async def story(store, disk=disk, begin=begin):
                core = store._core
                first = asyncio.ensure_future(store.commit(deletes=some_of(store, 1)))
                if begin is None:  # to find out where the first superblock is written
                    disk.on_step = lambda _why: steps.append(
                        {write.offset for write in disk.unflushed if write.data is not None}
                    )
                    await first
                    return await read_all(store)
                at = next(index for index, offsets in enumerate(steps) if offsets & set(SUPERBLOCK_OFFSETS))
                arrived, left = asyncio.Event(), [None] * (at + begin)
                disk.on_step = lambda _why: left.pop() if left else arrived.set()
                real = core.superblocks.record_extents

                async def record(extents):
                    recorded.append(first.done())
                    await real(extents)

                core.growth._superblocks = SimpleNamespace(record_extents=record)
                await arrived.wait()
                if not batches:  # there are free slots for it, so that it is recorded at once
                    core.log_space.wanted = lambda *_cells, more=core.log_space.capacity + 1: more
                    await core.growth.complete_log_space()
                for batch in range(batches):
                    names = [guid(100 * batch + n) for n in range(60)]
                    await store.write_blobs(lent({name: frame(1) for name in names}))
                await first
                for superblock in judge_superblocks(disk.durable.read(0, HEADER_SIZE), "simulated"):
                    assert superblock.log_space == tuple(core.log_space.extents)
                await store.flush()
                assert (await store.verify()).ok
                return await read_all(store)

            found = with_store(disk, story)
            assert recover(disk.live, None, deep=True) == found
    assert recorded[0] is False or step > 3, "the log space did not grow before the upgrade was over"


@pytest.mark.parametrize("name", NAMES)
def test_on_a_full_disk_a_deletion_upgrades_in_the_room_there_is(name):
    image = image_of(name)
    disk = SimDisk(image=image, capacity=image.size)

    async def story(store):
        await store.commit(deletes=some_of(store, 5))
        assert versions(disk.live) == (2, 2)
        await store.commit(lent({guid(n): frame(n) for n in range(5)}))
        return await read_all(store)

    found = with_store(disk, story)
    assert disk.live.size == image.size
    assert recover(disk.live, None) == found


def test_on_a_full_disk_without_room_for_a_second_log_changes_are_refused_and_all_stays_readable(monkeypatch):
    """No granule is found among the free slots, and the file cannot grow."""
    image = image_of("golden-0.1")
    disk = SimDisk(image=image.copy(), capacity=image.size)
    monkeypatch.setattr(log_space, "GRANULE_BYTES", 1 << 24)

    async def story(store):
        for change in ("commit", "deletes"):
            with pytest.raises(BlobStoreIOError, match=r"growing|log space is used up"):
                await CHANGES[change](store)
        assert store._core.file_io.poison_cause is None
        return await read_all(store)

    assert sums(with_store(disk, story)) == sums_of("golden-0.1")
    assert versions(disk.live) == (1, 1)


# --- cut at any point ------------------------------------------------------------------------


class Upgrade:
    """The first changes of a golden store, with an image for everything that a cut at any step may leave."""

    def __init__(self, name, change, *, limit, seed):
        self.disk = SimDisk(image=image_of(name))
        self.loop = SimLoop()
        self.rng = random.Random(seed)
        self.history = History()
        self.limit = limit
        self.moments = []
        self.change = change
        self.most = 0
        self.store = None
        self.history.recovered(recover(image_of(name), None))

    def run(self):
        self.disk.on_step = self.step
        try:
            self.loop.run(self._run())
        finally:
            forget(self.store)
        assert not self.loop.complaints

    def step(self, _why):
        self.most = max(self.most, len(self.disk.unflushed))
        known = self.history.knowledge()
        # Where there is one write to tear (a superblock, say) it is torn more often.
        for _ in range(max(1, 8 - 2 * len(self.disk.unflushed))):
            images = self.disk.all_crashes(self.limit, torn=self.rng)
            self.moments += [Moment(image, known, "") for image in images]

    async def _run(self):
        self.store = store = await open_sim_store(self.disk, self.loop, rng=self.rng)
        gone = some_of(store, 3)
        first = {"commit": self.commit, "deletes": self.delete, "flush": self.flush}[self.change]
        await first(1, gone[0])
        # Two at once, which share the log that the upgrade made.
        await asyncio.gather(self.commit(9, gone[1]), self.delete(0, gone[2]))
        self.disk.on_step = lambda _why: None
        await store.aclose()

    async def commit(self, number, gone):
        writes = {guid(number): frame(number), guid(number + 1): frame(number + 1)}
        await self._change(writes | {gone: None}, lambda: self.store.commit(lent(writes), [gone]))

    async def delete(self, _number, gone):
        await self._change({gone: None}, lambda: self.store.commit(deletes=[gone]))

    async def flush(self, number, gone):
        await asyncio.gather(*(self._put(guid(n), frame(n)) for n in range(number, number + 3)))
        doom = self.history.begin("delete", {gone: None})
        await self.store.delete_blob(gone)
        self.history.end(doom)
        began = self.history._tick()
        await self.store.flush()
        self.history.flushed(began)
        self.step("")

    async def _put(self, name, content):
        put = self.history.begin("put", {name: content})
        await self.store.write_blob(name, lend(content))
        self.history.end(put)

    async def _change(self, changes, do):
        call = self.history.begin("commit", changes, atomic=True)
        await do()
        self.history.end(call, durable=True)
        self.step("")


@pytest.mark.parametrize("segment_bytes", [4 * PAGE, 16 * PAGE], ids=["short-segments", "segments"])
@pytest.mark.parametrize("change", ["commit", "deletes", "flush"])
@pytest.mark.parametrize("name", NAMES)
def test_an_upgrade_cut_at_any_point_leaves_the_old_store_or_the_new_one(
    name, change, segment_bytes, count_row
):
    """Row 23: every step, every subset of up to eight un-flushed writes, whole and torn; and cut again."""
    figures: collections.Counter = collections.Counter()
    judge = Judge(looks=7)
    with small_log(segment_bytes=segment_bytes, seed=1):
        upgrade = Upgrade(name, change, limit=8, seed=f"{name} {change} {segment_bytes}")
        upgrade.run()
        seen = collections.Counter(versions(moment.image) for moment in upgrade.moments)
        for at, (image, known, *_) in enumerate(upgrade.moments):
            try:
                before = judge.opened
                judge.look(image, known)
                if judge.opened == before:
                    continue
                rng = random.Random(at)
                between = len(set(versions(image))) == 2
                if (between or at % 5 == 0) and (flipped := rotten(image, rng)) is not None:
                    recover(flipped, known)
                    figures["one superblock rotten"] += 1
                if at % 41 == 0:
                    recover(image, known, deep=True)
                    figures["gone on with"] += 1
                if at % 307 == 0:
                    once, twice = relapse(Moment(image, known, ""), rng, judge)
                    figures["cut again"] += once
                    figures["cut a third time"] += twice
            except Exception as error:
                raise AssertionError(
                    f"{error!r}\nreplay: {name} {change} {segment_bytes=} image={at}"
                ) from error
    assert {(1, 1), (2, 2)} < set(seen)
    assert {(1, 2), (2, 1)} & set(seen), "never cut between the two superblocks"
    assert {(0, 1), (1, 0), (0, 2), (2, 0)} & set(seen), "never cut in a superblock"
    assert upgrade.most <= 8, "some subsets were left out"
    figures["disk images"] = judge.opened
    figures["opened read-only"] = judge.looked
    figures["most un-flushed"] = upgrade.most
    count_row(23, **figures)
