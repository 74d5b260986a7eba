"""A store on a disk that needs new room even to overwrite, full at every 4 KiB around the edge.

There the log's reserve is no promise: any change may be refused, and so may the wiping of what it left.
What holds all the same: nothing is poisoned, everything stays readable, the store can be opened after
every crash while the disk is as full, and as soon as there is room, changes go on.
"""

from __future__ import annotations

import errno
import random

import pytest

from sim.rig import PAGE, frame, guid, read_all, recover, small_log
from uringblob.errors import BlobStoreIOError
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.history import History
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import new_image, open_sim_store

pytestmark = pytest.mark.one_interpreter

#: Blocks beyond the empty store: from no room for a first blob to a few dozen.
LEVELS = range(30, 94, 4)
MOST = 40
OUTCOMES = ("done", "refused", "unknown", "opened with a repair due")
#: What is made free in the end: enough for every segment that the log wants.
ROOM = 256 * PAGE
#: Crash images that are judged of one life.
IMAGES = 12


class Life:
    """Changes on a full disk, each with its outcome as the caller is told it."""

    def __init__(self, disk: SimDisk, history: History) -> None:
        self.disk = disk
        self.history = history
        self.outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)

    async def commit(self, store, writes, deletes=()) -> bool:
        call = self.history.begin("commit", {**writes, **dict.fromkeys(deletes)}, atomic=True)
        try:
            await store.commit(list(writes.items()), deletes)
        except BlobStoreIOError as error:
            if error.errno != errno.ENOSPC:
                raise
            self.outcomes["unknown" if error.applied is None else "refused"] += 1
            if error.applied is False:
                self.history.end(call, refused=True)
            return False
        self.history.end(call, durable=True)
        self.outcomes["done"] += 1
        return True

    async def run(self, store) -> None:
        """Fill the disk; delete, overwrite and write beyond that."""
        count = 0
        while count < MOST and await self.commit(store, {guid(count): frame(count)}):
            count += 1
        for number in range(0, count - 1, 2):
            await self.commit(store, {}, (guid(number),))
            await self.commit(store, {guid(number + 1): frame(1000 + number)})
            await self.commit(store, {guid(100 + number): frame(100 + number), guid(200): frame(number)})
        assert not store.stats().poisoned


async def live(disk, loop, history, *, direct_io=True) -> Life:
    life = Life(disk, history)
    store = await open_sim_store(disk, loop, direct_io=direct_io)
    await life.run(store)
    before = await read_all(store)
    await store.aclose()
    disk.on_step = lambda _why: None
    # It is as full as before, and opens.
    store = await open_sim_store(disk, loop, direct_io=direct_io)
    after = await read_all(store)
    History.judge(history.knowledge(), after)
    if not life.outcomes["unknown"]:
        assert after == before
    # There is room: it goes on, whatever was due.
    disk.capacity += ROOM
    assert await life.commit(store, {guid(250): frame(250)}, tuple(after)[:1])
    assert not any("make room" in note for note in store.stats().notes)
    assert (await store.verify()).ok
    await store.aclose()
    return life


async def open_as_full(image, loop, expected) -> bool:
    """Open what a crash left while the disk has not one block more; tell whether a repair was due."""
    disk = SimDisk(image=image.copy(), capacity=image.size, copies=True)
    store = await open_sim_store(disk, loop)
    assert await read_all(store) == expected
    due = any("make room" in note for note in store.stats().notes)
    with pytest.raises(BlobStoreIOError, match="make room" if due else None) as refused:
        await store.commit([(guid(251), frame(251))])
    assert (refused.value.errno, refused.value.applied) == (errno.ENOSPC, False)
    disk.capacity += ROOM
    await store.commit([(guid(251), frame(251))], list(expected)[:1])
    after = await read_all(store)
    await store.aclose()
    store = await open_sim_store(disk, loop)
    assert await read_all(store) == after
    assert (await store.verify()).ok
    await store.aclose()
    return due


@pytest.mark.parametrize("direct_io", [True, False], ids=["direct", "buffered"])
def test_every_level_of_a_full_disk_that_copies(direct_io, count_row):
    outcomes: dict[str, int] = {}
    with small_log(segment_bytes=16 * PAGE):
        base = new_image(PAGE)
        for level in LEVELS:
            try:
                for word, count in check_level(base, level, direct_io=direct_io).items():
                    outcomes[word] = outcomes.get(word, 0) + count
            except Exception as error:
                raise AssertionError(f"{error!r}\nreplay: {level=} {direct_io=}") from error
    assert all(outcomes.values()), f"the levels do not reach every outcome: {outcomes}"
    count_row(20, levels=len(LEVELS))


def check_level(base, level, *, direct_io) -> dict[str, int]:
    history, loop, rng = History(), SimLoop(), random.Random(level)
    disk = SimDisk(level, image=base.copy(), capacity=base.size + level * PAGE, copies=True)
    steps, kept = 0, []

    def on_step(_why):
        nonlocal steps
        steps += 1
        # Each step is as likely to be among those that are kept.
        place = len(kept) if len(kept) < IMAGES else rng.randrange(steps)
        if place < IMAGES:
            kept[place : place + 1] = [(disk.crash(rng), history.knowledge())]

    disk.on_step = on_step
    life = loop.run(live(disk, loop, history, direct_io=direct_io))
    for image, known in kept:
        expected = recover(image, known, deep=True)
        later = SimLoop()
        life.outcomes["opened with a repair due"] += later.run(open_as_full(image, later, expected))
    return life.outcomes
