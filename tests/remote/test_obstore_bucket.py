"""A bucket through obstore: on its memory store, on moto, and on Ceph where there is a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import multiprocessing
import os

import pytest

from uringblob import AlignedBlobBuf
from uringblob.remote.bucket import BucketError, KeyChanged, KeyMissing, KeyTaken
from uringblob.remote.probe import PROBE_PREFIX, probe

pytestmark = pytest.mark.one_interpreter


@pytest.fixture
async def bucket(server_url):
    from uringblob.remote.obstore_bucket import open_bucket

    opened = open_bucket(server_url, "below")
    yield opened
    await opened.aclose()


async def keys(bucket, prefix="", after=""):
    return [found.key async for found in bucket.list(prefix, after)]


async def test_the_probe_passes_and_leaves_nothing(bucket):
    await probe(bucket)
    assert await keys(bucket, PROBE_PREFIX) == []


async def test_what_is_put_is_got(bucket):
    await bucket.put("a/b", b"one")
    first = await bucket.get("a/b")
    await bucket.put("a/b", b"two")
    second = await bucket.get("a/b")
    assert (first[0], second[0]) == (b"one", b"two")
    assert first[1] != second[1]


async def test_a_missing_key_is_an_answer(bucket):
    with pytest.raises(KeyMissing):
        await bucket.get("a/b")


@pytest.mark.parametrize("body", [b"", b"short", b"just right"], ids=len)
async def test_a_frame_is_what_is_there_also_where_that_is_less(bucket, body):
    await bucket.put("a", body)
    assert bytes(await bucket.get_frame("a", 10)) == body
    with pytest.raises(KeyMissing):
        await bucket.get_frame("b", 10)


async def test_a_second_create_is_refused(bucket):
    await bucket.create("a", b"one")
    with pytest.raises(KeyTaken):
        await bucket.create("a", b"two")
    assert (await bucket.get("a"))[0] == b"one"


async def test_one_of_eight_racing_creates_wins(bucket, request):
    if "moto" in request.node.name:
        pytest.skip("n/a: moto looks and writes in two steps; one writer at a time is tested with it")
    for turn in range(5):
        races = [bucket.create(f"race/{turn}", b"%d" % number) for number in range(8)]
        ends = await asyncio.gather(*races, return_exceptions=True)
        assert [type(end) for end in ends].count(KeyTaken) == 7, ends
        winner = ends.index(None)
        assert (await bucket.get(f"race/{turn}"))[0] == b"%d" % winner


async def test_a_replace_needs_the_etag_that_is_there(bucket):
    await bucket.put("a", b"one")
    _, first = await bucket.get("a")
    second = await bucket.replace("a", b"two", first)
    with pytest.raises(KeyChanged):
        await bucket.replace("a", b"three", first)
    assert await bucket.get("a") == (b"two", second)
    await bucket.delete(["a"])
    with pytest.raises(KeyChanged):
        await bucket.replace("a", b"four", second)
    with pytest.raises(KeyMissing):
        await bucket.get("a")


async def test_deleting_is_silent_about_what_is_not_there(bucket):
    await bucket.put("a", b"")
    await bucket.put("c", b"")
    await bucket.delete(["a", "b", "c"])
    await bucket.delete(["a"])
    await bucket.delete([])
    assert await keys(bucket) == []


async def test_a_listing_is_ascending_and_in_chunks(bucket, monkeypatch):
    monkeypatch.setattr("uringblob.remote.obstore_bucket._LIST_CHUNK", 3)
    names = [f"log/{number:04d}" for number in range(10)]
    for name in [*reversed(names), "logs", "frames/x"]:
        await bucket.put(name, name.encode())
    assert await keys(bucket, "log/") == names
    assert await keys(bucket, "log/", "log/0006") == names[7:]
    assert await keys(bucket, "log/000") == names
    assert await keys(bucket, "log/0003") == names[3:4]
    assert await keys(bucket, "log/", "log/0009") == []
    assert await keys(bucket, "nothing/") == []
    found = [each async for each in bucket.list("frames/")]
    assert [(each.key, each.size) for each in found] == [("frames/x", 8)]
    assert found[0].modified.tzinfo is not None


@pytest.mark.parametrize("odd", ["a b", "ü", "50%25", "x~#y", "a+b", "q?x", "*", "/a/"])
async def test_any_prefix_is_found_again(moto, prefix, odd):
    from uringblob.remote.obstore_bucket import open_bucket

    bucket = open_bucket(f"s3://bucket/{prefix}?endpoint={moto.endpoint}", odd)
    await bucket.create("log/1", b"one")
    await bucket.create("log/2", b"two")
    assert await keys(bucket, "log/") == ["log/1", "log/2"]
    assert await keys(bucket, "log/", "log/1") == ["log/2"]


async def test_a_frame_is_sent_from_where_it_lies(bucket):
    frame = AlignedBlobBuf.zeroed()
    frame.view[:5] = b"hello"
    await bucket.put("frame", frame)
    frame.view[:5] = b"later"
    frame.release()  # no view of it is alive
    body, _ = await bucket.get("frame")
    assert (len(body), body[:5]) == (1 << 19, b"hello")


async def test_a_missing_bucket_is_an_error_that_says_so(moto, prefix):
    from uringblob.remote.obstore_bucket import open_bucket

    bucket = open_bucket(f"s3://nowhere/{prefix}?endpoint={moto.endpoint}")
    for request in (bucket.get("a"), bucket.create("a", b""), bucket.replace("a", b"", '"x"'), keys(bucket)):
        with pytest.raises(BucketError, match="make the bucket first") as caught:
            await request
        assert (caught.value.errno, caught.value.maybe_done) == (errno.ENOENT, False)
        assert f"s3://nowhere/{prefix}: " in str(caught.value)


async def test_a_store_of_the_callers_is_used_as_it_is(moto, prefix):
    from obstore.store import S3Store

    from uringblob.remote.obstore_bucket import open_bucket

    options = {"endpoint": moto.endpoint, "region": "us-east-1", "virtual_hosted_style_request": False}
    store = S3Store("bucket", prefix=prefix, config=options, client_options={"allow_http": True})
    bucket = open_bucket(store, "deeper")
    assert bucket.name == f"s3://bucket/{prefix}/deeper"
    await bucket.create("a", b"one")
    assert bytes(store.get("deeper/a").bytes()) == b"one"
    assert await keys(bucket) == ["a"]


@pytest.mark.parametrize("kind", ["LocalStore", "HTTPStore"])
def test_what_cannot_keep_a_store_is_refused(obstore_here, kind):
    import obstore.store

    from uringblob.remote.obstore_bucket import open_bucket

    store = (
        obstore.store.LocalStore() if kind == "LocalStore" else obstore.store.HTTPStore.from_url("http://h")
    )
    with pytest.raises(TypeError, match=f"not as {kind}.*does not flush"):
        open_bucket(store)


async def test_a_cancelled_put_has_let_go_of_the_callers_memory(obstore_here, credentials):
    from uringblob.remote.obstore_bucket import open_bucket

    stuck, ended = asyncio.Event(), asyncio.Event()

    async def never_answer(reader, writer):
        await reader.read(1)
        stuck.set()
        with contextlib.suppress(ConnectionError):
            await reader.read(-1)
        writer.close()
        ended.set()

    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        bucket = open_bucket(f"s3://bucket?endpoint=http://127.0.0.1:{port}")
        body = bytearray(1 << 20)
        put = asyncio.ensure_future(bucket.put("a", body))
        await stuck.wait()
        with pytest.raises(BufferError):
            body.clear()
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        body.clear()  # no view of it is alive
        await ended.wait()


def _in_child(queue):
    from uringblob.remote.obstore_bucket import open_bucket

    try:
        open_bucket("memory://")
    except RuntimeError as error:
        queue.put(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="n/a: no fork")
def test_a_forked_child_is_told_and_does_not_hang(obstore_here):
    from uringblob.remote.obstore_bucket import open_bucket

    open_bucket("memory://")
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert "do not survive a fork" in queue.get()
    queue.close()
