"""Every short sequence of operations, every crash point, every subset of the un-flushed writes.

The sequences are walked as a tree: what the first operations of a sequence leave is judged once,
in the shorter sequence.  The store they begin from is small and used: its free slots hold frames
that were live once, and its log stands shortly before the end of a segment.

The same operations are also begun *together*: then requests of several are in flight at once, they
complete in an order of the sequence's own, and up to a dozen writes are un-flushed.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import random
from collections.abc import Iterable

from sim.judging import Judge, recover
from sim.lives import (
    PAGE,
    Moment,
    Past,
    forget,
    frame,
    guid,
    lend,
    lent,
    meta_of,
    read_all,
    small_log,
    used_image,
)
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.history import History
from uringblob.testing.sim.image import Image
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import open_sim_store

A, B, C, D = (guid(n) for n in range(4))
OPERATIONS = ("put", "overwrite", "delete", "commit of two", "flush", "compaction")


def used_store(groups: int) -> Image:
    """A closed store with A and B, whose free slots were written before; ``groups`` moves the log's end."""
    loop = SimLoop()
    disk = SimDisk(image=used_image(24))

    async def run():
        store = await open_sim_store(disk, loop)
        await store.commit(lent({guid(n): frame(900 + n) for n in range(9)}))
        await store.commit((), [guid(n) for n in range(2, 9)])
        for n in range(groups):
            await store.commit(lent({A: frame(800 + n), B: frame(700 + n)}))
        await store.aclose()

    loop.run(run())
    disk.restart()
    return disk.live


class Sequence:
    """One sequence on the used store; ``moments`` are those of its last operation, or of all if together."""

    def __init__(
        self, image: Image, operations: tuple[str, ...], *, limit: int, torn: bool, together: bool
    ) -> None:
        self.loop = SimLoop()
        self.disk = SimDisk(image=image.copy())
        self.history = History()
        self.operations = operations
        self.moments: list[Moment] = []
        self.limit = limit
        self.rng = random.Random(repr(operations))
        self.torn = self.rng if torn else None
        self.together = together
        self.most = 0
        self.past = Past(image)
        self._stamps = itertools.count(1 << 16)  # whose frames have metadata
        self._last = False
        self.store = None

    def run(self) -> None:
        try:
            self.loop.run(self._run())
        finally:
            forget(self.store)

    def _step(self, why: str) -> None:
        if why == "write":
            self.past.see(self.disk.unflushed[-1])
        if self._last:
            self.most = max(self.most, len(self.disk.unflushed))
            known = self.history.knowledge()
            for image in self.disk.all_crashes(self.limit, torn=self.torn):
                self.moments.append(Moment(image, known, why))

    async def _run(self) -> None:
        rng = self.rng if self.together else None
        self.store = await open_sim_store(self.disk, self.loop, rng=rng)
        self.history.recovered(await read_all(self.store))
        self.disk.on_step = self._step
        if self.together:
            self._last = True
            await asyncio.gather(*(self._operate(operation) for operation in self.operations))
        else:
            for index, operation in enumerate(self.operations):
                self._last = index == len(self.operations) - 1
                await self._operate(operation)
        # A background job (a segment being prepared) must not outlive the loop.
        self._last = False
        await self.store.aclose()
        assert recover(self.disk.live, self.history.knowledge()) is not None

    async def _operate(self, operation: str) -> None:
        await getattr(self, operation.replace(" ", "_"))()
        self._step(operation)

    def _frame(self) -> bytes:
        return frame(next(self._stamps))

    async def _change(self, name, changes, do, *, durable=False) -> None:
        call = self.history.begin(name, changes, atomic=durable)
        await do()
        self.history.end(call, durable=durable)

    async def _write(self, name: bytes, content: bytes) -> None:
        await self.store.write_blob(name, lend(content), meta_of(content))

    async def put(self) -> None:
        new = self._frame()
        await self._change("put", {C: new}, lambda: self._write(C, new))

    async def overwrite(self) -> None:
        new = self._frame()
        await self._change("overwrite", {A: new}, lambda: self._write(A, new))

    async def delete(self) -> None:
        await self._change("delete", {A: None}, lambda: self.store.delete_blob(A))

    async def commit_of_two(self) -> None:
        both = {A: self._frame(), D: self._frame()}
        await self._change("commit", both, lambda: self.store.commit(lent(both)), durable=True)

    async def flush(self) -> None:
        began = self.history._tick()
        await self.store.flush()
        self.history.flushed(began)

    async def compaction(self) -> None:
        await self.store._core.maintenance.start_compaction()


def sequences(length: int) -> list[tuple[str, ...]]:
    """Every sequence of up to ``length`` operations."""
    return [
        operations
        for count in range(1, length + 1)
        for operations in itertools.product(OPERATIONS, repeat=count)
    ]


def exhaust(
    chosen: Iterable[tuple[str, ...]],
    *,
    groups: int,
    segment_blocks: int,
    limit: int = 10,
    torn: bool = False,
    together: bool = False,
    looks: int = 16,
) -> collections.Counter:
    """Judge everything that the ``chosen`` sequences can leave; returns figures.

    Every ``looks``-th different image is also opened read-only.
    """
    figures: collections.Counter = collections.Counter()
    judge = Judge(looks=looks)
    with small_log(segment_bytes=segment_blocks * PAGE, seed=1):
        image = used_store(groups)
        for operations in chosen:
            sequence = Sequence(image, operations, limit=limit, torn=torn, together=together)
            at = -1
            try:
                sequence.run()
                for at, moment in enumerate(sequence.moments):  # noqa: B007 - the replay line needs it
                    judge.look(moment.image, moment.known)
            except Exception as error:
                raise AssertionError(
                    f"{error!r}\nreplay: {operations} {groups=} {segment_blocks=} {torn=} {together=} image={at}"
                ) from error
            assert not sequence.past.over_fresh, "frames go to slots that were written before"
            figures["sequences"] += 1
            figures["crash points"] += len(sequence.moments)
            figures["most un-flushed"] = max(figures["most un-flushed"], sequence.most)
            figures["with more than the limit"] += sequence.most > limit
    figures["disk images"] = judge.opened
    figures["opened read-only"] = judge.looked
    figures["judged with other knowledge"] = judge.judged - judge.opened
    return figures
