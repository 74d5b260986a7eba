"""Lives in which callers are cancelled at any moment, and use their buffers again at once.

Memory that is used while the disk still reads it is seen by :class:`SimEngine`; memory that the
disk still writes is seen here: it is filled with a pattern when its reader has been told.
"""

from __future__ import annotations

import asyncio
import random

from sim.rig import PAGE, Life, lend, meta_of, recover, small_log, used_image

_PATTERN = b"\xa5" * PAGE


class CancellingLife(Life):
    """Every other call is cancelled after a few ticks."""

    async def one_call(self) -> None:
        self.rooms: list[bytearray] = getattr(self, "rooms", [])
        kind = self.rng.choice((self._put, self._commit, self._read, self._read))
        task = asyncio.ensure_future(kind())
        for _ in range(self.rng.randrange(6)):
            await asyncio.sleep(0)
        if self.rng.random() < 0.6:
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        for room in self.rooms:
            assert room == _PATTERN, "a cancelled read wrote into its caller's buffer"

    async def _put(self) -> None:
        target, content = self.rng.choice(self.guids), self._content()
        await self._lent(
            {target: content}, lambda room: self.store.write_blob(target, room[0], meta_of(content))
        )

    async def _commit(self) -> None:
        changes = {g: self._content() for g in self._pick(3)}
        metas = list(map(meta_of, changes.values()))
        await self._lent(
            changes,
            lambda rooms: self.store.commit(list(zip(changes, rooms, metas, strict=True))),
            atomic=True,
            durable=True,
        )

    async def _lent(self, changes, do, *, atomic=False, durable=False) -> None:
        call = self.history.begin("call", changes, atomic=atomic)
        rooms = [lend(content) for content in changes.values()]
        try:
            await do(rooms)
            self.history.end(call, durable=durable)
        finally:
            for room in rooms:
                room[:] = _PATTERN

    async def _read(self) -> None:
        target, room = self.rng.choice(self.guids), bytearray(PAGE)
        began = self.history._tick()
        try:
            await self.store.read_blob(target, room)
            self.history.seen(target, bytes(room), began)
        except KeyError:
            self.history.seen(target, None, began)
        finally:
            room[:] = _PATTERN
            self.rooms.append(room)


def cancelling_life(seed: int) -> None:
    """Live one; what it leaves is judged like any other's."""
    with small_log(seed=seed):
        life = CancellingLife(used_image(8), random.Random(seed), calls=24, images_per_step=0)
        try:
            life.run()
            recover(life.disk.live, life.history.knowledge(), deep=True)
        except Exception as error:
            raise AssertionError(f"{error!r}\nreplay: cancelling seed={seed}") from error
