"""Lives with reader processes beside a writer: every state that one shows was committed, and stays what it was.

A reader is a store of its own on the writer's simulated disk.  What readers have seen is kept with the number
of the state that they said they show, and judged when the life is over and all states are known.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import gc
import random

from sim.lives import PAGE, small_log
from uringblob import BlobGuid, BlobNotFound, StoreLocked
from uringblob.testing import SimDisk, SimLoop, new_image, open_sim_store

GUIDS = [BlobGuid(bytes([number]) * 16) for number in range(6)]
READERS_MAX = 3


def frame(version: int) -> bytes:
    return version.to_bytes(8, "big") * (PAGE // 8)


class ReadersLife:
    """One writer, now and then killed or closed and opened again, and readers that come, move on and die."""

    def __init__(self, seed: int, *, steps: int = 60) -> None:
        self.rng = random.Random(seed)
        self.disk = SimDisk(seed, image=new_image(PAGE))
        self.loop = SimLoop()
        self.steps = steps
        self.version = 0
        self.now: dict[bytes, int] = {}
        #: The states, each with its number; a state holds until the next number.
        self.numbers, self.states = [1], [dict[bytes, int]()]
        #: What an interrupted commit would have made of the last state.
        self.half: dict[bytes, int] | None = None
        self.seen: list[tuple[int, dict[bytes, int]]] = []
        self.refreshed = self.moved = self.kills = self.reopened = self.cuts = 0
        self.over = False

    def run(self) -> None:
        self.loop.run(self._run())
        complaints = [c for c in self.loop.complaints if "was destroyed" not in c["message"]]  # the killed
        assert not complaints, complaints
        self._judge()

    async def _run(self) -> None:
        await self._open_writer()
        readers = [asyncio.ensure_future(self._reader()) for _ in range(self.rng.randint(1, READERS_MAX))]
        try:
            for _ in range(self.steps):
                await self._step()
        finally:
            self.over = True
            await asyncio.gather(*readers)
        slots = self.store._core.index.slots
        await self.store.commit([(GUIDS[0], frame(0))])
        await self.store.commit([(GUIDS[0], frame(0))])
        assert not slots.kept, "slots are kept, and no reader is left"
        await self.store.aclose()

    # --- the writer ------------------------------------------------------------------------

    async def _open_writer(self) -> None:
        while True:
            with contextlib.suppress(StoreLocked):  # a reader reads alone at this moment
                self.store = await open_sim_store(self.disk, self.loop, rng=self.rng, beside=True)
                break
            await asyncio.sleep(0)
        if self.half is not None:
            seq = self.store._core.index.seq
            if await self._map_of(self.store) == self.half:
                self._durable(self.half, seq)
            self.half = None

    def _durable(self, state: dict[bytes, int], seq: int) -> None:
        self.now = state
        self.numbers.append(seq)
        self.states.append(state)

    async def _step(self) -> None:
        chance = self.rng.random()
        if chance < 0.06:
            await self.store.aclose()
            self.reopened += 1
            await self._open_writer()
        elif chance < 0.12:
            await self._kill_writer()
        elif chance < 0.2:
            with contextlib.suppress(Exception):
                await self.store._core.maintenance.start_compaction()
        else:
            await self._commit()

    def _next(self) -> tuple[dict[bytes, int], list, list]:
        count = self.rng.choice((1, 1, 2, 3))
        chosen = self.rng.sample(GUIDS, count)
        state, writes, deletes = dict(self.now), [], []
        for name in chosen:
            if self.rng.random() < 0.25:
                state.pop(name, None)
                deletes.append(name)
            else:
                self.version += 1
                state[name] = self.version
                writes.append((name, frame(self.version)))
        return state, writes, deletes

    async def _commit(self) -> None:
        state, writes, deletes = self._next()
        if self.rng.random() < 0.8:
            await self.store.commit(writes, deletes)
        else:
            await self.store.write_blobs(writes)
            for name in deletes:
                await self.store.delete_blob(name)
            await self.store.flush()
        if state != self.now:
            self._durable(state, self.store._core.index.seq)

    async def _kill_writer(self) -> None:
        """It dies with a commit under way."""
        state, writes, deletes = self._next()
        task = asyncio.ensure_future(self.store.commit(writes, deletes))
        for _ in range(self.rng.randrange(8)):
            await asyncio.sleep(0)
        if task.done():
            task.result()
            self._durable(state, self.store._core.index.seq)
        else:
            self.half = state
        self._kill(self.store)
        await self._open_writer()

    def _kill(self, store) -> None:
        """Nothing that is left of it in this process reaches the disk any more."""
        engine = store._core.file_io.engine
        store.abandon()
        getattr(engine, "engine", engine).disk = SimDisk(image=self.disk.live.copy())
        self.kills += 1

    # --- readers ---------------------------------------------------------------------------

    async def _reader(self) -> None:
        while not self.over:
            for _ in range(self.rng.choice((0, 0, 60))):
                await asyncio.sleep(0)
            try:
                store = await open_sim_store(self.disk, self.loop, rng=self.rng, read_only=True, beside=True)
            except StoreLocked:
                await asyncio.sleep(0)  # a writer is opening
                continue
            for _ in range(self.rng.randrange(1, 9)):
                await self._look(store)
                if self.rng.random() < 0.5:
                    self.moved += await store.refresh()
                    self.refreshed += 1
                for _ in range(self.rng.randrange(12)):
                    await asyncio.sleep(0)
            if self.rng.random() < 0.2:
                self._kill(store)
            else:
                await store.aclose()

    async def _look(self, store) -> None:
        """Look at all of it, slowly; through a snapshot, too, beside a refresh."""
        seq = store._core.view.seq
        if self.rng.random() < 0.3:
            async with await store.snapshot() as snapshot:
                self.moved += await store.refresh()
                await asyncio.sleep(0)
                self.seen.append((seq, await self._map_of(snapshot)))
            return
        self.seen.append((seq, await self._map_of(store)))
        if self.rng.random() < 0.1:
            report = await store.verify()
            # A writer that was killed leaves one superblock torn.
            assert not report.bad, report
            assert all("superblock" in str(error) for error in report.metadata_errors), report
        if self.rng.random() < 0.1:
            await self._cut(seq)

    async def _map_of(self, store) -> dict[bytes, int]:
        found, room = {}, bytearray(PAGE)
        for name in GUIDS:
            with contextlib.suppress(BlobNotFound):
                await store.read_blob(name, room)
                found[bytes(name)] = int.from_bytes(room[:8], "big")
        return found

    async def _cut(self, seq: int) -> None:
        """Cut the power now: what a reader has seen is there afterwards."""
        disk, loop = SimDisk(self.rng.getrandbits(30), image=self.disk.crash(self.rng)), SimLoop()

        async def recover() -> tuple[int, dict[bytes, int]]:
            async with await open_sim_store(disk, loop, instant=True) as store:
                return store._core.index.seq, await self._map_of(store)

        after, found = loop.run(recover())
        assert after >= seq, f"a reader has seen group {seq}, and a power cut leaves {after}"
        self.cuts += 1

    # --- the judgement ---------------------------------------------------------------------

    def _judge(self) -> None:
        assert self.seen
        for seq, found in self.seen:
            state = self.states[bisect.bisect_right(self.numbers, seq) - 1]
            assert found == state, f"a reader at group {seq} has seen {found}, and it was {state}"


def live(seed: int, **options) -> ReadersLife:
    """Live one life; a failure names its seed."""
    with small_log(seed=seed):
        life = ReadersLife(seed, **options)
        try:
            life.run()
        except Exception as error:
            raise AssertionError(f"{error!r}\nreplay: seed={seed}") from error
        finally:
            gc.collect(0)
    return life
