"""What owns something is neither copied nor pickled, and a half-made one ends quietly.

A copy of a store closed the original when it was collected, and unflushed writes were lost.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import os
import pickle
import sys

import pytest

from uringblob import AlignedBlobBuf, AsyncFileBlobStore, AsyncMemoryBlobStore, FileBlobStore, MemoryBlobStore
from uringblob.buffers.leases import BufferPool
from uringblob.buffers.slab import Slab
from uringblob.completion import Completion
from uringblob.engines.pread.engine import PreadEngine
from uringblob.engines.uring.engine import UringEngine
from uringblob.ring import Ring
from uringblob.store.core import Core
from uringblob.store.file import StoreFile
from uringblob.store.io.job import Job
from uringblob.store.opening.open_request import OpenRequest
from uringblob.sync.store_handle import StoreHandle

PAGE = 4096
GUID = bytes(16)


@dataclasses.dataclass
class Holder:
    """What a user has around a store."""

    held: object


class Observer:
    """Looks at nothing."""

    def observe(self, *_):
        """See :class:`uringblob.StoreObserver`."""


WAYS = {
    "copied": copy.copy,
    "copied deeply": copy.deepcopy,
    "pickled": pickle.dumps,
    "pickled in the oldest way": lambda owner: pickle.dumps(owner, 0),
    "taken apart in a dataclass": lambda owner: dataclasses.asdict(Holder(owner)),
    "copied in a list": lambda owner: copy.deepcopy([owner]),
}


def refuse(owner):
    for name, way in WAYS.items():
        with pytest.raises(TypeError, match=f"{type(owner).__name__}.* cannot be copied|use copy") as raised:
            way(owner)
        assert "\n" not in str(raised.value), name
    gc.collect()


@pytest.fixture
def store(store_path, engine):
    with FileBlobStore.open(store_path, engine=engine, page_size=PAGE, buffers=2) as store:
        yield store


PARTS = {
    "store": lambda store: store,
    "its asynchronous core": lambda store: store._core,
    "core": lambda store: store._core._core,
    "file": lambda store: store._core._core.file,
    "pool": lambda store: store._core._core.file_io.engine.pool,
    "handle": lambda store: store._handle,
    "loop thread": lambda store: store._handle._loop,
    "buffer": lambda store: store.alloc_blob_buf_zeroed(),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_store_and_its_parts_are_not_copied_and_go_on(store, store_path, part):
    store.write_blob(GUID, b"a" * PAGE)
    owner = PARTS[part](store)
    refuse(owner)
    del owner
    gc.collect()
    assert not store.closed
    store.close()
    with FileBlobStore.open(store_path) as again:
        assert again.has_blob(GUID), "what was written before is flushed by its close"


def test_nor_is_one_that_is_observed(store_path):
    with FileBlobStore.open(store_path, page_size=PAGE, observer=Observer()) as store:
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            copy.copy(store)
        store.commit([(GUID, b"a" * PAGE)])


async def test_nor_is_an_opening(store_path):
    opening = AsyncFileBlobStore.open(store_path, page_size=PAGE)
    refuse(opening)
    async with opening as store:
        refuse(store)
        await store.commit([(GUID, b"a" * PAGE)])
    refuse(opening)


@pytest.mark.parametrize("kind", [MemoryBlobStore, AsyncMemoryBlobStore])
def test_nor_is_a_store_in_memory(kind):
    """A copy shared the frames, and its close dropped the original's."""
    store = kind(PAGE)
    refuse(store)
    assert not store.closed


def test_nor_is_a_ring_with_what_it_reads_into(needs_uring):
    reader, writer = os.pipe()
    ring, slab = Ring(8), Slab(PAGE, 1)
    read = ring.read(reader, 0, slab.frame(0))
    ring.flush()
    refuse(ring)
    refuse(slab)
    refuse(read)
    os.write(writer, b"xyz")
    assert ring.wait(read) == 3
    ring.close()
    os.close(reader)
    os.close(writer)


async def test_nor_is_a_job():
    gate = Completion(loop=asyncio.get_running_loop())

    async def work():
        return await gate

    job = Job(work(), asyncio.get_running_loop())
    refuse(job)
    gate.resolve(7)
    assert await job == 7


def test_a_message_says_what_to_do_instead(store):
    with pytest.raises(TypeError, match="open it anew in another process"):
        pickle.dumps(store)


KINDS = [
    *(FileBlobStore, AsyncFileBlobStore, MemoryBlobStore, AsyncMemoryBlobStore, OpenRequest, AlignedBlobBuf),
    *(Ring, UringEngine, PreadEngine, BufferPool, Slab, StoreHandle, Core, StoreFile),
]


@pytest.fixture
def complaints(monkeypatch):
    found = []
    monkeypatch.setattr(sys, "unraisablehook", found.append)
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_that_owns_something_refuses(kind):
    refuse(kind.__new__(kind))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_was_never_wholly_made_ends_quietly(kind, complaints):
    """By ``__new__`` alone, as ``copy`` does, and by an ``__init__`` that raised."""
    kind.__new__(kind)
    with pytest.raises((TypeError, AttributeError, ValueError, OSError)):
        kind(None)
    gc.collect()
    assert [str(complaint.exc_value) for complaint in complaints] == []


@pytest.mark.parametrize(
    "step", ["_ffi", "_pid", "_c_ring", "_in_flight", "_queue", "_flush_due", "_closing"]
)
def test_a_ring_that_could_not_be_wholly_made_leaves_nothing(needs_uring, complaints, step):
    """Whatever part of it there was no memory for."""
    before = len(os.listdir("/proc/self/fd"))

    class Interrupted(Ring):
        def __setattr__(self, name, value):
            if name == step and (name != "_closing" or value is False):
                raise MemoryError
            super().__setattr__(name, value)

    with pytest.raises(MemoryError):
        Interrupted(8)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    assert complaints == []
