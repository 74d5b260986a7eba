"""The probe of a bucket: whether it keeps the promises without which two writers corrupt a store.

It is not optional.  Many servers speak S3, and not all of them know conditional writes: an old or a mock
one ignores the header and overwrites, and answers as if all were well.  ``docs/remote-format.md`` says what
breaks then.  The probe makes one object under a name of its own, tries to have it overwritten against each
condition, looks at what is there, and deletes it: nine requests where all is well.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
from typing import Final

from uringblob.errors import EngineUnavailable
from uringblob.remote.bucket import Bucket, BucketError, KeyChanged, KeyMissing, KeyTaken
from uringblob.remote.requests import FINAL, PAUSE_S

PROBE_PREFIX: Final = "probe/"
#: A server that does not answer takes as many timeouts, and one more for the deletion.
TRIES: Final = 2
_REMEDY: Final = (
    "no store can be kept there: use a server that has conditional writes (S3, GCS, Azure, Ceph 16 and newer), "
    "or a newer version of this one"
)


async def probe(bucket: Bucket, *, pause_s: float = PAUSE_S) -> None:
    """Raise unless ``bucket`` does what it is asked, on an object of the probe's own.

    Where a request failed, all is tried once more, under another name: what is late changes only the first.

    :raises EngineUnavailable: it does not; the message says which request was answered how.
    :raises BucketError: a request failed.
    """
    keys: list[str] = []
    try:
        while True:
            keys.append(f"{PROBE_PREFIX}{secrets.token_hex(16)}")
            try:
                await _probe(bucket, keys[-1])
                break
            except BucketError as error:
                if len(keys) == TRIES or error.errno in FINAL:
                    raise
            await asyncio.sleep(pause_s)
    except BaseException:
        with contextlib.suppress(BucketError):  # what it found, or what failed last, is said
            await bucket.delete(keys)
        raise
    await bucket.delete(keys)
    try:
        await bucket.get(keys[-1])
    except KeyMissing:
        return
    raise _lies(bucket, "a deleted object is still there", "delete")


async def _probe(bucket: Bucket, key: str) -> None:
    await _create(bucket, key)
    first = await _holds(bucket, key, b"first", "a second create was refused")
    # Settles the form of an ETag, too: with quotes or without.  As above, a refusal may be its own doing.
    with contextlib.suppress(KeyChanged):
        await bucket.replace(key, b"second", first)
    second = await _holds(bucket, key, b"second", "replacing what has the ETag given")
    if second == first:
        raise _lies(bucket, "two different objects have the same ETag", "replace")
    try:
        await bucket.replace(key, b"third", first)
    except KeyChanged:
        await _holds(bucket, key, b"second", "replace with a wrong ETag")
        return
    raise _lies(bucket, "If-Match with a wrong ETag overwrites the object", "replace")


async def _create(bucket: Bucket, key: str) -> None:
    """Create the object, twice: nobody else knows its name."""
    # A refusal of the first one is this probe's own doing, after a lost answer: what is read next shows it.
    with contextlib.suppress(KeyTaken):
        await bucket.create(key, b"first")
    try:
        await bucket.create(key, b"overwritten")
    except KeyTaken:
        return
    raise _lies(bucket, "a second If-None-Match: * is not refused, and overwrites the object", "create")


async def _holds(bucket: Bucket, key: str, body: bytes, what: str) -> str:
    """Return the object's ETag if it has this body."""
    try:
        found, etag = await bucket.get(key)
    except KeyMissing as missing:
        raise _lies(bucket, f"after {what} the object is not there", "get") from missing
    if found != body:
        raise _lies(bucket, f"after {what} the object is {bytes(found)!r}, not {body!r}", "get")
    if not etag:
        raise _lies(bucket, "objects have no ETag", "get")
    return etag


def _lies(bucket: Bucket, what: str, stage: str) -> EngineUnavailable:
    return EngineUnavailable(f"{bucket.name}: {what}: {_REMEDY}", errno.EOPNOTSUPP, stage)
