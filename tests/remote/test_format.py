"""The bytes of a store's objects in a bucket."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from uringblob import StoreCorrupt
from uringblob.remote import format as fmt

pytestmark = pytest.mark.one_interpreter

HEADER = fmt.Header(fmt.CHANGES, 7, 3, b"s" * 8, b"n" * 16, 12345)
FRAME = fmt.frame_name(3, b"s" * 8, 258)
RECORDS = {
    b"a" * 16: fmt.Entry(FRAME, 2**64 - 1, b"meta"),
    b"b" * 16: None,
    b"c" * 16: fmt.Entry(FRAME, 0, b""),
}


def decoded(body):
    header, count = fmt.decode_header(body, "here")
    return header, dict(fmt.decode_records(body, count, "here"))


def test_a_group_is_decoded_as_it_was_encoded():
    assert decoded(fmt.encode(HEADER, RECORDS)) == (HEADER, RECORDS)


def test_an_epoch_group_is_shorter_than_any_change():
    assert len(fmt.encode(dataclasses.replace(HEADER, kind=fmt.EPOCH), {})) == fmt.EPOCH_BYTES
    assert len(fmt.encode(HEADER, {b"b" * 16: None})) > fmt.EPOCH_BYTES


def test_any_damage_is_found():
    body = fmt.encode(HEADER, RECORDS)
    dice = random.Random(1)
    for at in range(len(body)):
        bad = bytearray(body)
        bad[at] ^= 1 << dice.randrange(8)
        with pytest.raises(StoreCorrupt, match="here: its"):
            decoded(bytes(bad))
    for length in range(len(body)):
        with pytest.raises(StoreCorrupt):
            decoded(body[:length])


def test_a_later_version_is_refused_by_name():
    body = bytearray(fmt.encode(HEADER, RECORDS)[:-8])
    body[8] = 9
    with pytest.raises(StoreCorrupt, match="version 9"):
        decoded(fmt.sealed(body))
    head = json.loads(fmt.Head("s", 4096).encode())
    with pytest.raises(StoreCorrupt, match="format 9"):
        fmt.decode_head(json.dumps({**head, "format": 9}).encode(), "here")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"format": 1, "store": "x", "page_size": 5}'])
def test_what_is_no_head_is_refused(body):
    with pytest.raises(StoreCorrupt, match="give another prefix"):
        fmt.decode_head(body, "here")


def test_head_ignores_what_a_later_release_adds():
    head = fmt.Head("store", 4096, 1, 2, 3, "map/x", 4, "nonce")
    body = json.dumps({**json.loads(head.encode()), "more": 1}).encode()
    assert fmt.decode_head(body, "here") == head


def test_keys_sort_as_numbers_do():
    numbers = [0, 9, 10, 99, 10**12]
    assert [fmt.number_in(key) for key in sorted(map(fmt.log_key, numbers))] == numbers
    assert fmt.number_in(fmt.frame_key(FRAME)) == 3
    assert fmt.number_in("log/strange") == -1


def test_a_lease_that_cannot_be_read_keeps_everything_for_a_day():
    assert fmt.decode_lease(fmt.encode_lease(5, 600)) == (5, 600)
    for body in (b"", b"{}", b'{"seq": "x", "ttl_s": 1}'):
        assert fmt.decode_lease(body) == (0, 86400)
