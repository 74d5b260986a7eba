"""The example service's answers: each status as it should be, over the application itself."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx", reason="the extra [examples] is not installed")
pytest.importorskip("starlette", reason="the extra [examples] is not installed")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

from blob_service.app import Service  # noqa: E402 - needs the path above
from blob_service.bodies import body_size_max  # noqa: E402
from blob_service.scrub import FIRST_S, WEEK_S, Scrub  # noqa: E402
from uringblob import AsyncFileBlobStore, BlobCorrupt, BlobGuid, BlobStoreIOError  # noqa: E402
from uringblob.buffers.checksum import frame_checksum  # noqa: E402

PAGE = 8192
SIZE_MAX = body_size_max(PAGE)
NAME = "/frames/" + str(BlobGuid.random())


@contextlib.asynccontextmanager
async def serving(store_path, **options):
    """The service in this process, its lifespan begun, and a client of it."""

    async def open_store(observer):
        return await AsyncFileBlobStore.open(store_path, page_size=PAGE, observer=observer)

    service = Service(open_store, **options)
    transport = httpx.ASGITransport(app=service.app)
    async with service._lifespan(None), httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        yield service, http


async def test_put_get_head_delete(store_path):
    async with serving(store_path) as (service, http):
        assert (await http.get(NAME)).status_code == 404
        first = await http.put(NAME, content=b"hello")
        assert (first.status_code, (await http.put(NAME, content=b"hello")).status_code) == (201, 204)
        got = await http.get(NAME)
        assert (got.status_code, got.content, got.headers["etag"]) == (200, b"hello", first.headers["etag"])
        head = await http.head(NAME)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "5")
        assert head.headers["etag"] == first.headers["etag"]
        assert not service.store.needs_flush()  # it was durable when it was answered
        assert (await http.delete(NAME)).status_code == 204
        assert (await http.delete(NAME)).status_code == 404
        assert (await http.head(NAME)).status_code == 404
        assert (await http.get("/frames/no-uuid")).status_code == 400
        refused = await http.post(NAME)
        assert refused.status_code == 405
        assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT", "DELETE"}


@pytest.mark.parametrize("size", [0, 1, 4096, SIZE_MAX])
async def test_bodies_of_every_size_come_back(store_path, size):
    async with serving(store_path) as (_, http):
        body = bytes(range(256)) * 32
        assert (await http.put(NAME, content=body[:size])).status_code == 201
        assert (await http.get(NAME)).content == body[:size]


async def test_the_etag_is_the_checksum_and_answers_without_io(store_path):
    async with serving(store_path) as (service, http):
        etag = (await http.put(NAME, content=b"a")).headers["etag"]
        frame = bytearray(PAGE)
        guid = (await service.store.list_blobs())[0]
        await service.store.read_blob(guid, frame)
        assert etag == f'"{frame_checksum(frame):016x}"'
        reads = service.store.stats().reads
        for header in (etag, f'"other", {etag}', "*"):
            same = await http.get(NAME, headers={"If-None-Match": header})
            assert (same.status_code, same.content) == (304, b"")
        assert service.store.stats().reads == reads
        changed = await http.get(NAME, headers={"If-None-Match": '"other"'})
        assert (changed.status_code, changed.content) == (200, b"a")


async def test_conditional_changes(store_path):
    async with serving(store_path) as (_, http):
        assert (await http.put(NAME, content=b"a", headers={"If-Match": "*"})).status_code == 412
        etag = (await http.put(NAME, content=b"a", headers={"If-None-Match": "*"})).headers["etag"]
        assert (await http.put(NAME, content=b"b", headers={"If-None-Match": "*"})).status_code == 412
        assert (await http.put(NAME, content=b"b", headers={"If-Match": '"other"'})).status_code == 412
        assert (await http.delete(NAME, headers={"If-Match": '"other"'})).status_code == 412
        # A weak one promises too little for a change (RFC 9110, 13.1.1); a cache may ask with it.
        assert (await http.delete(NAME, headers={"If-Match": f"W/{etag}"})).status_code == 412
        assert (await http.get(NAME, headers={"If-None-Match": f'"x", W/{etag}'})).status_code == 304
        assert (await http.get(NAME)).content == b"a"
        assert (await http.put(NAME, content=b"b", headers={"If-Match": etag})).status_code == 204


async def test_413_by_the_head_and_by_what_comes(store_path):
    async def pieces():
        for _ in range(3):
            yield bytes(PAGE // 2)

    async with serving(store_path) as (_, http):
        assert (await http.put(NAME, content=bytes(SIZE_MAX + 1))).status_code == 413
        assert (await http.put(NAME, content=pieces())).status_code == 413
        assert (await http.get(NAME)).status_code == 404


class SlowBody:
    """A body that begins, and ends when it is told to."""

    def __init__(self):
        self.began, self.go_on = asyncio.Event(), asyncio.Event()

    async def __aiter__(self):
        yield b"first"
        self.began.set()
        await self.go_on.wait()
        yield b"second"


@contextlib.asynccontextmanager
async def uploading(http, name, status=201, **options):
    """A PUT in the middle of its body."""
    body = SlowBody()
    put = asyncio.ensure_future(http.put(name, content=body, **options))
    await body.began.wait()
    yield
    body.go_on.set()
    assert (await put).status_code == status


async def test_409_for_a_change_that_another_one_came_before(store_path):
    async with serving(store_path) as (_, http):
        async with uploading(http, NAME, 409):
            assert (await http.put(NAME, content=b"mine")).status_code == 201
        assert (await http.get(NAME)).content == b"mine"
        async with uploading(http, NAME, 409):
            assert (await http.delete(NAME)).status_code == 204
        assert (await http.get(NAME)).status_code == 404


async def test_409_for_a_deletion_that_a_change_came_before(store_path, monkeypatch):
    async with serving(store_path) as (service, http):
        await http.put(NAME, content=b"old")
        commit, overtaking = service.store.commit, asyncio.Event()

        async def late(*args, **conditions):
            monkeypatch.undo()
            overtaking.set()
            assert (await http.put(NAME, content=b"new")).status_code == 204
            await commit(*args, **conditions)

        monkeypatch.setattr(service.store, "commit", late)
        assert (await http.delete(NAME)).status_code == 409
        assert overtaking.is_set()
        assert (await http.get(NAME)).content == b"new"


async def test_412_for_an_upload_whose_condition_another_change_has_ended(store_path):
    async with serving(store_path) as (_, http):
        async with uploading(http, NAME, 412, headers={"If-None-Match": "*"}):
            etag = (await http.put(NAME, content=b"mine")).headers["etag"]
        async with uploading(http, NAME, 412, headers={"If-Match": etag}):
            assert (await http.put(NAME, content=b"again")).status_code == 204
        assert (await http.get(NAME)).content == b"again"


async def test_of_many_that_create_one_name_at_the_same_time_one_does(store_path):
    async with serving(store_path) as (_, http):
        bodies = [f"mine: {number}".encode() for number in range(32)]
        answers = await asyncio.gather(
            *(http.put(NAME, content=body, headers={"If-None-Match": "*"}) for body in bodies)
        )
        statuses = [answer.status_code for answer in answers]
        assert sorted(statuses) == [201] + 31 * [412]
        assert (await http.get(NAME)).content == bodies[statuses.index(201)]


class Clock:
    """Lets a scrub's time pass: ``asked`` are the seconds that it sleeps, one after the other."""

    def __init__(self):
        self.asked, self._passed = [], asyncio.Queue()

    async def sleep(self, seconds):
        self.asked.append(seconds)
        await self._passed.get()

    async def passes(self, until):
        """Let the sleep end, and the scrub run until it sleeps again."""
        await self._passed.put(None)
        while len(self.asked) < until:
            await asyncio.sleep(0)


async def test_the_store_is_scrubbed_every_week_and_what_is_bad_is_known(store_path, caplog):
    clock = Clock()
    async with serving(store_path, scrub=Scrub(step_s=0, sleep=clock.sleep)) as (service, http):
        names = [f"/frames/{BlobGuid.random()}" for _ in range(3)]
        for name in names:
            await http.put(name, content=name.encode())
        await clock.passes(until=2)
        health = (await http.get("/healthz")).json()
        assert health["scrub"] == {"passes": 1, "checked": 3, "bad": []}
        damage(service.store, names[1])
        await clock.passes(until=3)
        scrubbed = (await http.get("/healthz")).json()["scrub"]
        assert (scrubbed["passes"], scrubbed["checked"]) == (2, 3)
        (bad,) = scrubbed["bad"]
        assert names[1].rpartition("/")[2] in bad
        assert "the scrub found damage" in caplog.text
        page = (await http.get("/metrics")).text
        assert 'uringblob_scrub_bad_blobs{store="default"} 1.0' in page
        assert 'uringblob_scrub_checked_blobs{store="default"} 3.0' in page
        assert clock.asked == [FIRST_S, WEEK_S, WEEK_S]


def damage(store, name):
    """Change a byte of the frame behind the store's back."""
    guid = BlobGuid(name.rpartition("/")[2])
    with open(store.path, "r+b") as file:
        file.seek((store._core.index.find(guid) >> 64) * PAGE)
        first = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([first ^ 1]))


async def test_the_service_ends_in_the_middle_of_a_scrub(store_path):
    clock = Clock()
    async with serving(store_path, scrub=Scrub(rate=1, sleep=clock.sleep)) as (service, http):
        for _ in range(3):
            await http.put(f"/frames/{BlobGuid.random()}", content=b"slow")
        await clock._passed.put(None)
        while not service.store.stats().reads:
            await asyncio.sleep(0)
    assert service.store.closed


async def test_503_with_retry_after_when_enough_is_under_way(store_path):
    async with serving(store_path, requests_max=2) as (service, http):
        async with uploading(http, NAME), uploading(http, f"/frames/{BlobGuid.random()}"):
            refused = await http.put(f"/frames/{BlobGuid.random()}", content=b"third")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert (await http.get("/healthz")).json()["requests_in_flight"] == 2
        page = (await http.get("/metrics")).text
        assert 'blob_service_answers_total{method="PUT",status="503"} 1.0' in page
        assert "blob_service_requests_in_flight 0.0" in page
        assert (await http.get(NAME)).status_code == 200


async def test_408_for_a_body_that_does_not_come(store_path):
    async with serving(store_path, upload_timeout_s=0) as (_, http):
        assert (await http.put(NAME, content=SlowBody())).status_code == 408
        assert (await http.get(NAME)).status_code == 404


def failing(error):
    async def fail(*_args, **_kwargs):
        raise error

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
async def test_507_when_the_disk_is_full(store_path, number, monkeypatch):
    async with serving(store_path) as (service, http):
        monkeypatch.setattr(service.store, "commit", failing(BlobStoreIOError(number, "full")))
        assert (await http.put(NAME, content=b"a")).status_code == 507
        assert (await http.get("/healthz")).status_code == 200
        page = (await http.get("/metrics")).text
        assert 'blob_service_answers_total{method="PUT",status="507"} 1.0' in page
        monkeypatch.undo()


async def test_500_for_a_bad_frame_and_503_for_a_poisoned_store(store_path, monkeypatch):
    async with serving(store_path) as (service, http):
        await http.put(NAME, content=b"a")
        monkeypatch.setattr(service.store, "read_blob", failing(BlobCorrupt("rotten", bytes(16))))
        assert (await http.get(NAME)).status_code == 500
        monkeypatch.undo()
        assert (await http.get("/healthz")).json()["healthy"]
        service.store._core.file_io.poison(BlobStoreIOError(errno.EIO, "the disk is gone"))
        assert (await http.put(NAME, content=b"b")).status_code == 503
        assert (await http.get(NAME)).content == b"a"  # reads go on
        ill = await http.get("/healthz")
        assert (ill.status_code, ill.json()["poisoned"]) == (503, "[Errno 5] the disk is gone")
        await service.store.aclose(flush=False)


async def test_a_frame_of_somebody_else_is_no_body(store_path):
    async with serving(store_path) as (service, http):
        await service.store.commit([(bytes(16), bytes(PAGE))])
        assert (await http.get(f"/frames/{'0' * 32}")).status_code == 500


async def test_the_list_has_pages(store_path):
    async with serving(store_path) as (_, http):
        names = sorted(str(BlobGuid.random()) for _ in range(5))
        for name in names:
            await http.put(f"/frames/{name}", content=b"x")
        first = (await http.get("/frames", params={"limit": 3})).json()
        assert first == {"frames": names[:3], "next": names[2]}
        second = (await http.get("/frames", params={"limit": 3, "after": first["next"]})).json()
        assert second == {"frames": names[3:], "next": None}
        for limit in ("many", "0", "-3"):  # 0 was a 500, and a page of -3 said that the list was at its end
            assert (await http.get("/frames", params={"limit": limit})).status_code == 400


async def test_metrics_of_store_and_service_on_one_page(store_path):
    async with serving(store_path) as (_, http):
        await http.put(NAME, content=b"a")
        await http.get(f"/frames/{BlobGuid.random()}")
        page = (await http.get("/metrics")).text
    assert 'blob_service_answers_total{method="PUT",status="201"} 1.0' in page
    assert 'blob_service_answers_total{method="GET",status="404"} 1.0' in page
    assert 'uringblob_operation_seconds_count{operation="commit",outcome="ok"} 1.0' in page
    assert 'uringblob_blobs{store="default"} 1.0' in page


async def test_an_answer_that_nobody_takes_holds_its_place(store_path):
    """A slow reader counts as under way until its socket's buffer has drained: memory is bounded."""
    async with serving(store_path, requests_max=1) as (service, http):
        await http.put(NAME, content=b"slow")
        sent, drained = [], asyncio.Event()

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            if sent and sent[-1].get("body"):
                await drained.wait()  # as a server does whose transport is full
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": NAME, "headers": [], "query_string": b""}
        slow = asyncio.ensure_future(service.app(scope, receive, send))
        while not (sent and sent[-1].get("body")):
            await asyncio.sleep(0)
        assert (await http.get(NAME)).status_code == 503
        drained.set()
        await slow
        assert sent[1]["body"] == b"slow"
        assert (await http.get(NAME)).status_code == 200
