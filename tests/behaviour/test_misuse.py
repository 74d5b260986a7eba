"""Misuse gets the error of the contract, changes nothing, and the store goes on."""

from __future__ import annotations

import asyncio
import threading

import pytest

from behaviour import children
from behaviour.misuse import ABSENT, HERE, METHODS, MISUSES, OPTIONS, PLAIN, SIZE, THERE, call, good
from behaviour.quiet import quiet_async
from uringblob import (
    AsyncBlobStore,
    AsyncFileBlobStore,
    AsyncMemoryBlobStore,
    BlobStore,
    FileBlobStore,
    MemoryBlobStore,
    StoreClosed,
)

FACES = ["sync", "async"]
ENGINES = ["memory", "io_uring", "pread"]


async def make(path, kind, face):
    if kind == "memory":
        return (MemoryBlobStore if face == "sync" else AsyncMemoryBlobStore)(SIZE)
    opener = FileBlobStore.open if face == "sync" else AsyncFileBlobStore.open
    return await call(lambda: opener(path, engine=kind, page_size=SIZE, buffers=8))


async def close(store):
    await call(store.close if hasattr(store, "close") else store.aclose)


@pytest.fixture(params=ENGINES)
def kind(request, uring_missing):
    if request.param == "io_uring" and uring_missing:
        pytest.skip(uring_missing)
    return request.param


@pytest.fixture(params=FACES)
def face(request):
    return request.param


@pytest.fixture
async def store(store_path, kind, face):
    store = await make(store_path, kind, face)
    await call(store.commit, [(HERE, good(1)), (THERE, good(2))])
    yield store
    await goes_on(store)
    await close(store)


async def goes_on(store):
    """Nothing was changed, nothing is held, and everything works."""
    assert sorted(await call(store.list_blobs)) == [HERE, THERE]
    for name, number in ((HERE, 1), (THERE, 2)):
        frame = bytearray(SIZE)
        await call(store.read_blob, name, frame)
        assert frame == good(number)
    await quiet_async(store)
    assert store.stats().buffers_leased == 0
    await call(store.commit, [(ABSENT, good(3))])
    await call(store.delete_blob, ABSENT)
    await call(store.flush)
    assert not store.needs_flush() or store.stats().engine == "memory"
    assert (await call(store.verify)).ok


async def outcome(misuse, *args):
    """Return what a call raised, or ``None``."""
    try:
        await call(misuse, *args)
    except Exception as error:
        return error
    return None


async def test_the_table(store):
    assert len(MISUSES) > 150
    wrong = {}
    for name, misuse, expected in MISUSES:
        error = await outcome(misuse, store)
        if not isinstance(error, expected) or not str(error):
            wrong[name] = error
    assert wrong == {}


async def test_a_released_buffer_of_its_own(store):
    buffer = store.alloc_blob_buf_uninit()
    buffer.release()
    for misuse in (
        lambda: store.write_blob(HERE, buffer),
        lambda: store.read_blob(HERE, buffer),
        lambda: store.commit([(HERE, buffer)]),
        lambda: store.read_blobs([(HERE, buffer)]),
        lambda: store.read_blob_range(HERE, 0, buffer),
    ):
        assert isinstance(await outcome(misuse), ValueError)


async def test_an_iterable_that_raises(store):
    def writes():
        yield HERE, bytearray(good(9))
        raise LookupError

    for method in (store.write_blobs, store.write_blobs_with_data_sync, store.commit, store.read_blobs):
        assert isinstance(await outcome(method, writes()), LookupError)
    assert isinstance(
        await outcome(lambda: store.commit([(HERE, good(9))], writes())), (LookupError, TypeError)
    )


async def test_progress_that_raises(store):
    def progress(done, total):
        raise LookupError

    assert isinstance(await outcome(lambda: store.verify(progress)), LookupError)


@pytest.mark.parametrize(("options", "expected"), OPTIONS, ids=lambda value: str(value)[:40])
async def test_options(store_path, disk_dir, face, options, expected):
    opener = FileBlobStore.open if face == "sync" else AsyncFileBlobStore.open
    error = await outcome(lambda: opener(store_path, **options))
    assert isinstance(error, expected)
    assert list(disk_dir.iterdir()) == []


@pytest.mark.parametrize(("path", "expected"), [(None, TypeError), (3, TypeError), ("a\0b", ValueError)])
async def test_paths(face, path, expected):
    opener = FileBlobStore.open if face == "sync" else AsyncFileBlobStore.open
    assert isinstance(await outcome(lambda: opener(path)), expected)


async def test_after_close(store_path, kind, face):
    store = await make(store_path, kind, face)
    await call(store.commit, [(HERE, good(1))])
    await close(store)
    for name, method in {**METHODS, **PLAIN}.items():
        assert isinstance(await outcome(method, store), StoreClosed), name
    enter = store.__enter__ if face == "sync" else store.__aenter__
    assert isinstance(await outcome(enter), StoreClosed)
    await close(store)
    assert store.stats().page_size == store.page_size == SIZE
    assert "closed" in repr(store)
    assert store.closed


# ---- an asynchronous store where it does not belong -------------------------------------------


@pytest.fixture(params=ENGINES[1:])
async def async_store(request, store_path, uring_missing):
    if request.param == "io_uring" and uring_missing:
        pytest.skip(uring_missing)
    store = await make(store_path, request.param, "async")
    await store.commit([(HERE, good(1)), (THERE, good(2))])
    yield store
    await goes_on(store)
    await store.aclose()


async def test_from_another_loop(async_store):
    """Every coroutine, ``aclose`` too; what is plain may be called from anywhere."""
    outcomes = {}

    async def elsewhere():
        for name, method in {**METHODS, **PLAIN, "aclose": lambda s: s.aclose()}.items():
            outcomes[name] = await outcome(method, async_store)

    thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
    thread.start()
    while thread.is_alive():
        await async_store.read_blob(HERE, bytearray(SIZE))
        await asyncio.sleep(0)
    thread.join()
    for name, error in outcomes.items():
        assert isinstance(error, RuntimeError) != (name in PLAIN), (name, error)


async def test_without_a_loop(async_store):
    outcomes = {}

    def elsewhere():
        for name, method in {**METHODS, "aclose": lambda s: s.aclose()}.items():
            try:
                method(async_store).send(None)
            except BaseException as error:
                outcomes[name] = error

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(outcomes) == len(METHODS) + 1
    for name, error in outcomes.items():
        assert isinstance(error, RuntimeError), (name, error)


# ---- after fork -------------------------------------------------------------------------------


def test_after_fork(store_path, engine, face):
    """In a child every method is refused; its ``close`` unlocks nothing; the parent goes on."""
    answers = children.run("behaviour.child_fork:use_inherited", store_path, engine, face)
    for child in answers:
        wrong = {name: error for name, error in child.items() if error != "RuntimeError"}
        assert wrong == {"close": None, "close again": None, "repr": None, "page_size": None, "closed": None}


# ---- no method without a row ------------------------------------------------------------------


def test_every_public_method_has_its_rows(face):
    """A new method fails here until the tables of misuse know it: closed, wrong loop, no loop, fork."""
    base = BlobStore if face == "sync" else AsyncBlobStore
    public = {name for name in dir(base) if not name.startswith("_") and callable(getattr(base, name))}
    apart = {"close", "aclose", "stats"}  # these have tests of their own: they go on after closing
    rows = {name.split()[0] for name in {**METHODS, **PLAIN}}
    assert public - apart == rows
