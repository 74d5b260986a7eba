"""The URL of a bucket: what it says, and what is refused before any request."""

from __future__ import annotations

import pytest

from uringblob.remote.bucket_url import TIMEOUT, parse_url

pytestmark = pytest.mark.one_interpreter


def test_a_bucket_of_amazons():
    url = parse_url("s3://bucket/some/prefix/?region=eu-north-1")
    assert (url.kind, url.bucket, url.prefix, url.name) == (
        *("S3Store", "bucket", "some/prefix", "s3://bucket/some/prefix"),
    )
    assert url.config == {"virtual_hosted_style_request": True, "region": "eu-north-1"}
    assert (url.timeout, url.allow_http) == (TIMEOUT, False)


def test_a_server_of_ones_own_has_paths_for_buckets_and_any_region():
    url = parse_url("s3://bucket?endpoint=http://127.0.0.1:7480/&timeout=2.5")
    assert url.config == {
        "virtual_hosted_style_request": False,
        "region": "us-east-1",
        "endpoint": "http://127.0.0.1:7480",
    }
    assert (url.prefix, url.name, url.timeout, url.allow_http) == ("", "s3://bucket", 2.5, True)
    named = parse_url("s3://bucket?endpoint=https://bucket.ceph.example&path_style=false")
    assert named.config["virtual_hosted_style_request"] is True


def test_buckets_of_google_and_microsoft():
    google = parse_url("gs://bucket/p?endpoint=http://localhost:4443&skip_signature=true")
    assert google.kind == "GCSStore"
    assert google.config == {"base_url": "http://localhost:4443", "skip_signature": True}
    microsoft = parse_url("az://container/p?account=mine")
    assert (microsoft.kind, microsoft.config) == ("AzureStore", {"account_name": "mine"})


def test_memory_has_no_bucket():
    assert parse_url("memory://").kind == "MemoryStore"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///tmp/x", "a directory is no bucket.*FileBlobStore"),
        ("http://bucket/x", "scheme must be one of s3, s3a, gs, az"),
        ("s3:///prefix", "the bucket's name is missing: s3://BUCKET/PREFIX"),
        ("s3://key:secret@bucket/p", "credentials are no part of the URL"),
        (
            "s3://bucket?access_key_id=x",
            "unknown option 'access_key_id'.*credentials are set in the environment",
        ),
        ("s3://bucket?endpoint=ftp://h", "must be http://HOST:PORT or https://HOST, not 'ftp://h'"),
        ("s3://bucket?endpoint=127.0.0.1:80", "must be http://HOST:PORT"),
        ("s3://bucket?endpoint=http://ceph.example", "in the clear: use https, or add allow_http=true"),
        ("s3://bucket/a//b", "has a part that is empty, '.' or '..'"),
        ("s3://bucket/a/../b", "has a part that is empty"),
        ("s3://bucket/a#b", "write it as %23"),
        ("s3://bucket?timeout=0", "timeout must be seconds, more than 0"),
        ("s3://bucket?timeout=soon", "timeout must be seconds.*'soon'"),
        ("s3://bucket?path_style=maybe", "path_style must be true or false, not 'maybe'"),
    ],
)
def test_what_is_wrong_is_named(url, says):
    with pytest.raises(ValueError, match=says) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_plain_http_goes_to_this_machine(host):
    assert parse_url(f"s3://bucket?endpoint=http://{host}:80").allow_http


def test_plain_http_goes_elsewhere_where_the_url_says_so():
    assert parse_url("s3://bucket?endpoint=http://ceph.example&allow_http=true").allow_http
