"""Scripts that end while a store is open.  Each prints ``ready`` when there is something to lose.

Usage: python -m behaviour.child_exit HOW PATH ENGINE
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import warnings

from uringblob import AsyncFileBlobStore, BlobGuid, FileBlobStore

PAGE = 65536
DURABLE, PENDING = BlobGuid(b"durable." * 2), BlobGuid(b"pending." * 2)
FRAME = b"a" * PAGE
#: Kept to the end of the interpreter, on purpose.
kept = []


def _open_sync(path, engine):
    store = FileBlobStore.open(path, engine=engine, page_size=PAGE, buffers=8)
    store.commit([(DURABLE, FRAME)])
    store.write_blob(PENDING, FRAME)
    return store


async def _open_async(path, engine):
    store = await AsyncFileBlobStore.open(path, engine=engine, page_size=PAGE, buffers=8)
    await store.commit([(DURABLE, FRAME)])
    await store.write_blob(PENDING, FRAME)
    return store


def _begin_daemons(store):
    """Start threads that never stop calling."""
    going = threading.Barrier(5)

    def commit(number):
        name = BlobGuid(bytes([number]) * 16)
        store.commit([(name, FRAME)])
        going.wait()
        while True:
            store.commit([(name, FRAME)])
            store.read_blob(name, bytearray(PAGE))

    for number in range(4):
        threading.Thread(target=commit, args=(number,), daemon=True).start()
    going.wait()


def sync_open(path, engine):
    kept.append(_open_sync(path, engine))


def sync_local(path, engine):
    store = _open_sync(path, engine)
    kept.append([store, kept])  # in a cycle, too


def sync_daemons(path, engine):
    store = _open_sync(path, engine)
    kept.append(store)
    _begin_daemons(store)


def sync_daemons_and_exception(path, engine):
    sync_daemons(path, engine)
    raise SystemExit


def sync_with_block_and_daemons(path, engine):
    with FileBlobStore.open(path, engine=engine, page_size=PAGE) as store:
        store.commit([(DURABLE, FRAME)])
        store.write_blob(PENDING, FRAME)
        store.flush()
        # They are refused when the store closes, and the interpreter ends under their feet.
        threading.excepthook = lambda *_: None
        _begin_daemons(store)


def async_open(path, engine):
    kept.append(asyncio.run(_open_async(path, engine)))


def async_loop_open(path, engine):
    loop = asyncio.new_event_loop()
    kept.extend([loop, loop.run_until_complete(_open_async(path, engine))])


def async_in_flight(path, engine):
    async def main():
        store = await _open_async(path, engine)
        kept.append(store)
        for _ in range(20):
            kept.append(asyncio.ensure_future(store.commit([(DURABLE, FRAME)])))
        await asyncio.sleep(0)

    asyncio.run(main())


def collected(path, engine):
    """Collect an open store of each face; print what was warned of."""
    said = []
    # Not catch_warnings(record=True): what it records keeps the store alive.
    warnings.showwarning = lambda message, category, *_: said.append(category.__name__)
    warnings.simplefilter("always")
    store = _open_sync(path, engine)
    thread = store._handle._loop.thread
    del store
    gc.collect()
    thread.join()
    print("sync:", said)
    said.clear()

    async def main():
        store = await AsyncFileBlobStore.open(path, engine=engine)
        await store.write_blob(PENDING, FRAME)
        del store
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())
    gc.collect()
    print("async:", sorted(set(said)))


if __name__ == "__main__":
    warnings.simplefilter("ignore", ResourceWarning)  # said in any case; here nobody listens
    globals()[sys.argv[1]](*sys.argv[2:])
    print("ready", flush=True)
