"""The crash rig: workloads on a simulated disk, an image at every step, a judge for each image.

A *life* is one opening of a store, a random workload, and a clean close.  At every step the rig
keeps what a power cut would leave, together with what was acknowledged by then; afterwards each
image is opened and judged.  The next life begins from one of those images, so that slots and
segments get a past.  A failure's last line replays it: ``replay: seed=... life=... image=...``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import random
from typing import NamedTuple
from unittest import mock

import uringblob.store.format
from uringblob.completion import Completion
from uringblob.errors import BlobStoreError, BlobStoreIOError, StorePoisoned
from uringblob.store import compaction, creation, groups, inherit, log_reader, recovery, space
from uringblob.store.format import HEADER_SIZE
from uringblob.store.store_file import judge_superblocks
from uringblob.testing.history import History, Knowledge
from uringblob.testing.sim_disk import Fault, SimDisk
from uringblob.testing.sim_image import Image
from uringblob.testing.sim_loop import SimLoop
from uringblob.testing.sim_store import new_image, open_sim_store

PAGE = 4096

_FAILED: list[object] = []


def guid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def frame(stamp: int) -> bytes:
    return (stamp + 1).to_bytes(8, "little") * (PAGE // 8)


_ARENA = memoryview(bytearray(256 * PAGE))
_lent = itertools.count()


def lend(content: bytes) -> memoryview:
    """Return ``content`` in memory whose place does not depend on chance: batches are laid out by address."""
    place = next(_lent) % 256 * PAGE
    room = _ARENA[place : place + PAGE]
    room[:] = content
    return room


def lent(changes: dict[bytes, bytes]) -> list[tuple[bytes, memoryview]]:
    return [(name, lend(content)) for name, content in changes.items()]


class Moment(NamedTuple):
    """What a power cut would leave, and what was known then; ``grown``: this life has logged a group."""

    image: Image
    known: Knowledge
    why: str
    grown: bool = False


@contextlib.contextmanager
def small_log(*, segment_bytes=4 * PAGE, records=None, large_group=None, seed=0):
    """Make segments, blocks and large groups small, so that short workloads meet their edges.

    Log and store ids come from ``seed``, so that a replay is exact.
    """
    ids = random.Random(seed)

    def next_id() -> int:
        return ids.getrandbits(64) | 1

    patches = [
        mock.patch.object(space, "SEGMENT_BYTES_MIN", segment_bytes),
        mock.patch.object(log_reader, "_READ_AHEAD_BYTES", 4 * PAGE),
        mock.patch.object(compaction, "new_log_id", next_id),
        mock.patch.object(creation, "new_log_id", next_id),
        mock.patch.object(creation.secrets, "token_bytes", ids.randbytes),
        # Thousands of dropped groups are nothing to report here.
        mock.patch.object(recovery.logger, "disabled", new=True),
    ]
    if records is not None:
        for module in vars(uringblob.store).values():
            # Not in the format itself: blocks stay as long as they are, only emptier.
            if module is not uringblob.store.format and hasattr(module, "RECORDS_PER_BLOCK"):
                patches.append(mock.patch.object(module, "RECORDS_PER_BLOCK", records))
            if module is not uringblob.store.format and hasattr(module, "blocks_for"):
                patches.append(mock.patch.object(module, "blocks_for", lambda n: max(1, -(-n // records))))
    if large_group is not None:
        patches.append(mock.patch.object(groups, "LARGE_GROUP_BYTES", large_group))
    global _lent
    _lent = itertools.count()
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def forget(store) -> None:
    """The process dies: nothing is closed, nobody complains."""
    if store is None or store.closed:
        return
    closed = Completion(loop=store._loop)
    closed.finish(None)
    store._closing = closed
    store._core.medium.engine.abandon()
    inherit.forget(store)


async def read_all(store) -> dict[bytes, bytes]:
    found = {}
    room = bytearray(PAGE)
    for name in await store.list_blobs():
        await store.read_blob(name, room)
        found[bytes(name)] = bytes(room)
    return found


# --- judging one image -----------------------------------------------------------------------


def recover(
    image: Image, known: Knowledge | None, *, rng=None, deep=False, steps=None, torn=None
) -> dict[bytes, bytes]:
    """Open the store in ``image``, read everything, judge it.

    ``deep``: also verify it, go on with it, close it and open it once more.
    ``steps``: a list that gets the crash images of this recovery.
    ``torn``: a list that gets the image if a group was left out.
    """
    loop = SimLoop()
    disk = SimDisk(image=image.copy())
    if steps is not None:
        disk.on_step = lambda _why: steps.append(disk.crash(rng))

    async def run():
        store = await open_sim_store(disk, loop, rng=rng)
        stores.append(store)
        disk.on_step = lambda _why: None
        if torn is not None and store.stats().notes:
            torn.append(image)
        found = await read_all(store)
        if known is not None:
            History.judge(known, found)
        if deep:
            after = await _go_on(store, found)
            stores.append(again := await open_sim_store(disk, loop))
            assert await read_all(again) == after, "what was there after recovery is not there after a close"
            report = await again.verify()
            assert report.ok, report
        return found

    stores = []
    try:
        found = loop.run(run())
    finally:
        for store in stores:
            forget(store)
    assert not loop.complaints, loop.complaints
    return found


async def _go_on(store, found) -> dict[bytes, bytes]:
    report = await store.verify()
    assert report.ok, report
    news = {guid(1): frame(1 << 40), guid(200): frame(1 << 41)}
    await store.commit(lent(news), [g for g in list(found)[:1] if g not in news])
    assert await read_all(store) == {
        **{g: f for g, f in found.items() if g not in list(found)[:1] or g in news},
        **news,
    }
    await store.write_blob(guid(201), frame(1 << 42))
    await store.flush()
    after = await read_all(store)
    await store.aclose()
    return after


# --- a life ----------------------------------------------------------------------------------


class Life:
    """One opening of the store in ``image``, with a random workload."""

    def __init__(
        self,
        image: Image,
        rng: random.Random,
        *,
        guids=5,
        calls=12,
        tasks=3,
        faults=None,
        images_per_step=1,
        capacity=None,
        sparse=False,
        compactions=0.04,
        reads=12,
    ):
        self.rng = rng
        self.loop = SimLoop()
        self.disk = SimDisk(rng.getrandbits(32), image=image.copy(), capacity=capacity, sparse=sparse)
        self.faults = faults
        self.history = History()
        self.guids = [guid(n) for n in range(guids)]
        self.calls = calls
        self.tasks = tasks
        self.compactions = compactions
        self.reads = reads
        self.images_per_step = images_per_step
        self.moments: list[Moment] = []
        self.torn: list[Image] = []
        self.errors: list[BaseException] = []
        self.store = None
        self._stamps = itertools.count(rng.getrandbits(40) << 16)
        self._left = calls

    def step(self, why: str) -> None:
        if self.images_per_step:
            known = self.history.knowledge()
            for _ in range(self.images_per_step):
                grown = self.store._core.queue.log.seq > self._first_seq
                self.moments.append(Moment(self.disk.crash(self.rng), known, why, grown))

    def run(self) -> None:
        try:
            self.loop.run(self._run())
        except BaseException:
            forget(self.store)
            # Its unfinished jobs would complain when they are collected.
            _FAILED.append(self)
            raise
        assert not self.loop.complaints, self.loop.complaints

    async def _run(self) -> None:
        self.store = store = await open_sim_store(self.disk, self.loop, rng=self.rng)
        self._first_seq = store._core.queue.log.seq
        self.history.recovered(await read_all(store))
        store._core.upkeep.compaction_blocks_min = self.rng.choice((3, 6, 1000))
        self.disk.on_step = self.step
        self.disk.faults = self.faults
        self.disk.requests = 0
        await asyncio.gather(*(self._task() for _ in range(self.tasks)))
        await self._finish()

    async def _finish(self) -> None:
        store = self.store
        await self.flush()
        self.last = None
        if store._core.medium.poison_cause:
            assert store.needs_flush()
        try:
            self.last = await read_all(store)
        except BlobStoreIOError as error:
            self._failed(error)
        try:
            await store.aclose(flush=self.rng.random() < 0.8)
        except BlobStoreError as error:
            self._failed(error)
            self.last = None
        self.step("closed")

    async def _task(self) -> None:
        while self._left > 0:
            self._left -= 1
            await self.one_call()

    # --- calls ---------------------------------------------------------------------------

    def _content(self) -> bytes:
        return frame(next(self._stamps) if self.rng.random() < 0.9 else 7)

    def _pick(self, most: int) -> list[bytes]:
        return self.rng.sample(self.guids, self.rng.randint(1, min(most, len(self.guids))))

    async def one_call(self) -> None:
        rng = self.rng
        kind = rng.choices(
            ("put", "batch", "synced", "commit", "delete", "doom", "flush", "compact", "read"),
            (20, 8, 8, 25, 12, 5, 14, 100 * self.compactions, self.reads),
        )[0]
        await getattr(self, kind)()

    async def put(self) -> None:
        target, content = self.rng.choice(self.guids), self._content()
        await self.change("put", {target: content}, lambda: self.store.write_blob(target, lend(content)))

    async def batch(self) -> None:
        changes = {g: self._content() for g in self._pick(4)}
        await self.change("batch", changes, lambda: self.store.write_blobs(lent(changes)))

    async def synced(self) -> None:
        changes = {g: self._content() for g in self._pick(4)}
        await self.change("synced", changes, lambda: self.store.write_blobs_with_data_sync(lent(changes)))

    async def commit(self) -> None:
        changes = {g: self._content() if self.rng.random() < 0.75 else None for g in self._pick(4)}
        writes = {g: c for g, c in changes.items() if c is not None}
        deletes = [g for g, c in changes.items() if c is None]
        await self.change(
            "commit", changes, lambda: self.store.commit(lent(writes), deletes), atomic=True, durable=True
        )

    async def delete(self) -> None:
        target = self.rng.choice(self.guids)
        await self.change("delete", {target: None}, lambda: self.store.delete_blob(target))

    async def doom(self) -> None:
        target = self.rng.choice(self.guids)
        await self.change(
            "doom", {target: None}, lambda: self.store.commit((), [target]), atomic=True, durable=True
        )

    async def flush(self) -> None:
        began = self.history._tick()
        try:
            await self.store.flush()
        except BlobStoreError as error:
            self._failed(error)
        else:
            self.history.flushed(began)
        self.step("flushed")

    async def compact(self) -> None:
        job = self.store._core.upkeep.start_compaction()
        if self.rng.random() < 0.5:
            with contextlib.suppress(BlobStoreError):
                await job

    async def read(self) -> None:
        target, room = self.rng.choice(self.guids), bytearray(PAGE)
        began = self.history._tick()
        try:
            await self.store.read_blob(target, room)
        except KeyError:
            self.history.seen(target, None, began)
        except BlobStoreIOError as error:
            self._failed(error)
        else:
            self.history.seen(target, bytes(room), began)
            self.step("read")

    async def change(self, name, changes, do, *, atomic=False, durable=False) -> None:
        call = self.history.begin(name, changes, atomic=atomic)
        try:
            await do()
        except StorePoisoned as error:
            self.history.end(call, refused=True)
            self._failed(error)
        except BlobStoreIOError as error:
            if error.applied is False:
                self.history.end(call, refused=True)
            self._failed(error)
        else:
            self.history.end(call, durable=durable)
        self.step(f"{name} ended")

    def _failed(self, error: BaseException) -> None:
        if self.faults is None and self.disk.capacity is None:
            raise error
        self.errors.append(error)


def lives(seed: int, count: int = 3, **options):
    """Yield lives one after the other, each begun from what the one before may have left."""
    rng = random.Random(seed)
    knobs = {
        "segment_bytes": rng.choice((3, 4, 4, 16)) * PAGE,
        "records": rng.choice((None, None, 2, 3)),
        "large_group": rng.choice((None, None, 2 * PAGE)),
    }
    with small_log(seed=seed, **knobs):
        image = new_image(PAGE)
        for _ in range(count):
            life = Life(image, rng, **options)
            yield life
            # A life's past matters most where recovery had something to leave out.
            if life.torn and rng.random() < 0.6:
                image = rng.choice(life.torn)
            else:
                image = life.disk.live if rng.random() < 0.3 else rng.choice(life.moments).image


def look(image: Image, known: Knowledge) -> None:
    """Open the store in ``image`` read-only: no byte changes, and nothing is shown half.

    It may leave out the last group, which it may not confirm, and then says so; nothing else.
    """
    found, notes = read_only_view(image)
    if notes:
        known = Knowledge(tuple((call, ended, False, refused) for call, ended, _, refused in known.calls))
    History.judge(known, found)


def read_only_view(image: Image) -> tuple[dict[bytes, bytes], tuple[str, ...]]:
    """Return what a read-only opener of ``image`` sees, and what it says was left out."""
    loop = SimLoop()
    disk = SimDisk(image=image.copy(), faults=_no_change)

    async def run():
        store = await open_sim_store(disk, loop, read_only=True)
        try:
            return await read_all(store), store.stats().notes
        finally:
            await store.aclose()

    found, notes = loop.run(run())
    assert disk.live == image, "a read-only opener changed the file"
    return found, notes


def _no_change(_index: int, kind: str) -> None:
    assert kind == "read", f"a read-only opener asked for a {kind}"


def rotten(image: Image, rng: random.Random) -> Image | None:
    """Return ``image`` with one bit of one superblock flipped, if both were good."""
    header = image.read(0, HEADER_SIZE)
    if any(superblock is None for superblock in judge_superblocks(header, "simulated")):
        return None
    flipped = image.copy()
    flipped.flip(rng.randrange(HEADER_SIZE * 8))
    return flipped


def torture(
    seed: int, *, count: int = 3, deep: int = 16, again: int = 24, rot: int = 7, looks: int = 9, **options
) -> int:
    """Run the lives of ``seed`` and judge every image; returns how many were judged.

    Every ``deep``-th image is judged thoroughly; every ``again``-th loses power again while it is
    recovered, twice; in every ``rot``-th one superblock is damaged as well;
    every ``looks``-th is also opened read-only.
    """
    judged = 0
    number = at = 0
    try:
        for number, life in enumerate(lives(seed, count, **options)):  # noqa: B007 - the replay line needs it
            at = -1
            life.run()
            if life.last is not None:
                assert recover(life.disk.live, None) == life.last, "a clean close lost or changed something"
            for at, moment in enumerate(life.moments):
                rng = random.Random(seed * 1000003 + at)
                # A read-only opener may leave out the last group: it must be one of this life.
                if at % looks == 0 and moment.grown:
                    look(moment.image, moment.known)
                    judged += 1
                if at % rot == 0 and (flipped := rotten(moment.image, rng)) is not None:
                    recover(flipped, moment.known)
                    judged += 1
                judged += judge(moment, rng, deep=at % deep == 0, again=at % again == 0, torn=life.torn)
    except Exception as error:
        raise AssertionError(f"{error!r}\nreplay: seed={seed} life={number} image={at} {options}") from error
    return judged


def judge(moment: Moment, rng: random.Random, *, deep=False, again=False, torn=None) -> int:
    """Judge one image; with ``again`` also what power cuts during its recovery leave, twice deep."""
    if not again:
        recover(moment.image, moment.known, deep=deep, torn=torn)
        return 1
    first: list[Image] = []
    recover(moment.image, moment.known, rng=rng, steps=first)
    judged = 1
    for image in first:
        second: list[Image] = []
        recover(image, moment.known, rng=rng, steps=second)
        judged += 1 + len(second)
        for last in second:
            recover(last, moment.known)
    return judged


# --- faults ----------------------------------------------------------------------------------


KINDS = ("read", "write", "sync", "grow")


class Failing:
    """The ``index``-th request of these kinds fails, or every one from there on.

    ``struck`` lists the kinds of those that did.
    """

    def __init__(self, index: int, fault: Fault, *, forever: bool = False, kinds=KINDS):
        self.index = index
        self.fault = fault
        self.forever = forever
        self.kinds = kinds
        self._seen = -1
        self.struck: list[str] = []

    def __call__(self, index: int, kind: str) -> Fault | None:
        if kind not in self.kinds:
            return None
        self._seen += 1
        if self._seen == self.index or (self.forever and self._seen > self.index):
            self.struck.append(kind)
            return self.fault
        return None

    def __repr__(self) -> str:
        return f"Failing({self.index}, {self.fault}, forever={self.forever})"


#: Name, fault.  A short count moves part of what was asked.
FAULTS = {
    **{
        name: Fault(getattr(errno, name))
        for name in ("EIO", "ENOSPC", "EDQUOT", "EFBIG", "EINTR", "ETIMEDOUT", "EAGAIN", "ECANCELED")
    },
    "zero bytes": Fault(moved=lambda size: 0),
    "short by 512": Fault(moved=lambda size: size - 512),
    "short by 4096": Fault(moved=lambda size: size - 4096 if size > 4096 else size // 8 * 7),
    "all but one": Fault(moved=lambda size: size - 1),
    "one byte": Fault(moved=lambda size: 1),
}


def life_with_fault(
    seed: int, name: str, index: int, *, forever: bool, image=None, kinds=KINDS, **options
) -> Life | None:
    """Live the life of ``seed`` with one fault, judge all it leaves; ``None`` if it has fewer requests."""
    failing = Failing(index, FAULTS[name], forever=forever, kinds=kinds)
    rng = random.Random(seed)
    with small_log(seed=seed, segment_bytes=4 * PAGE):
        life = Life(image or new_image(PAGE), rng, faults=failing, images_per_step=0, **options)
        try:
            life.run()
            if not failing.struck:
                return None
            poisoned = life.store._core.medium.poison_cause is not None
            _check_outcome(name, failing, life, poisoned=poisoned)
            known = life.history.knowledge()
            # The machine goes on: what the dead process wrote is there, lost pages are not.
            life.disk.restart()
            found = recover(life.disk.live, known, deep=True)
            if life.last is not None and not poisoned and not life.errors:
                assert found == life.last, "a life without an error ended with something else"
        except Exception as error:
            raise AssertionError(
                f"{error!r}\nreplay: seed={seed} fault={name!r} index={index} forever={forever} {options}"
            ) from error
    return life


NO_ROOM = ("ENOSPC", "EDQUOT", "EFBIG")


def _check_outcome(name, failing, life, *, poisoned: bool) -> None:
    """What API.md says of the store after these faults."""
    kinds = set(failing.struck)
    if "sync" in kinds and name in {n for n, f in FAULTS.items() if f.errno}:
        assert poisoned, f"a failed fsync ({name}) and the store goes on"
        return
    if failing.forever:
        return
    if kinds in ({"read"}, {"grow"}):
        assert not poisoned, f"a failed {kinds} poisoned the store"
    if name.startswith(("short", "all but", "one", "EINTR", "EAGAIN")):
        assert not life.errors, f"{name} once is no error: {life.errors}"
    if name in NO_ROOM and "superblock" not in str(life.store._core.medium.poison_cause):
        assert not poisoned, f"{name} once poisoned the store: {life.errors}"


def open_with_fault(moment: Moment, name: str, index: int, *, forever: bool) -> bool:
    """Open the store while one request fails; then open it undisturbed, and judge it.

    Returns false if opening takes fewer requests.
    """
    failing = Failing(index, FAULTS[name], forever=forever)
    loop = SimLoop()
    disk = SimDisk(index, image=moment.image.copy(), faults=failing)

    async def run() -> None:
        try:
            store = await open_sim_store(disk, loop)
        except BlobStoreIOError:
            return
        stores.append(store)
        History.judge(moment.known, await read_all(store))
        with contextlib.suppress(BlobStoreError):
            await store.aclose()

    stores = []
    try:
        with contextlib.suppress(BlobStoreIOError):
            loop.run(run())
        for store in stores:
            forget(store)
        disk.restart()
        recover(disk.live, moment.known)
        recover(disk.crash(random.Random(index)), moment.known)
    except Exception as error:
        raise AssertionError(f"{error!r}\nreplay: fault={name!r} index={index} forever={forever}") from error
    return bool(failing.struck)
