"""Every short sequence of operations, every crash point, every subset of the un-flushed writes.

The sequences are walked as a tree: what the first operations of a sequence leave is judged once,
in the shorter sequence.  The store they begin from is small and used: its free slots hold frames
that were live once, and its log stands shortly before the end of a segment.
"""

from __future__ import annotations

import itertools
import random

from sim.rig import PAGE, Moment, forget, frame, guid, judge, read_all, recover, small_log
from uringblob.testing.history import History
from uringblob.testing.sim_disk import SimDisk
from uringblob.testing.sim_image import Image
from uringblob.testing.sim_loop import SimLoop
from uringblob.testing.sim_store import new_image, open_sim_store

A, B, C, D = (guid(n) for n in range(4))
OPERATIONS = ("put", "overwrite", "delete", "commit of two", "flush", "compaction")


def used_store(groups: int) -> Image:
    """A closed store with A and B, whose free slots were written before; ``groups`` moves the log's end."""
    loop = SimLoop()
    disk = SimDisk(image=new_image(PAGE))

    async def run():
        store = await open_sim_store(disk, loop)
        await store.commit([(guid(n), frame(900 + n)) for n in range(9)])
        await store.commit((), [guid(n) for n in range(2, 9)])
        for n in range(groups):
            await store.commit([(A, frame(800 + n)), (B, frame(700 + n))])
        await store.aclose()

    loop.run(run())
    disk.restart()
    return disk.live


class Sequence:
    """One sequence on the used store; ``moments`` are those of its last operation."""

    def __init__(self, image: Image, operations: tuple[str, ...], *, limit: int, torn: bool) -> None:
        self.loop = SimLoop()
        self.disk = SimDisk(image=image.copy())
        self.history = History()
        self.operations = operations
        self.moments: list[Moment] = []
        self.limit = limit
        self.torn = random.Random(repr(operations)) if torn else None
        self.most = 0
        self._stamps = itertools.count(1)
        self._last = False
        self.store = None

    def run(self) -> None:
        try:
            self.loop.run(self._run())
        finally:
            forget(self.store)

    def _step(self, why: str) -> None:
        if self._last:
            self.most = max(self.most, len(self.disk.unflushed))
            known = self.history.knowledge()
            for image in self.disk.all_crashes(self.limit, torn=self.torn):
                self.moments.append(Moment(image, known, why))

    async def _run(self) -> None:
        self.store = await open_sim_store(self.disk, self.loop)
        self.history.recovered(await read_all(self.store))
        self.disk.on_step = self._step
        for index, operation in enumerate(self.operations):
            self._last = index == len(self.operations) - 1
            await getattr(self, operation.replace(" ", "_"))()
            self._step(operation)
        # A background job (a segment being prepared) must not outlive the loop.
        self._last = False
        await self.store.aclose()
        assert recover(self.disk.live, self.history.knowledge()) is not None

    def _frame(self) -> bytes:
        return frame(next(self._stamps))

    async def _change(self, name, changes, do, *, durable=False) -> None:
        call = self.history.begin(name, changes, atomic=durable)
        await do()
        self.history.end(call, durable=durable)

    async def put(self) -> None:
        new = self._frame()
        await self._change("put", {C: new}, lambda: self.store.write_blob(C, new))

    async def overwrite(self) -> None:
        new = self._frame()
        await self._change("overwrite", {A: new}, lambda: self.store.write_blob(A, new))

    async def delete(self) -> None:
        await self._change("delete", {A: None}, lambda: self.store.delete_blob(A))

    async def commit_of_two(self) -> None:
        both = {A: self._frame(), D: self._frame()}
        await self._change("commit", both, lambda: self.store.commit(list(both.items())), durable=True)

    async def flush(self) -> None:
        began = self.history._tick()
        await self.store.flush()
        self.history.flushed(began)

    async def compaction(self) -> None:
        await self.store._core.upkeep.start_compaction()


def exhaust(length: int, *, groups: int, segment_blocks: int, limit: int = 10, torn: bool = False) -> dict:
    """Judge everything that sequences of up to ``length`` operations can leave; returns figures."""
    figures = {"sequences": 0, "images": 0, "most un-flushed": 0, "cut short": 0}
    with small_log(segment_bytes=segment_blocks * PAGE, seed=1):
        image = used_store(groups)
        for count in range(1, length + 1):
            for operations in itertools.product(OPERATIONS, repeat=count):
                _judge_all(image, operations, figures, limit=limit, torn=torn)
    return figures


def _judge_all(image: Image, operations: tuple[str, ...], figures: dict, *, limit: int, torn: bool) -> None:
    sequence = Sequence(image, operations, limit=limit, torn=torn)
    at, before = -1, None
    try:
        sequence.run()
        for at, moment in enumerate(sequence.moments):
            if before is not None and before.known == moment.known and before.image == moment.image:
                continue
            before = moment
            judge(moment, random.Random(at))
            figures["images"] += 1
    except Exception as error:
        raise AssertionError(f"{error!r}\nreplay: operations={operations} image={at}") from error
    figures["sequences"] += 1
    figures["most un-flushed"] = max(figures["most un-flushed"], sequence.most)
    figures["cut short"] += sequence.most > limit
