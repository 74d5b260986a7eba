"""Lives with snapshots: what one shows never changes, whatever is written, deleted, compacted or refused meanwhile."""

from __future__ import annotations

import contextlib
from typing import NamedTuple
from unittest import mock

from sim.lives import PAGE, Life
from uringblob import StoreClosed, tuning
from uringblob.checksums import frame_checksum
from uringblob.errors import BlobStoreIOError
from uringblob.store.log import in_turns

OPEN_MAX = 3


class Shot(NamedTuple):
    """A snapshot, and the checksums of what its store showed when it was taken."""

    snapshot: object
    shown: dict[bytes, int]


class SnapshotLife(Life):
    """Beside its other calls it takes snapshots, looks through them again and again, and closes them in any order."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.shots: list[Shot] = []
        self.taken = self.looks = 0

    async def one_call(self) -> None:
        chance = self.rng.random()
        if chance < 0.15 and len(self.shots) < OPEN_MAX:
            await self._take()
        elif chance < 0.45 and self.shots:
            await self._look(self.rng.choice(self.shots))
        elif chance < 0.52 and self.shots:
            await self._shut(self.rng.randrange(len(self.shots)))
        else:
            await super().one_call()

    async def _take(self) -> None:
        snapshot = await self.store.snapshot()
        # Nothing else runs between the moment and these questions, which are answered from memory.
        there = [name for name in self.guids if await self.store.has_blob(name)]
        self.shots.append(Shot(snapshot, {name: await self.store.checksum(name) for name in there}))
        self.taken += 1
        assert len(there) == snapshot._count, "it counts other blobs than there were"

    async def _look(self, shot: Shot) -> None:
        try:
            found = {bytes(name) for name in await shot.snapshot.list_blobs()}
            assert found == set(shot.shown), "a snapshot lists other blobs than there were"
            for name in self.guids:
                assert await shot.snapshot.has_blob(name) == (name in shot.shown)
            rooms = {name: bytearray(PAGE) for name in shot.shown}
            outcomes = await shot.snapshot.read_blobs(list(rooms.items()))
        except StoreClosed:
            return  # another task has closed it
        for (name, room), outcome in zip(rooms.items(), outcomes, strict=True):
            if isinstance(outcome, BlobStoreIOError):
                self._failed(outcome)
            elif not isinstance(outcome, StoreClosed):
                assert outcome is None, f"a snapshot cannot show {name.hex()} any more: {outcome}"
                assert frame_checksum(room) == shot.shown[name], f"a snapshot has changed at {name.hex()}"
        self.looks += 1

    async def _shut(self, index: int) -> None:
        await self.shots.pop(index).snapshot.aclose()

    async def _finish(self) -> None:
        await self.flush()
        for shot in self.shots:
            await self._look(shot)
        while len(self.shots) > self.rng.choice((0, 0, 1)):
            await self._shut(0)
        slots = self.store._core.index.slots
        assert self.shots or not (slots.held or slots._holds), "a slot is held, and no snapshot is open"
        await super()._finish()
        for shot in self.shots:
            with contextlib.suppress(StoreClosed):
                await shot.snapshot.list_blobs()
                raise AssertionError("a snapshot outlives its store")


@contextlib.contextmanager
def applied_one_by_one():
    """Every group is applied in turns, one change an iteration, and so are a snapshot's slots let go of."""
    with (
        mock.patch.object(tuning, "APPLIED_AT_ONCE", 0),
        mock.patch.object(tuning, "BYTES_PER_ITERATION", 1),
        mock.patch.object(in_turns, "GUIDS_AT_ONCE", 1),
    ):
        yield
