"""A small store that something is done to: what it holds, what it held before, where everything lies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sim.lives import PAGE, forget, frame, guid, lent, meta_of, read_all, used_image
from uringblob.errors import BlobCorrupt
from uringblob.store.format import RECORDS_PER_BLOCK
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.image import Image
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import open_sim_store

#: Behind the guid's 128 bits a record has its slot, a packed entry the frame's checksum.
SLOT_SHIFT = 64


class Seen(NamedTuple):
    """What an opener finds: contents, guids that are ``BlobCorrupt``, and what it says was left out."""

    found: dict[bytes, bytes]
    bad: set[bytes]
    notes: tuple[str, ...]


class Victim:
    """A store of a few blobs, closed or left as a power cut leaves it.

    ``now`` is what it holds, ``before`` what it held before its last commit; ``frames`` says whose
    frame lies in which slot, ``log`` the offsets of the log's blocks; ``versions`` what each block
    of the file has held, oldest first.
    """

    def __init__(self, *, compactions: int, closed: bool, stamp: int = 1 << 20) -> None:
        self.closed = closed
        self.stamp = stamp  # frames' contents begin there
        self.compactions = compactions
        self.disk = SimDisk(image=used_image(16))
        self.versions: dict[int, list[bytes]] = {
            block: [self.disk.live.read(block * PAGE, PAGE)] for block in range(self.disk.live.size // PAGE)
        }
        self.last_write: dict[int, int] = {}
        self.contents: dict[bytes, set[bytes]] = {}
        loop = SimLoop()
        self._follow_writes()
        self._store = None
        try:
            loop.run(self._make(loop, compactions))
        finally:
            forget(self._store)
        self.disk.restart()
        self.image = self.disk.live
        for block in range(self.image.size // PAGE):
            self.versions.setdefault(block, [bytes(PAGE)])

    def _follow_writes(self) -> None:
        finish = self.disk.finish_write

        def finish_write(write, moved):
            finish(write, moved)
            for offset in range(write.offset, write.offset + moved, PAGE):
                self.last_write[offset // PAGE] = write.number
                self.versions.setdefault(offset // PAGE, [bytes(PAGE)]).append(
                    self.disk.live.read(offset, PAGE)
                )

        self.disk.finish_write = finish_write

    async def _commit(self, store, writes: dict[bytes, int], deletes=()) -> None:
        writes = {name: frame(self.stamp + number) for name, number in writes.items()}
        for name, content in writes.items():
            self.contents.setdefault(name, set()).add(content)
        await store.commit(lent(writes), deletes)

    async def _make(self, loop: SimLoop, compactions: int) -> None:
        self._store = store = await open_sim_store(self.disk, loop)
        for number in range(compactions + 1):
            await self._commit(store, {guid(n): 10 * number + n for n in range(4)})
            if number < compactions:
                await store._core.maintenance.start_compaction()
        for number in range(8 * compactions + 1):
            # Enough to fill a segment: the log takes another, and that may be one it had before.
            await self._commit(store, {guid(9): 100 + number})
        await self._commit(store, {}, [guid(3)])
        self.copy_before = self.disk.live.copy()
        self.before = await read_all(store)
        self.frames_before = self._frames(store, self.before)
        self.last_group = await self._end_of_log(store)
        await self._commit(store, {guid(0): 1000, guid(4): 1004})
        self.now = await read_all(store)
        core = store._core
        if not self.closed:
            # On their way when the power is cut; they must not lie where the last group would be missed.
            for number in range(20, 24):
                await store.write_blob(guid(number), frame(number))
        await core.log.wait_quiet()
        self.frames = self._frames(store, self.now)
        self.segments = [range(s.slot, s.slot + s.slots) for s in core.log.chain]
        self.log = [slot * PAGE for segment in self.segments for slot in segment]
        if self.closed:
            await store.aclose()

    def _frames(self, store, guids) -> dict[int, bytes]:
        return {store._core.index.find(name) >> SLOT_SHIFT: name for name in guids}

    async def _end_of_log(self, store) -> int:
        """Return the offset at which the next group will begin."""
        log = store._core.log
        await log.ensure_room(1)
        return log.next_offsets(1)[0]

    def twin(self) -> Image:
        """Return a copy of the file, made before the last commit, that went on by itself.

        Its next group takes two blocks, so that the one behind it, deletions only, stands one further on.
        """
        loop, disk, stores = SimLoop(), SimDisk(image=self.copy_before.copy()), []

        async def run() -> None:
            stores.append(store := await open_sim_store(disk, loop))
            many = {guid(1000 + number): frame(5000 + number) for number in range(RECORDS_PER_BLOCK + 1)}
            await store.commit(lent(many))
            await store.commit((), [guid(1), guid(2)])

        try:
            loop.run(run())
        finally:
            for store in stores:
                forget(store)
        return disk.live

    def groups(self) -> Iterator[int]:
        """Yield the offsets of blocks that hold something, in the log's order, from its head to its last group."""
        for offset in self.log:
            if any(self.image.read(offset, PAGE)):
                yield offset

    def flipped(self, bit: int) -> Image:
        """Return the file with one bit flipped."""
        image = self.image.copy()
        image.flip(bit)
        return image

    def with_blocks(self, blocks: dict[int, bytes]) -> Image:
        """Return the file with these blocks in place of its own."""
        image = self.image.copy()
        for block, content in blocks.items():
            image.write(block * PAGE, content)
        return image

    def open_flipped(self, bit: int) -> Seen:
        """Return what is there with ``bit`` flipped."""
        return see(self.flipped(bit))

    def __str__(self) -> str:
        return f"{'closed' if self.closed else 'cut off'}, {self.compactions} compactions"


def see(image: Image) -> Seen:
    """Open ``image`` and read everything; raises what opening raises."""
    loop = SimLoop()
    disk = SimDisk(image=image)
    found: dict[bytes, bytes] = {}
    bad: set[bytes] = set()

    async def run():
        store = await open_sim_store(disk, loop, instant=True)
        room = bytearray(PAGE)
        try:
            for name in await store.list_blobs():
                try:
                    await store.read_blob(name, room)
                    found[bytes(name)] = bytes(room)
                    assert (await store.stat_blob(name)).meta == meta_of(room), "metadata of another frame"
                except BlobCorrupt as error:
                    bad.add(bytes(error.guid or b""))
            return tuple(store._core.notes)
        finally:
            forget(store)

    notes = loop.run(run())
    return Seen(found, bad, notes)
