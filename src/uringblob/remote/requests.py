"""Requests to a bucket that end with an answer: tried again where that is harmless, and compared where it is not.

Every request of the store may be repeated: what is put is put under a name of its own, and who makes or
replaces an object compares what is there with what it sent (``docs/remote-format.md``, rule 5).
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from uringblob.errors import BlobStoreIOError
from uringblob.guid import GuidLike
from uringblob.remote.bucket import Bucket, BucketError, FrameBucket, KeyChanged, KeyMissing, KeyTaken, Listed

T = TypeVar("T")

#: How often a request is made, where the bucket's own client gave up; and the first pause between, in seconds.
TRIES: Final = 3
PAUSE_S: Final = 0.2
#: Transfers of frames at once.
IN_FLIGHT_MAX: Final = 64
#: Keys of one request to delete.
DELETED_AT_ONCE: Final = 1000

#: The next try would be answered in the same way.
FINAL = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOENT, errno.ENOTSUP, errno.ENOSYS),
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    }
)


class Requests:
    """A bucket whose requests are repeated; counts what was done."""

    def __init__(self, bucket: Bucket, *, pause_s: float = PAUSE_S) -> None:
        self.bucket, self.name = bucket, bucket.name
        self.attempts = self.retries = 0
        self.reads = self.writes = self.bytes_read = self.bytes_written = self.in_flight = 0
        self._pause_s = pause_s
        self._get_frame = bucket.get_frame if isinstance(bucket, FrameBucket) else self._get_whole
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)

    async def get(self, key: str) -> tuple[bytes, str]:
        """Return body and ETag.  :raises KeyMissing: there is none."""
        body, etag = await self._repeat(lambda: self.bucket.get(key))
        self._read(len(body))
        return bytes(body), etag

    async def frame(self, key: str, size: int) -> bytes | memoryview:
        """Return the body of an object that should have ``size`` bytes, which may be the client's memory."""
        body = await self._repeat(lambda: self._get_frame(key, size))
        self._read(len(body))
        return body

    async def _get_whole(self, key: str, _size: int) -> bytes | memoryview:
        return (await self.bucket.get(key))[0]

    async def find(self, key: str) -> bytes | None:
        """Return the body, or ``None`` if there is no such object."""
        try:
            return (await self.get(key))[0]
        except KeyMissing:
            return None

    async def put(self, key: str, body: bytes | memoryview) -> None:
        """Make an object under a name that nothing else has."""
        await self._repeat(lambda: self.bucket.put(key, body))
        self._wrote(len(body))

    async def create(self, key: str, body: bytes) -> bytes | None:
        """Make an object if there is none; return ``None`` if it is this one, else the other one's body.

        ``maybe_done`` of a :class:`BucketError` is true if any of its tries may have been carried out.
        """

        async def attempt() -> bytes | None:
            try:
                await self.bucket.create(key, body)
            except KeyTaken:
                there = await self.find(key)
                if there is None:  # it was deleted meanwhile, and the next try finds that; or the bucket lies
                    text = f"{self.name}: {key} is taken and missing at once: look at what the bucket keeps"
                    raise BucketError(errno.EIO, text) from None
                return None if there == body else there
            return None

        there = await self._repeat(attempt)
        if there is None:
            self._wrote(len(body))
        return there

    async def replace(self, key: str, body: bytes, etag: str) -> str | None:
        """Replace the object of this ETag; return its new ETag, or ``None`` if another body is there."""

        async def attempt() -> str | None:
            try:
                return await self.bucket.replace(key, body, etag)
            except KeyChanged:
                there, now = await self.bucket.get(key)
                return now if there == body else None

        replaced = await self._repeat(attempt)
        self._wrote(len(body))
        return replaced

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, which may be gone already."""
        for first in range(0, len(keys), DELETED_AT_ONCE):
            some = keys[first : first + DELETED_AT_ONCE]
            await self._repeat(functools.partial(self.bucket.delete, some))

    async def list(self, prefix: str) -> AsyncIterator[Listed]:
        """Iterate over the objects whose keys begin with ``prefix``; it may lag behind."""
        after, tries = "", TRIES
        while True:
            self.attempts += 1
            self.retries += tries < TRIES
            try:
                async for listed in self.bucket.list(prefix, after):
                    yield listed
                    after, tries = listed.key, TRIES
            except BucketError as error:
                tries -= 1
                if not tries or error.errno in FINAL:
                    raise
                await asyncio.sleep(self._pause_s)
            else:
                return

    async def at_once(self, calls: Sequence[Callable[[], Awaitable[Any]]]) -> None:
        """Make calls together, a bounded number at once; when all have ended raise the first error."""

        async def one(call: Callable[[], Awaitable[Any]]) -> None:
            async with self._room:
                await call()

        if len(calls) == 1:
            await one(calls[0])
            return
        results = await asyncio.gather(*map(one, calls), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _repeat(self, attempt: Callable[[], Awaitable[T]]) -> T:
        maybe_done = False
        self.in_flight += 1
        try:
            for count in range(1, TRIES + 1):
                self.attempts += 1
                self.retries += count > 1
                try:
                    return await attempt()
                except BucketError as error:
                    maybe_done = maybe_done or error.maybe_done
                    if count == TRIES or error.errno in FINAL:
                        error.maybe_done = maybe_done
                        raise
                    await asyncio.sleep(self._pause_s * 2 ** (count - 1))
            raise AssertionError("the last try returned or raised")
        finally:
            self.in_flight -= 1

    def _read(self, size: int) -> None:
        self.reads += 1
        self.bytes_read += size

    def _wrote(self, size: int) -> None:
        self.writes += 1
        self.bytes_written += size


def io_error(error: BucketError, what: str, guid: GuidLike | None = None) -> BlobStoreIOError:
    """Return what a caller gets for a request that failed; ``what`` names the call's purpose and the place."""
    number = error.errno or errno.EIO
    text = error.strerror or os.strerror(number)
    raised = BlobStoreIOError(
        number, f"{what}: {text}", guid=guid, applied=None if error.maybe_done else False
    )
    raised.__cause__ = error
    return raised
