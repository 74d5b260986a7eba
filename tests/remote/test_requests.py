"""What goes over the wire, and what each answer means: against a server that answers by a script."""

from __future__ import annotations

import errno
import json
import socket

import pytest

from remote.servers import Scripted, answer
from uringblob.remote.bucket import BucketError, KeyChanged, KeyTaken

pytestmark = [pytest.mark.one_interpreter, pytest.mark.usefixtures("obstore_here", "credentials")]

CODE = "<Error><Code>{}</Code></Error>"
TAKEN = answer("412 Precondition Failed", CODE.format("PreconditionFailed"))
CONFLICT = answer("409 Conflict", CODE.format("ConditionalRequestConflict"))
DONE = answer("200 OK", ETag='"new"')
OBJECT = answer("200 OK", "body", ETag='"old"', Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT")
MISSING = answer("404 Not Found", CODE.format("NoSuchKey"))


def bucket_at(endpoint, scheme="s3", options=""):
    from uringblob.remote.obstore_bucket import open_bucket

    return open_bucket(f"{scheme}://bucket/prefix?endpoint={endpoint}{options}")


@pytest.fixture
def tries(monkeypatch):
    return lambda number: monkeypatch.setattr("uringblob.remote.obstore_bucket._RETRIES_MAX", number - 1)


def headers_of(request):
    lines = [line.partition(": ") for line in request.splitlines()]
    return {name: value for name, _, value in lines if name.startswith(("if-", "x-goog-if", "x-ms-if"))}


async def test_conditions_of_s3():
    async with Scripted(DONE) as server:
        bucket = bucket_at(server.endpoint)
        await bucket.create("a", b"x")
        assert await bucket.replace("a", b"x", '"old"') == '"new"'
        await bucket.put("a", b"x")
        assert [headers_of(each) for each in server.requests] == [
            {"if-none-match": "*"},
            {"if-match": '"old"'},
            {},
        ]
        assert server.requests[0].startswith("put /bucket/prefix/a ")


def google_bucket_at(endpoint):
    """Without a request for a token."""
    from obstore.store import GCSStore

    from uringblob.remote.obstore_bucket import open_bucket

    key = {"gcs_base_url": endpoint, "disable_oauth": True}
    key |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    store = GCSStore(
        "bucket", config={"service_account_key": json.dumps(key)}, client_options={"allow_http": True}
    )
    return open_bucket(store, "prefix")


async def test_conditions_of_google_are_generations():
    there = {"x-goog-generation": "7", "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT", "ETag": '"o"'}
    done = answer("200 OK", **{"x-goog-generation": "8", "ETag": '"new"'})
    async with Scripted(done, answer("200 OK", "body", **there), done) as server:
        bucket = google_bucket_at(server.endpoint)
        assert bucket.name == "gs://bucket/prefix"
        await bucket.create("a", b"x")
        body, token = await bucket.get("a")
        assert (body, token) == (b"body", "7")
        assert await bucket.replace("a", b"x", token) == "8"
        found = [headers_of(each) for each in server.requests]
        assert found == [{"x-goog-if-generation-match": "0"}, {}, {"x-goog-if-generation-match": "7"}]


async def test_conditions_of_azure():
    async with Scripted(
        answer("201 Created", ETag='"new"', Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT")
    ) as server:
        bucket = bucket_at(server.endpoint, "az", "&skip_signature=true&account=mine")
        await bucket.create("a", b"x")
        await bucket.replace("a", b"x", '"old"')
        found = [headers_of(each) for each in server.requests]
        assert found == [{"if-none-match": "*"}, {"if-match": '"old"'}]


async def test_a_frame_is_asked_for_by_its_size_and_as_a_whole_where_a_server_knows_no_ranges():
    there = {"ETag": '"old"', "Last_Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    part = answer("206 Partial Content", "body", **there, Content_Range="bytes 0-3/4")
    async with Scripted(part, OBJECT) as server:
        bucket = bucket_at(server.endpoint)
        assert await bucket.get_frame("a", 4) == b"body"
        assert await bucket.get_frame("a", 4) == b"body"
        ranges = ["range: bytes=0-3" in each for each in server.requests]
        assert ranges == [True, True, False]


async def test_a_frame_that_cannot_be_read_is_asked_for_once(tries):
    tries(1)
    async with Scripted(answer("403 Forbidden")) as server:
        with pytest.raises(BucketError, match="check the credentials"):
            await bucket_at(server.endpoint).get_frame("a", 4)
        assert len(server.requests) == 1


async def test_the_form_of_an_etag_is_found_once():
    """Ceph takes an ETag only without its quotes."""
    async with Scripted(TAKEN, DONE, TAKEN, DONE) as server:
        bucket = bucket_at(server.endpoint)
        await bucket.replace("a", b"x", '"old"')
        with pytest.raises(KeyChanged):
            await bucket.replace("a", b"x", '"stale"')
        await bucket.replace("a", b"x", '"old"')
        found = [headers_of(each)["if-match"] for each in server.requests]
        assert found == ['"old"', "old", "stale", "old"]


async def test_a_form_that_worked_is_kept():
    async with Scripted(DONE, TAKEN) as server:
        bucket = bucket_at(server.endpoint)
        await bucket.replace("a", b"x", '"old"')
        with pytest.raises(KeyChanged):
            await bucket.replace("a", b"x", '"stale"')
        assert len(server.requests) == 2


async def test_a_conflict_settles_nothing(monkeypatch):
    """409 says that a request was under way, also where nothing came of it: S3 says to try again."""
    monkeypatch.setattr("uringblob.remote.obstore_bucket._CONFLICT_SECONDS", 0)
    async with Scripted(CONFLICT, MISSING, CONFLICT, MISSING, DONE) as server:
        await bucket_at(server.endpoint).create("a", b"x")
        assert [each.split()[0] for each in server.requests] == ["put", "head", "put", "head", "put"]


async def test_a_conflict_with_what_is_there_is_a_refusal():
    async with Scripted(CONFLICT, OBJECT) as server:
        with pytest.raises(KeyTaken):
            await bucket_at(server.endpoint).create("a", b"x")


async def test_conflicts_end(monkeypatch):
    monkeypatch.setattr("uringblob.remote.obstore_bucket._CONFLICT_SECONDS", 0)
    async with Scripted(*[CONFLICT, MISSING] * 8, CONFLICT) as server:
        with pytest.raises(BucketError, match="another request for this object was under way") as caught:
            await bucket_at(server.endpoint).create("a", b"x")
        assert caught.value.errno == errno.EBUSY


async def test_google_stops_at_the_first_missing_key_and_the_rest_is_deleted():
    async with Scripted(MISSING, MISSING, answer("204 No Content")) as server:
        await google_bucket_at(server.endpoint).delete(["a", "b"])
        deleted = [
            each.split()[1].rpartition("%2f")[2] for each in server.requests if each.startswith("delete")
        ]
        assert deleted[-1:] == ["b"], server.requests


@pytest.mark.parametrize(
    ("status", "code", "number", "says", "refused"),
    [
        ("401 Unauthorized", "", errno.EACCES, "check the credentials", True),
        (
            "403 Forbidden",
            "SignatureDoesNotMatch",
            errno.EACCES,
            r"403 Forbidden \(Sig.*check the cred",
            True,
        ),
        ("403 Forbidden", "QuotaExceeded", errno.EDQUOT, "delete blobs, or raise the quota", True),
        ("400 Bad Request", "InvalidArgument", errno.EINVAL, "options of the URL", True),
        ("507 Insufficient Storage", "", errno.ENOSPC, "give the server more room", False),
        ("503 Slow Down", "SlowDown", errno.EBUSY, "try again later", False),
        ("500 Internal Server Error", "", errno.EIO, "the server's log says why", False),
        ("501 Not Implemented", "", errno.ENOTSUP, "does not know this request", False),
    ],
)
async def test_each_status_is_an_errno_and_something_to_do(tries, status, code, number, says, refused):
    tries(1)
    async with Scripted(answer(status, CODE.format(code) if code else "")) as server:
        bucket = bucket_at(server.endpoint)
        with pytest.raises(BucketError, match=f"s3://bucket/prefix: PUT a: .*{says}") as caught:
            await bucket.create("a", b"x")
        assert (caught.value.errno, caught.value.maybe_done) == (number, not refused)
        with pytest.raises(BucketError) as caught:
            await bucket.get("a")
        assert caught.value.maybe_done is False, "a read changes nothing"


async def test_nobody_listens(tries):
    tries(1)
    with socket.socket() as nobody:  # a port that nobody else can have meanwhile
        nobody.bind(("127.0.0.1", 0))
        bucket = bucket_at("http://{}:{}".format(*nobody.getsockname()))
        with pytest.raises(BucketError, match="is the server running, and the endpoint right") as caught:
            await bucket.create("a", b"x")
    assert caught.value.errno == errno.ECONNREFUSED


async def test_a_cut_connection_may_have_carried_it_out(tries):
    tries(2)
    async with Scripted(b"") as server:
        with pytest.raises(BucketError, match="the connection broke") as caught:
            await bucket_at(server.endpoint).create("a", b"x")
        assert (caught.value.errno, caught.value.maybe_done) == (errno.ECONNRESET, True)
        assert len(server.requests) == 2, "it is tried again"


async def test_a_refusal_after_a_lost_answer_may_have_been_carried_out():
    async with Scripted(b"", answer("403 Forbidden")) as server:
        with pytest.raises(BucketError, match="check the credentials") as caught:
            await bucket_at(server.endpoint).create("a", b"x")
        assert caught.value.maybe_done is True


async def test_a_client_that_tries_for_minutes_is_cut_short():
    """A store of the caller's own keeps its retries, and the bucket its time."""
    from obstore.store import S3Store

    from uringblob.remote.obstore_bucket import ObstoreBucket

    async with Scripted(answer("503 Slow Down")) as server:
        options = {"endpoint": server.endpoint, "region": "us-east-1", "virtual_hosted_style_request": False}
        store = S3Store("bucket", config=options, client_options={"allow_http": True})
        bucket = ObstoreBucket(store, "", "s3://bucket", timeout=0.3)
        with pytest.raises(BucketError, match=r"no answer in 0\.3 s: look after the server") as caught:
            await bucket.create("a", b"x")
        assert (caught.value.errno, caught.value.maybe_done) == (errno.ETIMEDOUT, True)


@pytest.mark.parametrize("status", ["412 Precondition Failed", "409 Conflict"])
async def test_a_second_create_on_azure_is_refused(status):
    there = {"ETag": '"old"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    async with Scripted(answer(status), answer("200 OK", "", **there)) as server:
        with pytest.raises(KeyTaken):
            await bucket_at(server.endpoint, "az", "&skip_signature=true&account=mine").create("a", b"x")
