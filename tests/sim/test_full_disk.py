"""A store on a disk that is full, at every 4 KiB around the edge (row 7 of the faults)."""

from __future__ import annotations

import errno

import pytest

from sim.rig import PAGE, frame, guid, read_all, recover, small_log
from uringblob.errors import BlobStoreIOError
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.history import History
from uringblob.testing.sim.image import Image
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import new_image, open_sim_store

pytestmark = pytest.mark.one_interpreter

#: Blocks beyond the empty store at which there is room for a first blob, and a few before that.
FIRST = 40
LEVELS = 64
MOST = 40


def check_no_room(error: BlobStoreIOError) -> None:
    assert error.errno == errno.ENOSPC, error
    assert error.applied is False, error


class Diary:
    """Calls that the history knows of; ``refused`` counts those for which there was no room."""

    def __init__(self, store, history: History) -> None:
        self.store = store
        self.history = history
        self.refused = 0

    async def commit(self, writes: dict[bytes, bytes], deletes: tuple[bytes, ...] = ()) -> bool:
        call = self.history.begin("commit", {**writes, **dict.fromkeys(deletes)}, atomic=True)
        try:
            await self.store.commit(list(writes.items()), deletes)
        except BlobStoreIOError as error:
            check_no_room(error)
            self.history.end(call, refused=True)
            self.refused += 1
            return False
        self.history.end(call, durable=True)
        return True


async def fill(diary: Diary) -> int:
    """Commit new blobs until there is no room; return how many there are."""
    for number in range(MOST):
        if not await diary.commit({guid(number): frame(number)}):
            return number
    return MOST


async def live_on_a_full_disk(disk, loop, history, *, rounds: int) -> Diary:
    """Fill the disk, then delete and write again and again: neither frames nor the log may starve."""
    diary = Diary(await open_sim_store(disk, loop), history)
    count = await fill(diary)
    assert sorted(await read_all(diary.store)) == [guid(n) for n in range(count)]
    assert not diary.store.stats().poisoned
    diary.refused = 0
    last = guid(0)
    for number in range(rounds if count else 0):
        new = guid(1000 + number)
        await diary.commit({}, (last,))
        await diary.commit({new: frame(1000 + number)})
        last = new
    before = await read_all(diary.store)
    assert (await diary.store.verify()).ok
    await diary.store.aclose()
    store = await open_sim_store(disk, loop)
    assert await read_all(store) == before
    await store.aclose()
    return diary


def check_level(base: Image, level: int, *, sparse: bool, rounds: int, deep: bool) -> None:
    """Live on a disk with room for ``level`` blocks more than ``base``; judge what it leaves."""
    history = History()
    loop = SimLoop()
    disk = SimDisk(level, image=base.copy(), capacity=base.size + level * PAGE, sparse=sparse)
    try:
        diary = loop.run(live_on_a_full_disk(disk, loop, history, rounds=rounds))
        assert sparse or not diary.refused
        recover(disk.durable, history.knowledge(), deep=deep and not sparse)
    except Exception as error:
        raise AssertionError(f"{error!r}\nreplay: {sparse=} {level=} {rounds=}") from error


@pytest.mark.parametrize("sparse", [False, True], ids=["growth fails", "writes fail"])
def test_every_level_of_a_full_disk(sparse, count_row):
    """Where growth allocates, a delete is never refused and always frees.

    Where it does not (``sparse``: no fallocate), the log's reserve is a promise that the disk may
    break: then calls are refused with ENOSPC, but nothing is lost and nothing is poisoned.
    """
    with small_log(segment_bytes=16 * PAGE):
        base = new_image(PAGE)
        for level in range(FIRST, FIRST + LEVELS):
            check_level(base, level, sparse=sparse, rounds=40 if level % 8 == 0 else 5, deep=level % 8 == 0)
    count_row(7, levels=LEVELS)
