"""Random workloads on a simulated disk, with an image at every step.

A *life* is one opening of a store, a random workload, and a clean close.  At every step the rig
keeps what a power cut would leave, together with what was acknowledged by then.  The next life
begins from one of those images, so that slots and segments get a past; the first one begins on a
store whose free slots were all written before.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
import sys
from typing import NamedTuple
from unittest import mock

import uringblob.store.format
from uringblob import fork, tuning
from uringblob.completion import Completion
from uringblob.errors import BlobStoreError, BlobStoreIOError, StorePoisoned
from uringblob.store import core, file
from uringblob.store.format import first_slot
from uringblob.store.index import blob_index, durable_map, log_space, shards
from uringblob.store.index.slot_states import SlotState
from uringblob.store.log import compaction, flat_group, group, group_commit
from uringblob.store.log import reader as log_reader
from uringblob.store.opening import create as creation
from uringblob.store.opening import recover as recovery
from uringblob.testing.sim.disk import SimDisk, Write
from uringblob.testing.sim.history import History, Knowledge
from uringblob.testing.sim.image import Image
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import new_image, open_sim_store

PAGE = 4096

_FAILED: list[object] = []


def guid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def frame(stamp: int) -> bytes:
    return (stamp + 1).to_bytes(8, "little") * (PAGE // 8)


_ARENA = memoryview(bytearray(256 * PAGE))
_lent = itertools.count()


def lend(content: bytes) -> memoryview:
    """Return ``content`` in memory whose place does not depend on chance: batches are laid out by address."""
    place = next(_lent) % 256 * PAGE
    room = _ARENA[place : place + PAGE]
    room[:] = content
    return room


def lend_afresh() -> None:
    """Begin at the arena's start, as the same life does wherever it is run."""
    global _lent
    _lent = itertools.count()


def meta_of(content: bytes) -> bytes:
    """Return the metadata that goes with a frame: most have none, few have much, and small stamps never any."""
    stamp = int.from_bytes(content[:8], "little")
    number = stamp * 0x9E3779B97F4A7C15 >> 16
    length = (0, 0, 0, 0, 1, 31, 32, 33, 100, 255)[number % 10] if stamp >> 16 else 0
    return bytes((number >> 8) + n & 0xFF for n in range(length))


def lent(changes: dict[bytes, bytes]) -> list[tuple]:
    """Return ``changes`` as a batch: each frame with the metadata that goes with it."""
    return [(name, lend(content), meta_of(content)) for name, content in changes.items()]


class Moment(NamedTuple):
    """What a power cut would leave, and what was known then."""

    image: Image
    known: Knowledge
    why: str


@contextlib.contextmanager
def small_log(*, segment_bytes=4 * PAGE, records=None, large_group=None, seed=0):
    """Make segments, blocks and large groups small, so that short workloads meet their edges.

    Log and store ids come from ``seed``, so that a replay is exact.
    """
    ids = random.Random(seed)

    def next_id() -> int:
        return ids.getrandbits(64) | 1

    patches = [
        mock.patch.object(log_space, "GRANULE_BYTES", segment_bytes),
        mock.patch.object(log_space, "BASE_BYTES", 10 * segment_bytes),
        mock.patch.object(tuning, "LOG_READ_AHEAD_BYTES", 4 * PAGE),
        # Maps of a few blobs in a few parts: an opener makes and walks several.
        *(mock.patch.object(module, "PARTS", 4) for module in (shards, blob_index, core)),
        *(mock.patch.object(module, "MASK", 3) for module in (shards, blob_index, durable_map)),
        # Pure functions, asked about the same few blocks in thousands of images.
        *(
            mock.patch.object(module, name, functools.lru_cache(1024)(getattr(module, name)))
            for module, name in ((log_reader, "decode_block"), (file, "decode_superblock"))
        ),
        mock.patch.object(compaction, "new_log_id", next_id),
        mock.patch.object(creation, "new_log_id", next_id),
        mock.patch.object(creation.secrets, "token_bytes", ids.randbytes),
        mock.patch.object(creation.time, "time_ns", return_value=1),
        # Thousands of dropped groups are nothing to report here.
        mock.patch.object(recovery.logger, "disabled", new=True),
    ]
    if records is not None:
        for module in [module for name, module in sys.modules.items() if name.startswith("uringblob.store.")]:
            # Not in the format itself: blocks stay as long as they are, only emptier.
            if module is not uringblob.store.format and hasattr(module, "RECORDS_PER_BLOCK"):
                patches.append(mock.patch.object(module, "RECORDS_PER_BLOCK", records))
            if module is not uringblob.store.format and hasattr(module, "blocks_for"):
                patches.append(
                    mock.patch.object(module, "blocks_for", lambda n, _meta=0: max(1, -(-n // records)))
                )
            if module is not uringblob.store.format and hasattr(module, "packed"):
                patches.append(mock.patch.object(module, "packed", functools.partial(_packed, records)))
    if large_group is not None:
        of_groups = group, group_commit, flat_group
        patches += [mock.patch.object(module, "LARGE_GROUP_BYTES", large_group) for module in of_groups]
    global _lent
    _lent = itertools.count()
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def _packed(count: int, records):
    """Pack so many records into a block, with whatever metadata they have."""
    rest = iter(records)
    while True:
        yield list(itertools.islice(rest, count))


def forget(store) -> None:
    """The process dies: nothing is closed, nobody complains."""
    if store is None or store.closed:
        return
    closed = Completion(loop=store._loop)
    closed.resolve(None)
    store._closing = closed
    store._core.file_io.engine.abandon()
    fork.forget(store)


async def read_all(store) -> dict[bytes, bytes]:
    found = {}
    room = bytearray(PAGE)
    for name in await store.list_blobs():
        await store.read_blob(name, room)
        found[bytes(name)] = bytes(room)
        assert (await store.stat_blob(name)).meta == meta_of(room), f"{name.hex()}: metadata of another frame"
    return found


# --- a life ----------------------------------------------------------------------------------


def used_image(frames: int) -> Image:
    """Return an empty store on space that was all written before, with room for ``frames``.

    On fresh space a file system's own journaling hides ordering bugs, and so do zeroes here.
    """
    image = new_image(PAGE)
    first = image.size // PAGE
    log_in_use = first_slot(PAGE) + 2 * log_space.granule_slots(PAGE)
    image.size += frames * PAGE
    for slot in (*range(log_in_use, first), *range(first, first + frames)):
        image.write(slot * PAGE, frame(1 << 50 | slot))
    return image


class Past:
    """Which blocks of a disk were written before; counts the frames that go there, and to fresh space."""

    def __init__(self, image: Image) -> None:
        self.written = set(range(image.size // PAGE))
        self.over_old = self.over_fresh = 0

    def see(self, write: Write) -> None:
        """Take note of a write that has begun."""
        blocks = set(range(write.offset // PAGE, -(-write.end // PAGE)))
        if write.data is not None and write.data[:4] not in (b"ublk", b"urin", bytes(4)):
            self.over_old += len(blocks & self.written)
            self.over_fresh += len(blocks - self.written)
        self.written |= blocks


class Life:
    """One opening of the store in ``image``, with a random workload."""

    def __init__(
        self,
        image: Image,
        rng: random.Random,
        *,
        guids=5,
        calls=12,
        tasks=3,
        faults=None,
        images_per_step=4,
        capacity=None,
        sparse=False,
        compactions=0.04,
        reads=12,
        only_commits=False,
        past=None,
    ):
        lend_afresh()
        self.rng = rng
        self.loop = SimLoop()
        self.disk = SimDisk(rng.getrandbits(32), image=image.copy(), capacity=capacity, sparse=sparse)
        self.faults = faults
        self.history = History()
        self.guids = [guid(n) for n in range(guids)]
        self.calls = calls
        self.tasks = tasks
        self.compactions = compactions
        self.reads = reads
        self.only_commits = only_commits
        self.images_per_step = images_per_step
        self.moments: list[Moment] = []
        self.torn: list[Image] = []
        self.errors: list[BaseException] = []
        self.past = Past(image) if past is None else past
        self.store = None
        self._stamps = itertools.count(rng.getrandbits(40) << 16)
        self._left = calls

    def step(self, why: str) -> None:
        if why == "write":
            self.past.see(self.disk.unflushed[-1])
        if self.images_per_step:
            known = self.history.knowledge()
            for _ in range(min(self.images_per_step, max(1, len(self.disk.unflushed)))):
                self.moments.append(Moment(self.disk.crash(self.rng), known, why))

    def run(self) -> None:
        try:
            self.loop.run(self._run())
        except BaseException:
            forget(self.store)
            # Its unfinished jobs would complain when they are collected.
            _FAILED.append(self)
            raise
        assert not self.loop.complaints, self.loop.complaints

    async def _run(self) -> None:
        self.store = store = await open_sim_store(self.disk, self.loop, rng=self.rng)
        self.history.recovered(await read_all(store))
        store._core.maintenance.compaction_blocks_min = self.rng.choice((3, 6, 1000))
        self.disk.on_step = self.step
        self.disk.faults = self.faults
        self.disk.requests = 0
        await asyncio.gather(*(self._task() for _ in range(self.tasks)))
        await self._finish()

    async def _finish(self) -> None:
        store = self.store
        await self.flush()
        self.last = None
        if store._core.file_io.poison_cause:
            assert store.needs_flush()
        # Every call has ended, well or badly: none keeps a slot.
        assert store._core.index.slots.count(SlotState.WRITING) == 0, "a call kept a slot"
        try:
            self.last = await read_all(store)
        except BlobStoreIOError as error:
            self._failed(error)
        try:
            await store.aclose(flush=self.rng.random() < 0.8)
        except BlobStoreError as error:
            self._failed(error)
            self.last = None
        self.step("closed")

    async def _task(self) -> None:
        while self._left > 0:
            self._left -= 1
            await self.one_call()

    # --- calls ---------------------------------------------------------------------------

    def _content(self) -> bytes:
        return frame(next(self._stamps) if self.rng.random() < 0.9 else 7)

    def _pick(self, most: int) -> list[bytes]:
        return self.rng.sample(self.guids, self.rng.randint(1, min(most, len(self.guids))))

    async def one_call(self) -> None:
        rng = self.rng
        kind = rng.choices(
            ("put", "batch", "synced", "commit", "delete", "doom", "flush", "compact", "read"),
            (0, 0, 0, 25, 0, 0, 1, 10 * self.compactions, 5)
            if self.only_commits
            else (20, 8, 8, 25, 12, 5, 14, 100 * self.compactions, self.reads),
        )[0]
        await getattr(self, kind)()

    async def put(self) -> None:
        target, content = self.rng.choice(self.guids), self._content()
        await self.change(
            "put", {target: content}, lambda: self.store.write_blob(target, lend(content), meta_of(content))
        )

    async def batch(self) -> None:
        changes = {g: self._content() for g in self._pick(4)}
        await self.change("batch", changes, lambda: self.store.write_blobs(lent(changes)))

    async def synced(self) -> None:
        changes = {g: self._content() for g in self._pick(4)}
        await self.change("synced", changes, lambda: self.store.write_blobs_with_data_sync(lent(changes)))

    async def commit(self) -> None:
        changes = {g: self._content() if self.rng.random() < 0.75 else None for g in self._pick(4)}
        writes = {g: c for g, c in changes.items() if c is not None}
        deletes = [g for g, c in changes.items() if c is None]
        await self.change(
            "commit", changes, lambda: self.store.commit(lent(writes), deletes), atomic=True, durable=True
        )

    async def delete(self) -> None:
        target = self.rng.choice(self.guids)
        await self.change("delete", {target: None}, lambda: self.store.delete_blob(target))

    async def doom(self) -> None:
        target = self.rng.choice(self.guids)
        await self.change(
            "doom", {target: None}, lambda: self.store.commit((), [target]), atomic=True, durable=True
        )

    async def flush(self) -> None:
        began = self.history._tick()
        try:
            await self.store.flush()
        except BlobStoreError as error:
            self._failed(error)
        else:
            self.history.flushed(began)
        self.step("flushed")

    async def compact(self) -> None:
        job = self.store._core.maintenance.start_compaction()
        if self.rng.random() < 0.5:
            with contextlib.suppress(BlobStoreError):
                await job

    async def read(self) -> None:
        target, room = self.rng.choice(self.guids), bytearray(PAGE)
        began = self.history._tick()
        try:
            await self.store.read_blob(target, room)
        except KeyError:
            self.history.seen(target, None, began)
        except BlobStoreIOError as error:
            self._failed(error)
        else:
            self.history.seen(target, bytes(room), began)
            self.step("read")

    async def change(self, name, changes, do, *, atomic=False, durable=False) -> None:
        call = self.history.begin(name, changes, atomic=atomic)
        try:
            await do()
        except StorePoisoned as error:
            self.history.end(call, refused=True)
            self._failed(error)
        except BlobStoreIOError as error:
            if error.applied is False:
                self.history.end(call, refused=True)
            self._failed(error)
        else:
            self.history.end(call, durable=durable)
        self.step(f"{name} ended")

    def _failed(self, error: BaseException) -> None:
        if self.faults is None and self.disk.capacity is None:
            raise error
        self.errors.append(error)


def lives(seed: int, count: int = 3, *, kind=Life, **options):
    """Yield lives one after the other, each begun from what the one before may have left."""
    rng = random.Random(seed)
    knobs = {
        "segment_bytes": rng.choice((3, 4, 4, 16)) * PAGE,
        "records": rng.choice((None, None, 2, 3)),
        "large_group": rng.choice((None, None, 2 * PAGE)),
    }
    with small_log(seed=seed, **knobs):
        # On a disk that is nearly full there is no room for a past.
        image = new_image(PAGE) if options.get("capacity") else used_image(rng.choice((8, 48, 48)))
        past = Past(image)
        for _ in range(count):
            life = kind(image, rng, past=past, **options)
            yield life
            # A life's past matters most where recovery had something to leave out.
            if life.torn and rng.random() < 0.6:
                image = rng.choice(life.torn)
            else:
                image = life.disk.live if rng.random() < 0.3 else rng.choice(life.moments).image
