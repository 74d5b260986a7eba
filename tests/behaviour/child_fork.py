"""A process that forks while its stores are open and busy."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import threading
import warnings

from behaviour.misuse import HERE, METHODS, PLAIN, SIZE, THERE, good
from uringblob import AsyncFileBlobStore, FileBlobStore, StoreLocked

FORKS = 8


def use_inherited(path, engine, face):
    """Fork with calls in flight; return what each child's calls came to."""
    options = {"engine": engine, "page_size": SIZE, "buffers": 8}
    if face == "sync":
        return _sync(path, options)
    return asyncio.run(_async(path, options))


def _sync(path, options):
    answers = []
    with FileBlobStore.open(path, **options) as store:
        busy = threading.Thread(target=lambda: [store.commit([(THERE, good(n))]) for n in range(200)])
        busy.start()
        for number in range(FORKS):
            store.commit([(HERE, good(number))])
            answers.append(_fork(store, "close", path, options))
            frame = bytearray(SIZE)
            store.read_blob(HERE, frame)
            assert frame == good(number)
        busy.join()
        assert store.verify().ok
        _check_locked(path, options)
    _check_contents(path, options, 199)
    return answers


async def _async(path, options):
    answers = []
    async with AsyncFileBlobStore.open(path, **options) as store:
        for number in range(FORKS):
            tasks = [asyncio.ensure_future(store.commit([(THERE, good(number))])) for _ in range(5)]
            await store.commit([(HERE, good(number))])
            more = [asyncio.ensure_future(store.read_blob(HERE, bytearray(SIZE))) for _ in range(5)]
            await asyncio.sleep(0)
            answers.append(_fork(store, "aclose", path, options))
            await asyncio.gather(*tasks, *more)
            frame = bytearray(SIZE)
            await store.read_blob(HERE, frame)
            assert frame == good(number)
        assert (await store.verify()).ok
        _check_locked(path, options)
    _check_contents(path, options, FORKS - 1)
    return answers


def _check_locked(path, options):
    try:
        FileBlobStore.open(path, lock_timeout=0, **options)
    except StoreLocked:
        return
    raise AssertionError("a child unlocked the parent's file")


def _check_contents(path, options, number):
    with FileBlobStore.open(path, lock_timeout=0, **options) as store:
        for name, expected in ((HERE, FORKS - 1), (THERE, number)):
            frame = bytearray(SIZE)
            store.read_blob(name, frame)
            assert frame == good(expected)


def _fork(store, close, path, options):
    """Return what a forked child's calls raised."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
        pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(_in_child(store, close, path, options)).encode())
        except BaseException as error:
            os.write(writing, json.dumps({"failed": repr(error)}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return answer


def _in_child(store, close, path, options):
    methods = {
        **METHODS,
        **PLAIN,
        "stats": lambda s: s.stats(),
        "repr": repr,
        "page_size": lambda s: s.page_size,
        "closed": lambda s: s.closed,
        "close": lambda s: getattr(s, close)(),
        "close again": lambda s: getattr(s, close)(flush=True),
    }
    answers = {name: _try(method, store) for name, method in methods.items()}
    _check_locked(path, options)
    del store
    gc.collect()
    return answers


def _try(function, store):
    """Return the name of what a method raised; drive a coroutine as far as it goes without a loop."""
    try:
        result = function(store)
        if inspect.iscoroutine(result):
            try:
                result.send(None)
            finally:
                result.close()
    except StopIteration:
        return None
    except Exception as error:
        return type(error).__name__
    return "it waits" if inspect.iscoroutine(result) else None


def in_a_reader(path, engine, verify):
    """Fork where a signal handler would that strikes a read; return what became of it in both."""
    with FileBlobStore.open(path, engine=engine, page_size=SIZE, verify=verify) as store:
        store.commit([(HERE, good(1)), (THERE, good(2))])
        core = store._core._core
        number, loop = core.file.fd, store._handle._loop._loop
        real = core.medium.engine.read_now
        reading, writing = os.pipe()
        child = 0

        def fork_first(offset, frame):
            nonlocal child
            store.commit([(HERE, good(3))])
            store.commit([(THERE, good(4))])  # the frame that is read waits for its reader now
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                child = os.fork()
            if child == 0:
                other = os.open(path + ".other", os.O_RDWR | os.O_CREAT)
                os.pwrite(other, b"\xee" * SIZE * 64, 0)
                os.dup2(other, number)
                rung.clear()
            return real(offset, frame)

        core.medium.engine.read_now = fork_first
        ring_the_bell = loop._write_to_self
        rung = []
        with store.alloc_blob_buf_zeroed() as buf:
            try:
                loop._write_to_self = lambda: (rung.append(1), ring_the_bell())
                store.read_blob(HERE, buf)
                outcome = None
            except Exception as error:
                outcome = type(error).__name__
            if child == 0:
                os.write(writing, json.dumps([outcome, len(rung)]).encode())
                os._exit(0)
            right = outcome is None and bytes(buf.view) == good(1)
        loop._write_to_self = ring_the_bell
        os.close(writing)
        with open(reading, "rb") as pipe:
            told, rung_in_child = json.loads(pipe.read())
        os.waitpid(child, 0)
        _check_locked(path, {"engine": engine, "page_size": SIZE})
        return {"child": told, "parent": right, "bell": rung_in_child}
