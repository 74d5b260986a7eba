"""Overwriting and deleting without end, full disks emptied and filled again: how much room that takes (row 19).

What is done is the same on a real store and on a simulated disk that answers at once, where hundreds
of thousands of frames take seconds.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import mmap
import random
from unittest import mock

from sim.lives import forget
from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreIOError
from uringblob.testing.sim import store as sim_store
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.engine import SimEngine
from uringblob.testing.sim.image import BLOCK
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import new_image, open_sim_store

KIB, MIB = 1 << 10, 1 << 20
#: Zeroes that every frame here consists of: what room it takes is the question, not what it says.
_BLANK = mmap.mmap(-1, 16 * MIB)
#: What is replaced at a time is at most such a part of what is live.
_SHARE = 8
_MENUS = ((1, 64), (1, 2, 3, 5, 8, 13, 64), (64,), (7, 200), (1, 1000), (2500,))
#: A second filling holds at least so much of the first.
REFILL = 0.97
ORDERS = ("as written", "backwards", "every n-th", "at random")


def most_bytes(page_size: int, live: int) -> int:
    """Return how long the file of a store whose live size is constant may be; see ``docs/maintainers/format.md``."""
    return live * page_size * 5 // 4 + (4 * MIB if page_size <= 64 * KIB else 8 * page_size)


def blank(page_size: int) -> memoryview:
    return memoryview(_BLANK)[:page_size]


class Names:
    """The names of a store's blobs; each task replaces those of its own."""

    def __init__(self, live: int) -> None:
        self._fresh = (number.to_bytes(16, "big") for number in itertools.count())
        self.live = self.fresh(live)

    def fresh(self, count: int) -> list[bytes]:
        return list(itertools.islice(self._fresh, count))

    def renew(self, numbers: list[int]) -> tuple[list[bytes], list[bytes]]:
        """Give these blobs other names; returns the old ones and the new ones."""
        old, new = [self.live[number] for number in numbers], self.fresh(len(numbers))
        for number, name in zip(numbers, new, strict=True):
            self.live[number] = name
        return old, new


async def write(store, names: list[bytes], batch: int) -> None:
    frame = blank(store.page_size)
    for begin in range(0, len(names), batch):
        await store.commit([(name, frame) for name in names[begin : begin + batch]])


# --- a constant live size --------------------------------------------------------------------


async def churn(store, names: Names, dice: random.Random, operations: int) -> int:
    """Overwrite and delete, as many being live at the end as at the beginning; returns how many were."""
    tasks = dice.choice((1, 1, 4))
    most = max(1, len(names.live) // (_SHARE * tasks))
    sizes = [min(size, most) for size in dice.choice(_MENUS)]
    shares = [range(number, len(names.live), tasks) for number in range(tasks)]
    done = await asyncio.gather(
        *(_replace(store, names, share, dice, sizes, operations // tasks) for share in shares)
    )
    return sum(done)


async def _replace(store, names: Names, share, dice, sizes, operations: int) -> int:
    done, frame = 0, blank(store.page_size)
    while done < operations:
        numbers = dice.sample(share, dice.choice(sizes))
        kind = dice.choices(("overwrite", "flush", "rename", "delete, write"), (6, 1, 2, 1))[0]
        if kind == "overwrite":
            await store.commit([(names.live[number], frame) for number in numbers])
        elif kind == "flush":
            await store.write_blobs([(names.live[number], frame) for number in numbers])
            await store.flush()
        else:
            old, new = names.renew(numbers)
            if kind == "delete, write":
                await store.commit((), old)
                old = []
            await store.commit([(name, frame) for name in new], old)
            done += len(new)
        done += len(numbers)
    return done


def check_size(store, file_bytes: int, live: int) -> None:
    page_size = store.page_size
    assert store.stats().blobs == live
    assert file_bytes <= most_bytes(page_size, live), (
        f"{file_bytes} bytes for {live} frames of {page_size}: {file_bytes / page_size / live:.3f} times"
    )


def churn_simulated(seed: int, page_size: int, live: int, operations: int, *, openings: int = 3) -> int:
    """Do that on a simulated disk, in so many openings, some of which end by a kill."""
    dice, loop, names = random.Random(seed), SimLoop(), Names(live)
    disk = SimDisk(seed, image=new_image(page_size))

    async def one_opening(number: int) -> int:
        store = await open_sim_store(disk, loop, instant=True)
        try:
            if not number:
                await write(store, names.live, max(1, live // _SHARE // 2))
            done = await churn(store, names, dice, operations // openings)
            check_size(store, disk.live.size, live)
            if dice.random() < 0.5:
                await store.aclose()
        finally:
            forget(store)
        return done

    try:
        with mock.patch.object(sim_store, "SimEngine", Forgetful):
            return sum(loop.run(one_opening(number)) for number in range(openings))
    except Exception as error:
        replay = f"churn_simulated({seed}, {page_size}, {live}, {operations}, {openings=})"
        raise AssertionError(f"{error}\nreplay: {replay}") from error


class Forgetful(SimEngine):
    """Passes over a write of blank frames to where nothing else is: long ones take their time."""

    def _write(self, offset, frames, then) -> None:
        size = sum(frame.size for frame in frames)
        if all(frame.view.obj is _BLANK for frame in frames) and self.disk.live.blocks.keys().isdisjoint(
            range(offset // BLOCK, (offset + size) // BLOCK)
        ):
            self.counters.writes += 1
            self._when_complete(lambda: then(size), None)
        else:
            super()._write(offset, frames, then)


# --- a full disk -----------------------------------------------------------------------------


async def fill_up(store, names: Names, batches=(61, 1)) -> None:
    """Commit new blobs until there is no room for another one."""
    frame = blank(store.page_size)
    for batch in batches:
        while True:
            new = names.fresh(batch)
            try:
                await store.commit([(name, frame) for name in new])
            except BlobStoreIOError as error:
                if error.errno not in NO_SPACE_ERRNOS:
                    raise
                break
            names.live += new


async def refill(store, names: Names, dice: random.Random, *, deleted: float, order: str) -> int:
    """Delete such a part of what a full disk holds, overwrite a little, fill it again."""
    first, count = len(names.live), int(deleted * len(names.live))
    gone = {
        "as written": lambda: names.live[:count],
        "backwards": lambda: names.live[::-1][:count],
        "every n-th": lambda: [
            n for i, n in enumerate(names.live) if int(i * deleted) != int((i + 1) * deleted)
        ],
        "at random": lambda: dice.sample(names.live, count),
    }[order]()
    size = dice.choice((30, 100, 1000))
    for begin in range(0, len(gone), size):
        await store.commit(deletes=gone[begin : begin + size])
    names.live = sorted(set(names.live).difference(gone))
    for _ in range(200 if names.live else 0):
        await store.commit([(dice.choice(names.live), blank(store.page_size))])
    await fill_up(store, names)
    stats = store.stats()
    assert stats.blobs == len(names.live)
    assert stats.blobs >= REFILL * first, (
        f"{deleted:.0%} deleted {order}: then there is room for {stats.blobs} of {first} blobs,"
        f" {stats.slots_free} slots are free"
    )
    return len(gone) + len(names.live)


async def delete_all(store, names: Names, dice: random.Random, *, a_commit: int) -> int:
    """Delete everything on a full disk, beside compactions and other committers: none is refused."""
    ended = False
    others, gone = names.live[:40], names.live[40:]
    dice.shuffle(gone)

    async def compact() -> None:
        while not ended:
            await store._core.maintenance.start_compaction()
            await asyncio.sleep(0)

    async def overwrite(mine: list[bytes]) -> None:
        while not ended:
            some = dice.sample(mine, dice.randint(1, len(mine)))
            try:
                await store.commit([(name, blank(store.page_size)) for name in some])
            except BlobStoreIOError as error:
                if error.errno not in NO_SPACE_ERRNOS:
                    raise
            await asyncio.sleep(0)

    tasks = [
        asyncio.ensure_future(job) for job in (compact(), overwrite(others[::2]), overwrite(others[1::2]))
    ]
    try:
        for begin in range(0, len(gone), a_commit):
            await store.commit(deletes=gone[begin : begin + a_commit])
    finally:
        ended = True
        await asyncio.gather(*tasks)
    assert store.stats().blobs == len(others)
    names.live = others
    return len(gone)


def full_disk_simulated(seed: int, page_size: int, frames: int, *, a_commit: int = 100) -> dict[str, int]:
    """Fill a disk with room for so many frames, empty it to a degree and fill it again; then delete all."""
    dice, loop, names = random.Random(seed), SimLoop(), Names(0)
    deleted, order = dice.choice((0.3, 0.5, 0.95, 1.0)), ORDERS[seed % len(ORDERS)]
    disk = SimDisk(seed, image=new_image(page_size), capacity=new_image(page_size).size + frames * page_size)
    done: collections.Counter = collections.Counter()

    async def run() -> None:
        store = await open_sim_store(disk, loop, instant=True)
        try:
            await fill_up(store, names, (max(1, frames // 100), 1))
            replaced = await refill(store, names, dice, deleted=deleted, order=order)
            await store.aclose()
            # Completions come one by one and late: what a compaction takes has time to be missing.
            store = await open_sim_store(disk, loop, rng=random.Random(seed))
            doomed = await delete_all(store, names, dice, a_commit=a_commit)
            await store.aclose()
        finally:
            forget(store)
        done.update({"frames of a full disk replaced": replaced, "deletes on a full disk": doomed})

    try:
        with mock.patch.object(sim_store, "SimEngine", Forgetful):
            loop.run(run())
    except Exception as error:
        replay = f"full_disk_simulated({seed}, {page_size}, {frames}, {a_commit=})"
        raise AssertionError(f"{error!r}\nreplay: {replay}") from error
    return done + collections.Counter({"full disks": 1})
