"""Lives with vacuums: frames move, log space shrinks and the file is cut beside everything else."""

from __future__ import annotations

import contextlib
import functools
from unittest import mock

from sim.lives import PAGE, Life
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
    """Beside its other calls it deletes many blobs at once, and vacuums: to the end, or a step of it."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.vacuums = self.moved = self.freed = self.given_up = 0
        # Frames that a snapshot shows are not moved, so every second life has none.
        self._others = super().one_call if self.rng.random() < 0.5 else functools.partial(Life.one_call, self)

    def run(self) -> None:
        with small_vacuum_steps():
            super().run()

    async def one_call(self) -> None:
        chance = self.rng.random()
        if chance < 0.12:
            await self._vacuum()
        elif chance < 0.2:
            await self._clear()
        else:
            await self._others()

    async def _vacuum(self) -> None:
        before = self.store.stats().slots_log
        try:
            stats = await self.store.vacuum(self.rng.choice((None, None, 0)))
        except BlobStoreError as error:
            self._failed(error)
            return
        self.vacuums += 1
        self.moved += stats.moved
        self.freed += stats.bytes_freed
        self.given_up += self.store.stats().slots_log < before
        self.step("vacuumed")

    async def _clear(self) -> None:
        changes = dict.fromkeys(self._pick(len(self.guids)))
        await self.change(
            "clear", changes, lambda: self.store.commit(deletes=list(changes)), atomic=True, durable=True
        )


def vacuum_options(seed: int) -> dict:
    """What kind of lives a seed's are: with blobs enough that log space grows for them, and shrinks."""
    return {**options_of(seed), "calls": 40, "guids": (8, 20, 30)[seed % 3]}
