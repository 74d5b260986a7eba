"""A server that lies about a condition is refused by name, before a store relies on it."""

from __future__ import annotations

import errno

import pytest

from uringblob import EngineUnavailable
from uringblob.remote.bucket import BucketError, KeyChanged, KeyMissing, KeyTaken
from uringblob.remote.probe import TRIES, probe

pytestmark = pytest.mark.one_interpreter


class Honest:
    """A bucket in a dict; one of its methods is replaced by a lie."""

    name = "s3://bucket/prefix"

    def __init__(self):
        self.objects = {}
        self.requests = 0
        self._version = 0

    async def get(self, key):
        self.requests += 1
        if key not in self.objects:
            raise KeyMissing(key)
        return self.objects[key]

    async def put(self, key, body):
        self._version += 1
        self.objects[key] = body, self.etag()

    def etag(self):
        return f'"{self._version}"'

    async def create(self, key, body):
        self.requests += 1
        if key in self.objects:
            raise KeyTaken(key)
        await self.put(key, body)

    async def replace(self, key, body, etag):
        self.requests += 1
        if key not in self.objects or self.objects[key][1] != etag:
            raise KeyChanged(key)
        await self.put(key, body)
        return self.etag()

    async def delete(self, keys):
        self.requests += 1
        for key in keys:
            self.objects.pop(key, None)


class CreateOverwrites(Honest):
    says = "second If-None-Match: . is not refused, and overwrites"
    stage = "create"

    async def create(self, key, body):
        await self.put(key, body)


class CreateRefusesAndOverwrites(Honest):
    says = "a second create was refused the object is b'overwritten', not b'first'"
    stage = "get"

    async def create(self, key, body):
        taken = key in self.objects
        await self.put(key, body)
        if taken:
            raise KeyTaken(key)


class CreateDoesNothing(Honest):
    says = "the object is not there"
    stage = "get"

    async def create(self, key, body):
        raise KeyTaken(key)


class ReplaceIgnoresTheEtag(Honest):
    says = "If-Match with a wrong ETag overwrites"
    stage = "replace"

    async def replace(self, key, body, etag):
        await self.put(key, body)
        return self.etag()


class ReplaceRefusesTheRightEtag(Honest):
    says = "the object is b'first', not b'second'"
    stage = "get"

    async def replace(self, key, body, etag):
        raise KeyChanged(key)


class ReplaceRefusesAndOverwrites(Honest):
    says = "replace with a wrong ETag the object is b'third', not b'second'"
    stage = "get"

    async def replace(self, key, body, etag):
        changed = self.objects[key][1] != etag
        await self.put(key, body)
        if changed:
            raise KeyChanged(key)
        return self.etag()


class OneEtagForAll(Honest):
    says = "two different objects have the same ETag"
    stage = "replace"

    def etag(self):
        return '"0"'


class NoEtags(Honest):
    says = "objects have no ETag"
    stage = "get"

    def etag(self):
        return ""


class DeleteDoesNothing(Honest):
    says = "a deleted object is still there"
    stage = "delete"

    async def delete(self, keys):
        pass


LIARS = [kind for kind in Honest.__subclasses__() if hasattr(kind, "says")]


@pytest.mark.parametrize("liar", LIARS, ids=lambda kind: kind.__name__)
async def test_what_lies_is_refused_by_name(liar):
    bucket = liar()
    with pytest.raises(EngineUnavailable, match=liar.says) as caught:
        await probe(bucket)
    assert str(caught.value).startswith("s3://bucket/prefix: ")
    assert "use a server that has conditional writes" in str(caught.value)
    assert (caught.value.errno, caught.value.stage) == (errno.EOPNOTSUPP, liar.stage)
    assert liar is DeleteDoesNothing or not bucket.objects


async def test_an_honest_one_passes_with_nine_requests():
    bucket = Honest()
    await probe(bucket)
    assert (bucket.requests, bucket.objects) == (9, {})


class LosesAnswers(Honest):
    """Its client tried again after a lost answer: the refusal is of the probe's own write."""

    async def create(self, key, body):
        if key in self.objects:
            raise KeyTaken(key)
        await self.put(key, body)
        raise KeyTaken(key)

    async def replace(self, key, body, etag):
        await super().replace(key, body, etag)
        raise KeyChanged(key)


async def test_a_lost_answer_is_no_lie():
    await probe(LosesAnswers())


class Fails(Honest):
    async def replace(self, key, body, etag):
        raise BucketError(errno.ECONNRESET, "the connection broke", maybe_done=True)


class FailsForEver(Fails):
    async def delete(self, keys):
        raise BucketError(errno.ECONNREFUSED, "no connection")


@pytest.mark.parametrize("kind", [Fails, FailsForEver])
async def test_a_failure_is_no_lie_and_the_first_one_is_said(kind):
    bucket = kind()
    with pytest.raises(BucketError, match="the connection broke"):
        await probe(bucket, pause_s=0)
    assert len(bucket.objects) == (TRIES if kind is FailsForEver else 0)


class LateOnce(Honest):
    """Its first replace is not answered, and carried out at the worst moment."""

    def __init__(self):
        super().__init__()
        self.late = None

    async def create(self, key, body):
        if self.late is not None:
            await self.put(*self.late)
        await super().create(key, body)

    async def replace(self, key, body, etag):
        if self.late is None:
            self.late = key, body
            raise BucketError(errno.ETIMEDOUT, "no answer", maybe_done=True)
        return await super().replace(key, body, etag)


async def test_after_a_timeout_all_is_tried_again_under_another_name():
    bucket = LateOnce()
    await probe(bucket, pause_s=0)
    assert bucket.late is not None
    assert not bucket.objects


class Refuses(Honest):
    async def create(self, key, body):
        self.requests += 1
        raise BucketError(errno.EACCES, "access denied")


async def test_a_refusal_is_not_tried_again():
    bucket = Refuses()
    with pytest.raises(BucketError, match="access denied"):
        await probe(bucket, pause_s=0)
    assert bucket.requests == 2  # the create, and the deletion
