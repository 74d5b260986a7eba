"""Requests end, whatever the bucket answers."""

from __future__ import annotations

import pytest

from uringblob.remote.bucket import BucketError, KeyMissing, KeyTaken
from uringblob.remote.requests import TRIES, Requests

pytestmark = pytest.mark.one_interpreter


class TakenAndMissing:
    """A bucket that refuses to make an object, and to show it."""

    name = "sim://bucket"

    def __init__(self):
        self.created = 0

    async def create(self, key, body):
        self.created += 1
        raise KeyTaken(key)

    async def get(self, key):
        raise KeyMissing(key)


async def test_an_object_that_is_taken_and_missing_at_once_is_an_error():
    bucket = TakenAndMissing()
    with pytest.raises(BucketError, match="sim://bucket: log/7 is taken and missing at once"):
        await Requests(bucket, pause_s=0).create("log/7", b"group")
    assert bucket.created == TRIES
