"""Many who commit on condition, and power cuts: what each was answered must be one order of them all.

Counters are raised by who has read them, on condition that nobody else has; names are created by whoever
comes first.  Two counters are always raised by one commit, so they are equal wherever one looks.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
from typing import NamedTuple

from sim.faulty import Failing
from sim.judging import recover
from sim.lives import PAGE, forget, frame, guid, lend, lent, read_all, small_log, used_image
from uringblob import BlobNotFound, BlobStoreError, BlobStoreIOError, ConditionFailed
from uringblob.buffers.checksum import frame_checksum
from uringblob.store.index.slot_states import SlotState
from uringblob.testing.sim.disk import Fault, SimDisk
from uringblob.testing.sim.image import Image
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import open_sim_store

#: Two blobs that count together, and one that counts alone.
PAIR, ALONE = (guid(1), guid(2)), guid(3)
NAMES = [guid(100 + n) for n in range(12)]
STAMPS = {frame(value): value for value in range(1000)}
CHECKSUMS = {frame_checksum(content): value for content, value in STAMPS.items()}


class Known(NamedTuple):
    """What was answered, and what was asked for, by a moment."""

    acknowledged: dict[bytes, int]
    attempted: dict[bytes, int]
    created: dict[bytes, bytes]


class Race:
    """One opening of a store, and ``tasks`` that race; an image at every step."""

    def __init__(self, seed: int, *, tasks: int = 6, calls: int = 40, fault: Failing | None = None) -> None:
        self.rng = random.Random(seed)
        self.loop = SimLoop()
        self.disk = SimDisk(seed, image=used_image(60))
        self.fault = fault
        self.tasks, self.left = tasks, calls
        self.acknowledged: dict[bytes, int] = dict.fromkeys((*PAIR, ALONE), 0)
        self.attempted = dict(self.acknowledged)
        self.created: dict[bytes, bytes] = {}
        self.counted: set[tuple[bytes, int]] = set()
        self.moments: list[tuple[Image, Known]] = []
        self.refused: collections.Counter = collections.Counter()
        self._stamp = 500
        self.store = None

    def step(self, _why: str) -> None:
        known = Known(dict(self.acknowledged), dict(self.attempted), dict(self.created))
        self.moments.append((self.disk.crash(self.rng), known))

    async def run(self) -> None:
        self.store = store = await open_sim_store(self.disk, self.loop, rng=self.rng)
        store._core.maintenance.compaction_blocks_min = self.rng.choice((3, 6, 1000))
        counters = (*PAIR, ALONE)
        await store.commit(lent(dict.fromkeys(counters, frame(0))), if_absent=counters)
        self.disk.on_step, self.disk.faults, self.disk.requests = self.step, self.fault, 0
        await asyncio.gather(*(self._task() for _ in range(self.tasks)))
        assert store._core.index.slots.count(SlotState.WRITING) == 0, "a call kept a slot"
        if store._core.file_io.poison_cause is None:
            self._judge(await read_all(store), self._now())

    def _now(self) -> Known:
        return Known(self.acknowledged, self.attempted, self.created)

    async def _task(self) -> None:
        while self.left > 0:
            self.left -= 1
            call = self.rng.choice((self._raise, self._raise, self._raise_pair, self._create, self._noise))
            with contextlib.suppress(ConditionFailed):
                await call()

    async def _value(self, name: bytes) -> tuple[int, int]:
        room = bytearray(PAGE)
        await self.store.read_blob(name, room)
        return STAMPS[bytes(room)], frame_checksum(room)

    async def _raise(self) -> None:
        await self._raise_all([ALONE])

    async def _raise_pair(self) -> None:
        await self._raise_all(PAIR)

    async def _raise_all(self, names) -> None:
        seen = {}
        for name in names:
            seen[name] = await self._value(name)
        if self.rng.random() < 0.3:
            await asyncio.sleep(0)
        value = seen[names[0]][0] + 1
        for name in names:
            self.attempted[name] = max(self.attempted[name], value)
        writes = [(name, lend(frame(value))) for name in names]
        conditions = {name: checksum for name, (_, checksum) in seen.items()}
        if not await self._commit(writes, if_checksum=conditions):
            return
        for name in names:
            assert (name, value) not in self.counted, f"{value} was counted twice"
            self.counted.add((name, value))
            self.acknowledged[name] = max(self.acknowledged[name], value)

    async def _create(self) -> None:
        name = self.rng.choice(NAMES)
        self._stamp += 1
        content = frame(self._stamp)
        # On condition of a blob that it does not change, too.
        if await self._commit([(name, lend(content))], if_absent=[name, guid(99)]):
            assert name not in self.created, "it was created twice"
            self.created[name] = content

    async def _noise(self) -> None:
        kind = self.rng.choice(("write", "commit", "flush", "compact"))
        with contextlib.suppress(BlobStoreIOError, BlobNotFound):
            if kind == "write":
                await self.store.write_blob(guid(50), lend(frame(9)))
            elif kind == "commit":
                await self.store.commit([(guid(51), lend(frame(9)))])
            elif kind == "flush":
                await self.store.flush()
            else:
                self.store._core.maintenance.start_compaction()

    async def _commit(self, writes, **conditions) -> bool:
        """Commit; false if there was no room."""
        try:
            await self.store.commit(writes, **conditions)
        except ConditionFailed as error:
            self.refused["condition"] += 1
            if error.guid in self.acknowledged:
                # What it has found is durable: nobody may lose it any more.
                known = max(self.acknowledged[error.guid], CHECKSUMS[error.found])
                self.acknowledged[error.guid] = known
            raise
        except BlobStoreIOError:
            self.refused["room"] += 1
            assert self.fault is not None, "a sound disk refused a commit"
            return False
        return True

    @staticmethod
    def _judge(found: dict[bytes, bytes], known: Known) -> None:
        values = {name: STAMPS[found[name]] for name in (*PAIR, ALONE)}
        assert values[PAIR[0]] == values[PAIR[1]], f"half of a commit: {values}"
        for name, value in values.items():
            least, most = known.acknowledged[name], known.attempted[name]
            assert least <= value <= most, f"{value} where {least} to {most} were counted"
        for name, content in known.created.items():
            assert found.get(name) == content, "a name is not its creator's"


def race(seed: int, *, every: int = 5, fault: Failing | None = None) -> collections.Counter:
    """Race, and judge every ``every``-th image; return what was met."""
    figures: collections.Counter = collections.Counter()
    rng = random.Random(seed)
    knobs = {"segment_bytes": rng.choice((4, 16)) * PAGE, "large_group": rng.choice((None, 2 * PAGE))}
    try:
        with small_log(seed=seed, **knobs):
            one = Race(seed, tasks=rng.choice((2, 6, 16)), fault=fault)
            try:
                one.loop.run(one.run())
                assert not one.loop.complaints, one.loop.complaints
                for image, known in one.moments[::every]:
                    one._judge(recover(image, None), known)
                    figures["disk images"] += 1
            finally:
                forget(one.store)
    except (AssertionError, BlobStoreError) as error:
        raise AssertionError(f"{error!r}\nreplay: race seed={seed} image=0 {fault}") from error
    figures["raised"] = sum(one.acknowledged.values())
    figures["created"] = len(one.created)
    figures.update(one.refused)
    return figures


def race_on_a_full_disk(seed: int) -> collections.Counter:
    """One write in the race finds no room: its group is wiped, and the others are checked again."""
    rng = random.Random(seed)
    return race(seed, fault=Failing(rng.randrange(40), Fault(28), kinds=("write",)))
