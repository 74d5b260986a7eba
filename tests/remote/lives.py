"""Random lives of a store in a bucket: writers that take over from each other, readers, faults, sleep and death.

A life is judged by what was acknowledged alone: the commits of all writers, in the order of their epochs,
are a history; every state that a reader saw is one after a prefix of it, and the last one is the whole of it.
Of a commit whose outcome is unknown both are right, as long as it happened at its place.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random

from uringblob import BlobChanged, BlobGuid, BlobStoreIOError, ConditionFailed, WriterFenced
from uringblob.remote import AsyncRemoteBlobStore
from uringblob.remote.format import EPOCH_BYTES, decode_header, number_in
from uringblob.testing import SimLoop
from uringblob.testing.sim.bucket import SimBucket, chance

PAGE = 4096
GUIDS = [BlobGuid(bytes([number]) * 16) for number in range(1, 6)]
LEASE_S, GRACE_S = 600.0, 30.0
ACKNOWLEDGED, UNKNOWN, REFUSED = "acknowledged", "unknown", "refused"


def frame(stamp: int) -> bytes:
    return stamp.to_bytes(8, "little") * (PAGE // 8)


def stamp_of(room: bytes) -> int:
    stamp = int.from_bytes(room[:8], "little")
    assert bytes(room) == frame(stamp), "a frame is a mix of several"
    return stamp


async def look(store) -> dict:
    """Return the stamp of each blob, as one snapshot shows it."""
    async with await store.snapshot() as snapshot:
        return await look_at(snapshot)


async def look_at(snapshot) -> dict:
    rooms = {guid: bytearray(PAGE) for guid in await snapshot.list_blobs()}
    for error in await snapshot.read_blobs(list(rooms.items())):
        if error is not None:
            raise error
    return {guid: stamp_of(room) for guid, room in rooms.items()}


@dataclasses.dataclass
class Op:
    changes: dict
    outcome: str = UNKNOWN
    absent: tuple = ()  #: guids that must not have been there

    def after(self, state):
        """Return the state that follows, or ``None`` where this cannot have happened."""
        if any(bytes(guid) in dict(state) for guid in self.absent):
            return None
        return _key(_apply(dict(state), self.changes))


@dataclasses.dataclass
class Run:
    """What one writer did, in its epoch."""

    epoch: int
    ops: list[Op] = dataclasses.field(default_factory=list)
    fenced: bool = False
    _snapshot: object = None
    _then: object = None

    async def look_again(self, store):
        """Take a snapshot, or look whether the one that was taken is as it was."""
        if self._snapshot is None:
            self._snapshot = await store.snapshot()
            self._then = await look_at(self._snapshot)
        elif self._then is not None:
            assert await look_at(self._snapshot) == self._then, "a snapshot has changed"


class Machine:
    """A client that may sleep: whatever it would send waits until it wakes."""

    def __init__(self, life, rate):
        self.life = life
        self.client = life.bucket.client(chance(life.dice.random(), rate, in_a_row=life.in_a_row))
        self.client.before = self._before
        self.wakes_s = 0.0
        self.overslept = False

    async def _before(self, _request):
        loop = asyncio.get_running_loop()
        while loop.time() < self.wakes_s:
            await asyncio.sleep(self.wakes_s - loop.time())

    def sleep(self, seconds):
        self.wakes_s = asyncio.get_running_loop().time() + seconds
        self.overslept |= seconds > LEASE_S / 2


class Life:
    def __init__(self, seed, rate=0.1, writers=3, readers=2):
        self.dice = random.Random(f"life {seed}")
        self.loop = SimLoop()
        self.bucket = SimBucket(
            seed, list_lag=self.dice.choice([0, 0, 6]), clock=self.loop.time, name=f"sim://life-{seed}"
        )
        self.rate, self.writers, self.readers = rate, writers, readers
        self.in_a_row = self.dice.choice([2, 2, 4])
        self.runs: list[Run] = []
        self.seen: list[tuple[str, dict]] = []
        self.stamps = 0

    def run(self):
        self.loop.run(self._run())
        assert not self.loop.complaints, self.loop.complaints
        return self

    async def _run(self):
        tasks = []
        kinds = [self.writer] * self.writers + [self.reader] * self.readers
        self.dice.shuffle(kinds)
        for kind in [self.writer, *kinds]:
            tasks.append(asyncio.ensure_future(kind()))
            await asyncio.sleep(self.dice.choice([0, 0, 50]))
            for _ in range(self.dice.randrange(300)):
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        await self.judge()

    # -- writers and readers ------------------------------------------------------------------

    async def writer(self):
        machine = Machine(self, self.rate)
        try:
            store = await AsyncRemoteBlobStore.open(
                machine.client,
                page_size=PAGE,
                lease=LEASE_S,
                grace=GRACE_S,
                compact_after=self.dice.randrange(2, 7),
            )
        except BlobStoreIOError:
            return
        run = Run(store._core.history.epoch)
        self.runs.append(run)
        for _ in range(self.dice.randrange(3, 16)):
            await self._step(store, run, machine)
            if machine.client.dead or run.fenced:
                break
        try:
            await store.aclose(flush=False)
        except (BlobStoreIOError, WriterFenced):
            return

    async def _step(self, store, run, machine):
        kind = self.dice.randrange(20)
        try:
            if kind == 0:
                machine.client.dead = self.dice.random() < 0.5
            elif kind == 1:
                machine.sleep(self.dice.choice([50, 1000]))
            elif kind == 2:
                await asyncio.sleep(self.dice.choice([40, 300]))
            elif kind == 3:
                await store.collect()
            elif kind == 4:
                await store.compact()
            elif kind == 5:
                self.seen.append((f"the writer of epoch {run.epoch}", await look(store)))
                await run.look_again(store)
            else:
                await self._change(store, run, flushes=kind == 6)
        except BlobStoreIOError:
            assert kind != 0
        except BlobChanged:
            assert machine.overslept, "a frame of a writer that was awake is gone"

    async def _change(self, store, run, *, flushes):
        chosen = self.dice.sample(GUIDS, self.dice.randrange(1, 4))
        self.stamps += 1
        doomed = chosen[2:]
        absent = (chosen[0],) if not flushes and self.dice.random() < 0.1 else ()
        op = Op({**dict.fromkeys(chosen[:2], self.stamps), **dict.fromkeys(doomed)}, absent=absent)
        run.ops.append(op)
        writes = [(guid, frame(self.stamps)) for guid in chosen[:2]]
        written = False
        try:
            if flushes:
                await store.write_blobs(writes)
                written = True
                for guid in doomed:
                    await store.delete_blob(guid)
                await store.flush()
            else:
                await store.commit(writes, doomed, absent)
            op.outcome = ACKNOWLEDGED
        except WriterFenced:
            op.outcome = REFUSED
            self.fence(run)
        except ConditionFailed:
            op.outcome = REFUSED
        except BlobStoreIOError as error:
            op.outcome = UNKNOWN if written or error.applied is None else REFUSED

    async def reader(self):
        machine = Machine(self, self.rate)
        try:
            store = await AsyncRemoteBlobStore.open(
                machine.client, read_only=True, lease=LEASE_S, grace=GRACE_S
            )
        except (BlobStoreIOError, FileNotFoundError):
            return
        snapshot = then = None
        seq = 0
        for _ in range(self.dice.randrange(3, 12)):
            try:
                if snapshot is None and self.dice.random() < 0.3:
                    snapshot = await store.snapshot()
                    then = await look_at(snapshot)
                elif snapshot is not None and then is not None:
                    assert await look_at(snapshot) == then, "a snapshot has changed"
                self.seen.append(("a reader", await look(store)))
                await store.refresh()
                assert store.seq >= seq, "a reader went back"
                seq = store.seq
            except BlobChanged:
                assert machine.overslept, "a frame of a reader that was awake is gone"
                snapshot = then = None
            except BlobStoreIOError:
                then = None
            wait = self.dice.randrange(6)
            if wait == 0:
                machine.sleep(1000)
            elif wait < 4:
                await asyncio.sleep(self.dice.choice([40, 450]))
        await store.aclose()

    # -- the judgement ------------------------------------------------------------------------

    async def judge(self):
        self.bucket.deliver()
        states, last = self._allowed()
        for who, state in self.seen:
            assert _key(state) in states, f"{who} saw {state}, which is after no prefix of the history"
        reader = await AsyncRemoteBlobStore.open(self.bucket.client(), read_only=True)
        final = await look(reader)
        assert _key(final) in last, f"at the end there is {final}; acknowledged was {self.runs}"
        assert (await reader.verify()).ok
        await reader.aclose()
        await self._judge_garbage(final)

    def fence(self, run):
        """Note that a writer was fenced, which is right only if another one has taken over by now."""
        epochs = [
            decode_header(there.body, key)[0].epoch
            for key, there in self.bucket.objects.items()
            if key.startswith("log/")
        ]
        assert max(epochs) > run.epoch, "a writer was fenced, and nobody took over"
        run.fenced = True

    def _allowed(self):
        """Return the states after every prefix of the history, and those after all of it."""
        now = {_key({})}
        states = set(now)
        for run in sorted(self.runs, key=lambda run: run.epoch):
            for op in run.ops:
                after = {op.after(state) for state in now} - {None}
                now = {ACKNOWLEDGED: after, REFUSED: now, UNKNOWN: now | after}[op.outcome]
                states |= now
        return states, now

    async def _judge_garbage(self, final):
        """Once everybody is gone, collecting leaves what is live, and the beginnings of epochs."""
        store = await AsyncRemoteBlobStore.open(self.bucket.client(), lease=LEASE_S, grace=0)
        await asyncio.sleep(2 * LEASE_S)  # what the dead had leased
        await store.compact()
        for _ in range(8):  # some listings lag
            await store.collect()
        assert await look(store) == final
        assert len(self.bucket.keys("frames/")) == len(final), "garbage stays"
        assert len(self.bucket.keys("map/")) == 1
        for key in self.bucket.keys("log/"):
            size = len(self.bucket.objects[key].body)
            assert size == EPOCH_BYTES or number_in(key) > store._core.history.head.seq, f"{key} stays"
        await store.aclose()


def _key(state):
    return tuple(sorted((bytes(guid), stamp) for guid, stamp in state.items()))


def _apply(state, changes):
    for guid, stamp in changes.items():
        state.pop(bytes(guid), None)
        if stamp is not None:
            state[bytes(guid)] = stamp
    return state
