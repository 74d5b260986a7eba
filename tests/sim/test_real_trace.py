"""The real engines' traces under the crash enumerator: every power cut that their order allows, judged."""

from __future__ import annotations

import os
import random
from unittest import mock

import pytest

from sim.real_trace import Shadow
from sim.rig import PAGE, Judge, frame, guid, read_all
from uringblob import AsyncFileBlobStore, BlobStoreError
from uringblob.engines import pread, uring
from uringblob.ring import Op
from uringblob.testing import History

pytestmark = pytest.mark.one_interpreter


async def judged(path: str, engine: str) -> tuple[int, Shadow]:
    """Work on a real store; judge every image that a power cut may have left; return how many."""
    async with AsyncFileBlobStore.open(path, engine=engine, page_size=PAGE) as store:
        await store.commit([(guid(n), frame(900 + n)) for n in range(12)])
        await store.commit((), [guid(n) for n in range(6, 12)])
    history, judge, moments, rng = History(), Judge(), [], random.Random(1)

    def step(_why: str) -> None:
        known = history.knowledge()
        moments.extend((image, known) for image in shadow.disk.all_crashes(6, torn=rng))

    shadow = Shadow(path, step)
    async with AsyncFileBlobStore.open(path, engine=engine) as store:
        history.recovered(await read_all(store))
        shadow.watch(store._core.medium.engine.engine)
        for turn in range(6):
            both = {guid(turn): frame(10 + turn), guid(turn + 1): frame(20 + turn)}
            call = history.begin("commit", both, atomic=True)
            await store.commit(list(both.items()))
            history.end(call, durable=True)
            synced = {guid(turn + 2): frame(30 + turn)}
            call = history.begin("synced", synced)
            leases = [store.alloc_blob_buf_uninit() for _ in synced]
            for lease, content in zip(leases, synced.values(), strict=True):
                lease.view[:] = content
            await store.write_blobs_with_data_sync(list(zip(synced, leases, strict=True)))
            history.end(call)
            began = history._tick()
            await store.flush()
            history.flushed(began)
            for lease in leases:
                lease.release()
    for image, known in moments:
        judge.look(image, known)
    return judge.judged, shadow


async def test_every_power_cut_under_a_real_engine(store_path, engine, capsys):
    images, shadow = await judged(store_path, engine)
    assert images > 50
    assert shadow.syncs >= 12
    if engine == "io_uring":
        assert shadow.linked >= 6
    with capsys.disabled():
        print(f"\n{engine}: {images} images judged, {shadow.syncs} flushes", end=" ")


def link_broken():
    return mock.patch.object(Op, "link", lambda self: self)


async def test_a_broken_link_is_found(store_path, needs_uring):
    with link_broken(), pytest.raises((AssertionError, BlobStoreError), match=r"checksum|shows"):
        await judged(store_path, "io_uring")


async def test_a_flush_of_the_wrong_file_is_found(store_path, engine):
    other = os.open(os.path.dirname(store_path), os.O_RDONLY)
    if engine == "io_uring":
        elsewhere = mock.patch.object(uring, "_FDATASYNC", uring._FDATASYNC._replace(file=other, flags=0))
    else:
        elsewhere = mock.patch.object(pread, "_sync", lambda calls, _fd: calls.sync(other) or 0)
    try:
        with elsewhere, pytest.raises((AssertionError, BlobStoreError)):
            await judged(store_path, engine)
    finally:
        os.close(other)
