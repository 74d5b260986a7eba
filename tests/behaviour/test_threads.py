"""One synchronous store, many threads: no call is lost with its thread, no frame torn or stale."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from behaviour.quiet import quiet
from behaviour.stamps import blank, sequence_of, stamped
from uringblob import BlobGuid, BlobNotFound, FileBlobStore, MemoryBlobStore

PATIENCE = 120


def guid(kind, number):
    return BlobGuid(bytes([kind]) + number.to_bytes(15, "big"))


class Crowd:
    """Threads whose errors are not lost; leaving the block joins them."""

    def __init__(self):
        self.threads = []
        self.errors = []

    def start(self, function, *args):
        thread = threading.Thread(target=self._run, args=(function, args))
        self.threads.append(thread)
        thread.start()
        return thread

    def _run(self, function, args):
        try:
            function(*args)
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for thread in self.threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self.threads), "a call hangs"
        for error in self.errors:
            raise error


# ---- short-lived threads ----------------------------------------------------------------------


class OneCall:
    """What a thread does before it ends: one call of each kind in turn, and how its effect shows."""

    KINDS = ("write", "commit", "delete", "read", "flush", "data sync", "range", "reads")

    def __init__(self, store, number):
        self.store = store
        self.name = guid(1, number)
        self.kind = self.KINDS[number % len(self.KINDS)]
        self.size = store.page_size
        self.frame = stamped(self.name, 2, self.size)
        self.seen = blank(self.size)
        self.returned = False
        self.prepared = {"delete", "read", "range", "reads"}

    @property
    def there_before(self):
        return self.kind in self.prepared

    def __call__(self):
        store, name = self.store, self.name
        {
            "write": lambda: store.write_blob(name, self.frame),
            "commit": lambda: store.commit([(name, self.frame)]),
            "delete": lambda: store.delete_blob(name),
            "read": lambda: store.read_blob(name, self.seen),
            "flush": store.flush,
            "data sync": lambda: store.write_blobs_with_data_sync([(name, self.frame)]),
            "range": lambda: store.read_blob_range(name, 0, self.seen),
            "reads": lambda: store.read_blobs([(name, self.seen)]),
        }[self.kind]()
        self.returned = True

    def check(self):
        assert self.returned, f"{self.kind} did not return"
        if self.kind in {"write", "commit", "data sync"}:
            self.store.read_blob(self.name, self.seen)
            assert sequence_of(self.name, self.seen) == 2
        elif self.kind in {"read", "range", "reads"}:
            assert sequence_of(self.name, self.seen) == 1
        else:
            assert not self.store.has_blob(self.name)


def test_a_thousand_threads_that_make_one_call_and_end(store_path, engine):
    with FileBlobStore.open(store_path, engine=engine, page_size=4096, buffers=16) as store:
        calls = [OneCall(store, number) for number in range(1000)]
        store.commit([(c.name, stamped(c.name, 1, store.page_size)) for c in calls if c.there_before])
        done = threading.Event()
        last = {}

        def commit(number):
            while not done.is_set():
                last[number] = last.get(number, 0) + 1
                names = [guid(2, 10 * number + n) for n in range(3)]
                store.commit([(name, stamped(name, last[number], store.page_size)) for name in names])

        with Crowd() as committers:
            try:
                for number in range(2):
                    committers.start(commit, number)
                for start in range(0, len(calls), 50):
                    with Crowd() as callers:
                        for call in calls[start : start + 50]:
                            callers.start(call)
            finally:
                done.set()
        for call in calls:
            call.check()
        seen = blank(store.page_size)
        for number, sequence in last.items():
            for n in range(3):
                store.read_blob(guid(2, 10 * number + n), seen)
                assert sequence_of(guid(2, 10 * number + n), seen) == sequence
        quiet(store)
        assert store.verify().ok


# ---- where a loop runs ------------------------------------------------------------------------


def use_everything(store, kind):
    """Make every call once."""
    size = store.page_size
    first, second = guid(kind, 1), guid(kind, 2)
    seen = blank(size)
    store.write_blob(first, stamped(first, 1, size))
    store.read_blob(first, seen)
    assert sequence_of(first, seen) == 1
    store.write_blobs([(second, stamped(second, 1, size))])
    store.write_blobs_with_data_sync([(second, stamped(second, 2, size))])
    store.commit([(first, stamped(first, 3, size))], deletes=[guid(kind, 3)])
    with store.alloc_blob_buf_zeroed() as one, store.alloc_blob_buf_uninit() as two:
        assert store.read_blobs([(first, one), (second, two)]) == [None, None]
        assert [sequence_of(first, one.view), sequence_of(second, two.view)] == [3, 2]
    store.read_blob_range(first, 0, seen)
    assert sequence_of(first, seen) == 3
    store.delete_blob(second)
    assert not store.has_blob(second)
    assert first in store.list_blobs()
    store.flush()
    assert store.verify().ok
    store.needs_flush()
    store.stats()


async def test_in_a_thread_in_which_a_loop_runs(store_path, engine):
    """It blocks the loop as any synchronous call does, and the loop goes on afterwards."""
    ticks = []
    asyncio.get_running_loop().call_soon(ticks.append, 1)
    with FileBlobStore.open(store_path, engine=engine, page_size=8192) as store:
        for turn in range(20):
            use_everything(store, turn)
        assert ticks == []
        await asyncio.sleep(0)
        assert ticks == [1]
    with FileBlobStore.open(store_path, engine=engine) as store:
        assert len(store.list_blobs()) == 20


def test_in_threads_with_and_without_loops_at_once(store_path, engine):
    async def in_a_loop(store, kind):
        for _ in range(10):
            use_everything(store, kind)
            await asyncio.sleep(0)

    with FileBlobStore.open(store_path, engine=engine, page_size=4096) as store, Crowd() as crowd:
        for kind in range(3):
            crowd.start(lambda kind: asyncio.run(in_a_loop(store, kind)), kind)
            crowd.start(use_everything, store, 10 + kind)


# ---- sixteen threads against a model ----------------------------------------------------------

WRITERS = 16
OWNED = 4
STEPS = 120


class Witness:
    """One thread: owns some guids, writes them, reads the others', and remembers what it saw.

    ``floors`` is shared: for each guid, the newest write whose call has returned.  A reader takes
    it before it reads: a frame older than that, or than what this thread has already seen, is
    stale.  A frame newer than ``begun`` was never written.
    """

    def __init__(self, store, number, begun, floors, seed):
        self.store = store
        self.number = number
        self.mine = [guid(3, OWNED * number + n) for n in range(OWNED)]
        self.all = [guid(3, n) for n in range(OWNED * WRITERS)]
        self.begun = begun
        self.floors = floors
        self.seen = {}
        self.dice = random.Random(f"{seed}/{number}")
        self.frame = bytearray(store.page_size)

    def run(self):
        for _ in range(STEPS):
            self.dice.choices([self.read, self.reads, self.write, self.commit], [6, 1, 2, 2])[0]()

    def read(self):
        name = self.dice.choice(self.all)
        floor = self.floor(name)
        self.store.read_blob(name, self.frame)
        self.judge(name, self.frame, floor)

    def reads(self):
        names = self.dice.sample(self.all, 6)
        floors = [self.floor(name) for name in names]
        buffers = [self.store.alloc_blob_buf_uninit() for _ in names]
        assert self.store.read_blobs(list(zip(names, buffers, strict=True))) == [None] * len(names)
        for name, buffer, floor in zip(names, buffers, floors, strict=True):
            self.judge(name, buffer.view, floor)
            buffer.release()

    def floor(self, name):
        return max(self.floors[name], self.seen.get(name, 0))

    def judge(self, name, frame, floor):
        sequence = sequence_of(name, frame)
        assert floor <= sequence <= self.begun[name], (
            f"thread {self.number} read write {sequence} of {name}; "
            f"{floor} had returned or was seen, {self.begun[name]} had begun"
        )
        self.seen[name] = sequence

    def write(self):
        self.change([self.dice.choice(self.mine)], self.store.write_blobs)

    def commit(self):
        self.change(self.dice.sample(self.mine, self.dice.randrange(1, OWNED + 1)), self.store.commit)

    def change(self, names, how):
        batch = []
        for name in names:
            self.begun[name] += 1
            batch.append((name, stamped(name, self.begun[name], self.store.page_size)))
        how(batch)
        for name in names:
            self.floors[name] = self.begun[name]


@pytest.mark.parametrize("kind", ["memory", "io_uring", "pread"])
def test_sixteen_threads_against_a_model(store_path, kind, replay, uring_missing):
    if kind == "io_uring" and uring_missing:
        pytest.skip(uring_missing)
    size = 16384
    if kind == "memory":
        store = MemoryBlobStore(size)
    else:
        store = FileBlobStore.open(store_path, engine=kind, page_size=size, buffers=24, queue_depth=16)
        store._core._core.maintenance.compaction_blocks_min = 16
    names = [guid(3, n) for n in range(OWNED * WRITERS)]
    with store:
        store.commit([(name, stamped(name, 1, size)) for name in names])
        begun, floors = dict.fromkeys(names, 1), dict.fromkeys(names, 1)
        with Crowd() as crowd:
            for number in range(WRITERS):
                crowd.start(Witness(store, number, begun, floors, replay).run)
        assert floors == begun
        check_all(store, floors)
    if kind != "memory":
        with FileBlobStore.open(store_path, engine=kind) as store:
            check_all(store, floors)


def check_all(store, sequences):
    frame = blank(store.page_size)
    for name, sequence in sequences.items():
        store.read_blob(name, frame)
        assert sequence_of(name, frame) == sequence
    quiet(store)
    assert store.stats().buffers_leased == 0
    assert store.verify().ok
    with pytest.raises(BlobNotFound):
        store.read_blob(guid(9, 9), frame)
