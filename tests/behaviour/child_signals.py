"""Children whose main thread is interrupted all the time while it uses a store."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal

from behaviour.quiet import quiet
from behaviour.stamps import blank, sequence_of, stamped
from uringblob import AsyncFileBlobStore, BlobGuid, BlobNotFound, FileBlobStore

READS = 5000
COMMITS = 500
INTERVAL = 0.001
PAGE = 4096
NAMES = [BlobGuid(bytes([n]) * 16) for n in range(16)]
#: Tasks of the asynchronous child.
TASKS = 10


class Struck(BaseException):
    """What a handler raises."""


@contextlib.contextmanager
def handling(handler):
    """Have SIGALRM handled; no timer is left running."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- handlers that do nothing -----------------------------------------------------------------


def interrupted(path, engine, face):
    """Return how often a timer struck during the reads and commits, all of which were right."""
    strikes = 0

    def count(*_):
        nonlocal strikes
        strikes += 1

    with handling(count):
        signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)
        if face == "sync":
            _use_sync(path, engine)
        else:
            asyncio.run(_use_async(path, engine))
    return strikes


def _use_sync(path, engine):
    with FileBlobStore.open(path, engine=engine, page_size=PAGE) as store:
        state = dict.fromkeys(NAMES, 1)
        store.commit([(name, stamped(name, 1, PAGE)) for name in NAMES])
        frame = store.alloc_blob_buf_uninit()
        for turn in range(READS):
            name = NAMES[turn % len(NAMES)]
            if turn % (READS // COMMITS) == 0:
                state[name] += 1
                store.commit([(name, stamped(name, state[name], PAGE))])
            store.read_blob(name, frame)
            assert sequence_of(name, frame.view) == state[name]
        frame.release()
        assert store.verify().ok


async def _use_async(path, engine):
    async with AsyncFileBlobStore.open(path, engine=engine, page_size=PAGE) as store:

        async def task(number):
            name = BlobGuid(bytes([number]) * 16)
            frame = store.alloc_blob_buf_uninit()
            sequence = 0
            for turn in range(READS // TASKS):
                if turn % (READS // COMMITS) == 0:
                    sequence += 1
                    await store.commit([(name, stamped(name, sequence, PAGE))])
                await store.read_blob(name, frame)
                assert sequence_of(name, frame.view) == sequence
            frame.release()

        await asyncio.gather(*map(task, range(TASKS)))
        assert (await store.verify()).ok


# ---- handlers that raise ----------------------------------------------------------------------


class Model:
    """A synchronous store in which any call may be struck, and what may be in it therefore."""

    def __init__(self, store, seed):
        self.store = store
        self.dice = random.Random(seed)
        self.state = dict.fromkeys(NAMES[:5])
        self.sequence = 0

    def calls(self):
        """Return a call and the state after it; ``None`` for a change that is not one unit."""
        dice, store = self.dice, self.store
        names = dice.sample(list(self.state), dice.randrange(1, 4))
        self.sequence += 1
        batch = [(name, self.frame(name)) for name in names]
        written = {**self.state, **dict.fromkeys(names, self.sequence)}
        doomed = next(name for name in self.state if name not in names)
        same = self.state
        return dice.choice(
            [
                (lambda: store.commit(batch, [doomed]), {**written, doomed: None}, True),
                (lambda: store.commit(batch), written, True),
                (lambda: store.write_blobs(batch), written, False),
                (lambda: store.write_blobs_with_data_sync(batch), written, False),
                (lambda: store.delete_blob(doomed), {**same, doomed: None}, True),
                (store.flush, same, True),
                (self.read_all, same, True),
                (lambda: store.verify(lambda *_: None), same, True),
                (store.list_blobs, same, True),
                (lambda: store.has_blob(doomed), same, True),
                (lambda: store.read_blob_range(next(iter(self.there())), 0, blank(PAGE)), same, True)
                if any(same.values())
                else (store.needs_flush, same, True),
                (lambda: [store.alloc_blob_buf_zeroed().copy() for _ in range(3)], same, True),
            ]
        )

    def frame(self, name):
        data = stamped(name, self.sequence, PAGE)
        if self.dice.random() < 0.5:
            return data
        buffer = self.store.alloc_blob_buf_uninit()
        buffer.view[:] = data
        return buffer

    def there(self):
        return {name: sequence for name, sequence in self.state.items() if sequence}

    def read_all(self):
        buffers = [(name, self.store.alloc_blob_buf_uninit()) for name in self.there()]
        assert not any(self.store.read_blobs(buffers))

    def look(self):
        found = {}
        for name in self.state:
            frame = blank(PAGE)
            try:
                self.store.read_blob(name, frame)
                found[name] = sequence_of(name, frame)
            except BlobNotFound:
                found[name] = None
        return found

    def judge(self, after, *, struck, atomic):
        found = self.look()
        if not struck:
            assert found == after, f"{found} is not {after}"
        elif atomic:
            assert found in (self.state, after), f"{found} is neither {self.state} nor {after}"
        else:
            assert all(found[n] in (self.state[n], after[n]) for n in found), (found, self.state, after)
        self.state = found


def struck(path, engine, seed, turns):
    """Strike calls of every kind at random moments; return how many were struck."""
    armed = False
    hits = 0

    def strike(*_):
        nonlocal armed, hits
        if armed:
            armed = False
            hits += 1
            raise Struck

    options = {"engine": engine, "page_size": PAGE, "buffers": 16}
    with handling(strike):
        with FileBlobStore.open(path, **options) as store:
            store._core._core.maintenance.compaction_blocks_min = 16
            model = Model(store, seed)
            for _ in range(turns):
                call, after, atomic = model.calls()
                was = hits
                signal.setitimer(signal.ITIMER_REAL, model.dice.choice([2e-5, 1e-4, 5e-4, 2e-3]))
                try:
                    armed = True
                    call()
                    armed = False
                except Struck:
                    pass
                signal.setitimer(signal.ITIMER_REAL, 0)
                armed = False
                del call
                model.judge(after, struck=hits != was, atomic=atomic)
                assert store.stats().buffers_leased == 0, "a struck call lost a lease"
            store.flush()
            quiet(store)
            assert store.verify().ok
        with FileBlobStore.open(path, **options) as store:
            model.store = store
            assert model.look() == model.state
    return hits


def opened_and_closed(path, engine, seed, turns):
    """Strike opening and closing; nothing stays locked, no thread stays."""
    armed = False
    hits = 0

    def strike(*_):
        nonlocal armed, hits
        if armed:
            armed = False
            hits += 1
            raise Struck

    dice = random.Random(seed)
    name = NAMES[0]
    options = {"engine": engine, "page_size": PAGE, "buffers": 16, "lock_timeout": 10}
    FileBlobStore.open(path, **options).close()
    with handling(strike):
        for turn in range(turns):
            store = None
            signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-4, 2e-2))
            try:
                armed = True
                store = FileBlobStore.open(path, **options)
                store.write_blob(name, stamped(name, turn, PAGE))
                store.close()
                armed = False
            except Struck:
                pass
            armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            if store is not None:
                store.close()
            with FileBlobStore.open(path, **options) as again:
                assert again.verify().ok
    return hits


# ---- handlers that use the store --------------------------------------------------------------


def used_by_a_handler(path, engine, face):
    """Return what handlers came to that used the store in the middle of its calls."""
    outcomes = {"worked": 0, "RuntimeError": 0}
    mine, theirs = NAMES[0], NAMES[1]
    sequence = 0
    busy = False
    store = None

    def use(*_):
        nonlocal sequence, busy
        if busy or store is None:
            return
        busy = True
        try:
            sequence += 1
            _use_in_handler(store, face, theirs, sequence)
            outcomes["worked"] += 1
        except RuntimeError:
            outcomes["RuntimeError"] += 1
        finally:
            busy = False
            signal.setitimer(signal.ITIMER_REAL, INTERVAL)

    def work(store, turn):
        frame = blank(PAGE)
        store.commit([(mine, stamped(mine, turn, PAGE))])
        store.read_blob(mine, frame)
        assert sequence_of(mine, frame) == turn

    with handling(use):
        if face == "sync":
            with FileBlobStore.open(path, engine=engine, page_size=PAGE) as store:
                signal.setitimer(signal.ITIMER_REAL, INTERVAL)
                for turn in range(150):
                    work(store, turn)
                busy = True
                assert store.verify().ok
        else:

            async def main():
                nonlocal store, busy
                async with AsyncFileBlobStore.open(path, engine=engine, page_size=PAGE) as store:
                    signal.setitimer(signal.ITIMER_REAL, INTERVAL)
                    frame = blank(PAGE)
                    for turn in range(150):
                        await store.commit([(mine, stamped(mine, turn, PAGE))])
                        await store.read_blob(mine, frame)
                        assert sequence_of(mine, frame) == turn
                    busy = True
                    assert (await store.verify()).ok

            asyncio.run(main())
    return outcomes


def _use_in_handler(store, face, name, sequence):
    with store.alloc_blob_buf_zeroed() as buffer:
        buffer.view[:] = stamped(name, sequence, PAGE)
        store.needs_flush()
        store.stats()
        if face == "async":
            coroutine = store.flush()
            try:
                coroutine.send(None)  # what a handler may try: it is on the loop's thread
            except StopIteration:
                pass
            finally:
                coroutine.close()
            return
        store.commit([(name, buffer)])
        assert store.has_blob(name)
        assert not any(store.read_blobs([(name, buffer)]))
        assert sequence_of(name, buffer.view) == sequence
        store.flush()
