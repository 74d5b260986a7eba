"""A flipped bit anywhere: what a store of five blobs says of it (row 8 of the faults).

* in a frame: ``BlobCorrupt`` for that blob, all others stay readable;
* in one superblock: nothing;
* in the log of a store that was closed: ``StoreCorrupt``, with an offset;
* in the log of a store that was not: the same, but in its last group it may look like a torn write;
  then that group is left out, as a whole, and the store says so;
* in what the store does not use: nothing.
"""

from __future__ import annotations

import pytest

from sim.rig import PAGE, forget, frame, guid, read_all, small_log
from sim.settings import EVERY_BIT
from uringblob.errors import BlobCorrupt, StoreCorrupt
from uringblob.testing.sim_disk import SimDisk
from uringblob.testing.sim_loop import SimLoop
from uringblob.testing.sim_store import new_image, open_sim_store

pytestmark = pytest.mark.one_interpreter

#: Bits between two that are tried: coprime to the sizes of sectors, cells and fields.
STEP = 1 if EVERY_BIT else 613


class Victim:
    """A store, what it holds, what it held before its last commit, and where everything lies."""

    def __init__(self, *, compactions: int, closed: bool) -> None:
        self.closed = closed
        self.disk = SimDisk(image=new_image(PAGE))
        loop = SimLoop()
        loop.run(self._make(loop, compactions))
        self.disk.restart()
        self.image = self.disk.live

    async def _make(self, loop: SimLoop, compactions: int) -> None:
        store = await open_sim_store(self.disk, loop)
        for number in range(compactions + 1):
            await store.commit([(guid(n), frame(10 * number + n)) for n in range(4)])
            if number < compactions:
                await store._core.upkeep.start_compaction()
        for number in range(8 * compactions + 1):
            # Enough to fill a segment: the log takes another, and that may be one it had before.
            await store.commit([(guid(9), frame(100 + number))])
        await store.commit((), [guid(3)])
        self.before = await read_all(store)
        await store.commit([(guid(0), frame(1000)), (guid(4), frame(1004))])
        self.now = await read_all(store)
        core = store._core
        if not self.closed:
            # On their way when the power is cut; they must not lie where the last group would be missed.
            for number in range(20, 24):
                await store.write_blob(guid(number), frame(number))
        await core.queue.log.wait_quiet()
        manifest = core.manifest
        self.frames = {manifest.find(g) >> 64: g for g in self.now}
        self.log = [
            segment.slot * PAGE + block * PAGE
            for segment in core.queue.log.chain
            for block in range(segment.slots)
        ]
        if self.closed:
            await store.aclose()
        else:
            forget(store)

    def open_flipped(self, bit: int):
        """Return what is there with ``bit`` flipped, the guids that are corrupt, and the notes."""
        image = self.image.copy()
        image.flip(bit)
        loop = SimLoop()
        disk = SimDisk(image=image)
        found: dict[bytes, bytes] = {}
        bad: set[bytes] = set()

        async def run():
            store = await open_sim_store(disk, loop)
            try:
                for name in await store.list_blobs():
                    room = bytearray(PAGE)
                    try:
                        await store.read_blob(name, room)
                        found[bytes(name)] = bytes(room)
                    except BlobCorrupt as error:
                        bad.add(bytes(error.guid or b""))
                return store.stats().notes
            finally:
                forget(store)

        notes = loop.run(run())
        return found, bad, notes


def bits(offset: int, size: int, step: int):
    return range(offset * 8, (offset + size) * 8, step)


@pytest.fixture(scope="module", params=[(0, True), (0, False), (1, True), (1, False)], ids=str)
def victim(request):
    compactions, closed = request.param
    with small_log(segment_bytes=8 * PAGE):
        yield Victim(compactions=compactions, closed=closed)


def check_superblocks(victim, step=STEP):
    """Either superblock may be damaged: the newest acknowledged commit is there."""
    for bit in bits(0, 2 * PAGE, step):
        found, bad, _ = victim.open_flipped(bit)
        assert (found, bad) == (victim.now, set()), f"bit {bit}"


def check_frames(victim, step=STEP * 2):
    for slot, name in victim.frames.items():
        others = {g: f for g, f in victim.now.items() if g != name}
        for bit in bits(slot * PAGE, PAGE, step):
            found, bad, notes = victim.open_flipped(bit)
            if not victim.closed and notes:
                # The last group of a store that was not closed: it cannot be told from a torn write.
                assert name in (guid(0), guid(4))
                assert found == victim.before, f"bit {bit}"
                continue
            assert (found, bad) == (others, {name}), f"bit {bit}"


def check_log(victim, step=STEP):
    silent = dropped = detected = unplaced = 0
    for offset in victim.log:
        for bit in bits(offset, PAGE, step):
            try:
                found, bad, notes = victim.open_flipped(bit)
            except StoreCorrupt as error:
                detected += "offset" in str(error)
                unplaced += "offset" not in str(error)
                continue
            assert not bad, f"bit {bit}"
            if found != victim.now:
                assert found == victim.before, f"bit {bit}: neither the last state nor the one before"
                assert notes, f"bit {bit}: the last group was left out without a word"
                assert not victim.closed, f"bit {bit}: a sealed group was left out"
                dropped += 1
            else:
                silent += 1
    # Blocks in use: header, snapshot, carry, and the groups behind it.
    assert detected > 0
    assert not unplaced
    assert bool(dropped) is not victim.closed
    assert silent > 0  # blank blocks behind the last group


def test_everything_else(victim):
    """Free slots and the reserve may hold anything."""
    used = {*victim.log, 0, PAGE, *(slot * PAGE for slot in victim.frames)}
    # What the last group replaced is needed when that group is left out, and only then.
    for offset in range(0, victim.image.size, PAGE):
        if offset not in used:
            found, bad, _ = victim.open_flipped(offset * 8 + 1234)
            assert (found, bad) == (victim.now, set()), f"offset {offset}"


def test_superblocks(victim):
    check_superblocks(victim)


def test_frames(victim):
    check_frames(victim)


def test_log(victim):
    check_log(victim)
