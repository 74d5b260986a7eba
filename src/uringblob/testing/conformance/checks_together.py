"""Many at once: threads on a synchronous store, tasks on an asynchronous one; and cancelling."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from uringblob.api.sync_store import BlobStore
from uringblob.errors import BlobNotFound
from uringblob.guid import BlobGuid
from uringblob.testing.conformance.check import check
from uringblob.testing.conformance.expect import expect
from uringblob.testing.conformance.subject import Subject


@check("write_blob: a reader sees the old frame or the new one, never a mix.")
async def no_mix(s: Subject) -> None:
    guid = BlobGuid.random()
    await s.store.write_blob(guid, s.frame(0))
    last = 0
    done = False

    async def write() -> None:
        nonlocal last, done
        for number in range(1, 30):
            await s.store.write_blob(guid, s.frame(number))
            last = number
        done = True

    async def read() -> None:
        while not done:
            returned = last
            seen = await s.read(guid)  # fails on a mix
            expect(seen is not None, "a blob that was there all the time was not found")
            expect((seen or 0) >= returned, f"a read that began after write {returned} sees write {seen}")
            await asyncio.sleep(0)

    await asyncio.gather(write(), *(read() for _ in range(4)))


@check("Every method may be called from any number of threads, or tasks, at once.")
async def all_at_once(s: Subject) -> None:
    async def client(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - the same run each time
        guids = [BlobGuid.random() for _ in range(4)]
        model: dict[BlobGuid, int] = {}
        for number in range(12):
            guid = dice.choice(guids)
            kind = dice.randrange(5)
            if kind == 0:
                await s.store.delete_blob(guid)
                model.pop(guid, None)
            elif kind == 1:
                await s.store.commit([(guid, s.frame(number))])
                model[guid] = number
            else:
                await s.store.write_blob(guid, s.frame(number))
                model[guid] = number
            for name in guids:
                seen = await s.read(name)
                expect(seen == model.get(name), f"beside others, write {model.get(name)} is read as {seen}")
                expect(await s.store.has_blob(name) == (name in model), "has_blob does not agree")
            if kind == 2:
                await s.store.flush()
        expect(set(await s.store.list_blobs()) >= set(model), "list_blobs lacks blobs that are there")

    await asyncio.gather(*(client(seed) for seed in range(8)))
    expect((await s.store.verify()).ok, "verify() is not ok afterwards")


@check("A sync store works in a thread in which an event loop is running.", "sync")
async def beside_a_loop(s: Subject) -> None:
    assert isinstance(s.raw, BlobStore)
    guid, frame = BlobGuid.random(), s.blank()
    s.raw.write_blob(guid, s.frame(1))
    s.raw.commit([(guid, s.frame(2))])
    s.raw.read_blob(guid, frame)
    s.raw.flush()
    expect(s.number(frame) == 2, "it gives wrong bytes there")
    expect(s.raw.list_blobs() == [guid], "list_blobs is wrong there")
    expect(s.raw.verify().ok, "verify() is not ok there")


@check(
    "A cancelled call raises CancelledError only when its buffers are free; the change is then wholly done "
    "or not begun.",
    "async",
)
async def cancelled_calls(s: Subject) -> None:
    dice = random.Random(1)  # noqa: S311 - the same run each time
    guids = [BlobGuid.random() for _ in range(3)]
    await s.store.write_blobs((guid, s.frame(0)) for guid in guids)
    await s.store.flush()
    values = dict.fromkeys(guids, 0)
    for number in range(1, 40):
        guid = dice.choice(guids)
        src, dst = s.store.alloc_blob_buf_uninit(), s.store.alloc_blob_buf_uninit()
        src.view[:] = s.frame(number)
        change = s.store.commit if number % 3 == 0 else s.store.write_blobs
        tasks = [
            asyncio.ensure_future(change([(guid, src)])),
            asyncio.ensure_future(s.store.read_blob(guid, dst)),
        ]
        for _ in range(dice.randrange(6)):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            expect(
                result is None or isinstance(result, asyncio.CancelledError),
                f"a cancelled call gave {result!r}",
            )
        src.view[:] = s.frame(10_000)  # what was taken of it was taken before
        src.release()
        dst.release()
        seen = await s.read(guid)
        allowed = {number} if results[0] is None else {number, values[guid]}
        expect(seen in allowed, f"after a cancelled change the blob is {seen}, not one of {allowed}")
        values[guid] = seen or 0
    await s.store.flush()
    for guid in guids:
        expect(await s.read(guid) == values[guid], "a cancelled change took effect later")


@check("A failed call leaves the store working.")
async def goes_on_after_errors(s: Subject) -> None:
    guid = BlobGuid.random()
    calls: list[Callable[[], Awaitable[None]]] = [
        lambda: s.store.read_blob(guid, s.blank()),
        lambda: s.store.write_blob(guid, b"short"),
        lambda: s.store.delete_blob(b"short"),
    ]
    for call in calls:
        results = await asyncio.gather(*(call() for _ in range(4)), return_exceptions=True)
        for result in results:
            expect(isinstance(result, (BlobNotFound, ValueError)), f"it gave {result!r}")
    await s.store.write_blob(guid, s.frame(1))
    expect(await s.read(guid) == 1, "it does not go on")
