"""Lives with vacuums: frames move, log space shrinks and the file is cut beside everything else."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from unittest import mock

from sim.lives import PAGE, Life, lent
from sim.power_cuts import options_of
from sim.snapshots import SnapshotLife
from uringblob import tuning
from uringblob.errors import BlobStoreError


@contextlib.contextmanager
def small_vacuum_steps():
    """Move two frames at a time, look up three, cut at once, and punch single slots."""
    with (
        mock.patch.object(tuning, "VACUUM_FRAMES_AT_ONCE", 2),
        mock.patch.object(tuning, "VACUUM_FRAMES_FOUND", 3),
        mock.patch.object(tuning, "VACUUM_CUT_BYTES", PAGE),
        mock.patch.object(tuning, "PUNCHED_BYTES_MIN", PAGE),
    ):
        yield


class VacuumLife(SnapshotLife):
    """In rounds it writes many blobs, deletes many, and vacuums, to the end or a step, beside other calls."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **{**options, "tasks": 1})
        self.vacuums = self.moved = self.freed = self.given_up = 0
        # Frames that a snapshot shows are not moved, so most lives have none.
        self._others = super().one_call if self.rng.random() < 0.3 else functools.partial(Life.one_call, self)

    def run(self) -> None:
        with small_vacuum_steps():
            super().run()

    async def one_call(self) -> None:
        await self._many(self._content)
        await self._many(lambda: None)
        await asyncio.gather(self.vacuum(), *(self._beside() for _ in range(4)))

    async def _beside(self) -> None:
        for _ in range(self.rng.randrange(4)):
            self._left -= 1
            for _ in range(self.rng.randrange(8)):
                await asyncio.sleep(0)
            await self._others()

    async def vacuum(self) -> None:
        before = self.store.stats().slots_log
        try:
            stats = await self.store.vacuum(self.rng.choice((None, None, None, 0)))
        except BlobStoreError as error:
            self._failed(error)
            return
        self.vacuums += 1
        self.moved += stats.moved
        self.freed += stats.bytes_freed
        self.given_up += self.store.stats().slots_log < before
        self.step("vacuumed")

    async def _many(self, content) -> None:
        count = self.rng.randint(len(self.guids) // 2, len(self.guids))
        changes = {name: content() for name in self.rng.sample(self.guids, count)}
        writes = {name: frame for name, frame in changes.items() if frame is not None}
        deletes = [name for name in changes if name not in writes]
        await self.change(
            "many", changes, lambda: self.store.commit(lent(writes), deletes), atomic=True, durable=True
        )


def vacuum_options(seed: int) -> dict:
    """What kind of lives a seed's are: with blobs enough that log space grows for them, and shrinks."""
    return {**options_of(seed), "calls": 16, "guids": (6, 12, 24)[seed % 3]}
