"""Buckets of S3 and all that speaks it, of GCS and of Azure, through ``obstore`` (Rust's ``object_store``).

Needs the extra ``uringblob[remote]`` and Python 3.11; ``import uringblob`` does not import this module.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

try:
    import obstore
    from obstore import exceptions
    from obstore import store as stores
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"a store in a bucket needs {missing.name} (Python 3.11 or newer): pip install 'uringblob[remote]'",
        name=missing.name,
    ) from missing

from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.remote.bucket import Bucket, BucketError, Buffer, KeyChanged, KeyMissing, KeyTaken, Listed
from uringblob.remote.bucket_url import TIMEOUT, BucketUrl, check_prefix, parse_url
from uringblob.remote.obstore_errors import bucket_error, is_conflict, no_answer, no_bucket, no_range

T = TypeVar("T")
Answers = Mapping[type[BaseException], type[Exception]]

_CONNECT_SECONDS: Final = 5.0
_RETRIES_MAX: Final = 5
#: Tries of a create that the server answers with 409, and the wait between them.
_CONFLICTS_MAX: Final = 8
_CONFLICT_SECONDS: Final = 0.1
_LIST_CHUNK: Final = 1000

#: How long an interpreter that ends waits for the client's threads at most.
_LEAVE_SECONDS: Final = 2.0

#: The process whose threads run the requests; a forked child has none of them.
_process: int | None = None


@atexit.register
def _let_threads_leave() -> None:
    """Wait until no thread of the client is inside Python.

    One that reports a result there gives the interpreter lock up meanwhile.  An interpreter that ends then
    stops it, and Rust answers with SIGABRT (obstore 0.12, CPython 3.11: in 12 of 165 programs on a busy
    machine that ended right after their last request).
    """
    deadline = time.monotonic() + _LEAVE_SECONDS
    while time.monotonic() < deadline:
        known = {thread.ident for thread in threading.enumerate()}
        if sys._current_frames().keys() <= known:
            return
        time.sleep(0.001)  # the lock is free meanwhile, which is all that they wait for


def open_bucket(url_or_store: Any, prefix: str = "") -> Bucket:
    """Return the objects under a prefix of a bucket.

    :param url_or_store: a URL such as ``s3://bucket/prefix?endpoint=http://127.0.0.1:7480`` (see
        :mod:`uringblob.remote.bucket_url`), or a store of ``obstore.store``, with the retries and credentials
        that it was made with.
    :param prefix: below the URL's or the store's own.
    :raises ValueError: the URL is none, or names what cannot keep a store.
    :raises RuntimeError: this process was forked from one that used ``obstore``.
    """
    _check_process()
    prefix = check_prefix(prefix)
    if isinstance(url_or_store, str):
        url = parse_url(url_or_store)
        whole = "/".join(part for part in (url.prefix, prefix) if part)
        name = f"{url.name}{'/' if prefix else ''}{prefix}"
        return ObstoreBucket(_make_store(url), whole, name, url.timeout)
    if not isinstance(url_or_store, (stores.S3Store, stores.GCSStore, stores.AzureStore, stores.MemoryStore)):
        raise TypeError(
            "a bucket is given as its URL, or as an S3Store, GCSStore, AzureStore or MemoryStore of obstore.store, "
            f"not as {type(url_or_store).__name__} (a LocalStore does not flush: FileBlobStore keeps files)"
        )
    return ObstoreBucket(url_or_store, prefix, f"{_name_of(url_or_store)}/{prefix}".rstrip("/"), TIMEOUT)


def _make_store(url: BucketUrl) -> Any:
    if url.kind == "MemoryStore":
        return stores.MemoryStore()
    # One try has half of the time, and none begins in the second half: together they keep to it.
    half = timedelta(seconds=url.timeout / 2)
    connect = timedelta(seconds=min(_CONNECT_SECONDS, url.timeout / 2))
    client = {"timeout": half, "connect_timeout": connect, "allow_http": url.allow_http}
    backoff = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2}
    retries = {"max_retries": _RETRIES_MAX, "retry_timeout": half, "backoff": backoff}
    make = getattr(stores, url.kind)
    return make(url.bucket, config=url.config, client_options=client, retry_config=retries)


def _name_of(store: Any) -> str:
    """Return a store's name for messages, without its configuration, which may hold keys."""
    if isinstance(store, stores.MemoryStore):
        return "memory:"
    scheme = {"S3Store": "s3", "GCSStore": "gs", "AzureStore": "az"}.get(type(store).__name__, "bucket")
    config = getattr(store, "config", {})
    bucket = config.get("bucket") or config.get("container_name") or "?"
    return f"{scheme}://{bucket}/{getattr(store, 'prefix', '') or ''}".rstrip("/")


def _check_process() -> None:
    global _process
    if _process is None:
        _process = os.getpid()
    elif _process != os.getpid():
        raise RuntimeError(
            "obstore's threads do not survive a fork, and this process is the child of one that used them: start "
            "it by another way (multiprocessing: 'spawn' or 'forkserver'), or open buckets only after the fork"
        )


class ObstoreBucket:
    """A :class:`Bucket` over a store of ``obstore``."""

    def __init__(self, store: Any, prefix: str, name: str, timeout: float) -> None:
        self.name = name
        self._store = store
        self._root = f"{prefix}/" if prefix else ""
        self._timeout = timeout
        #: GCS knows an object's version by its generation, all others by its ETag.
        self._token = "version" if isinstance(store, stores.GCSStore) else "e_tag"
        #: It keeps what it is given, which is the caller's memory.
        self._keeps_body = isinstance(store, stores.MemoryStore)
        #: Whether the server takes an ETag without its quotes (Ceph); ``None``: not known yet.
        self._unquoted: bool | None = None

    async def get(self, key: str) -> tuple[memoryview, str]:
        """Return the object's body and ETag.  :raises KeyMissing: there is none."""
        return await self._run("GET", key, self._fetch(key), {FileNotFoundError: KeyMissing})

    async def _fetch(self, key: str) -> tuple[memoryview, str]:
        found = await self._store.get_async(self._root + key)
        return memoryview(await found.bytes_async()), found.meta[self._token] or ""

    async def get_frame(self, key: str, size: int) -> memoryview:
        """Return the first ``size`` bytes of the object: the client's one answer, where ``get`` takes two."""
        request = self._store.get_range_async(self._root + key, start=0, end=size)
        try:
            return memoryview(await self._run("GET", key, request, {FileNotFoundError: KeyMissing}))
        except BucketError as error:
            if error.__cause__ is None or not no_range(error.__cause__):
                raise
        return (await self.get(key))[0]

    async def put(self, key: str, body: Buffer) -> None:
        """Make or overwrite the object."""
        await self._put(key, body, "overwrite", {})

    async def create(self, key: str, body: Buffer) -> None:
        """Make the object if there is none.  :raises KeyTaken: there is one."""
        answers: Answers = {
            exceptions.AlreadyExistsError: KeyTaken,
            exceptions.PreconditionError: KeyTaken,  # Azure's
        }
        for _ in range(_CONFLICTS_MAX):
            try:
                await self._put(key, body, "create", answers)
            except KeyTaken as taken:
                cause = taken.__cause__
                # 409 says that something was under way, also where nothing came of it.
                if cause is None or not is_conflict(cause) or await self._is_there(key):
                    raise
                conflict = cause
                await asyncio.sleep(_CONFLICT_SECONDS)
            else:
                return
        raise bucket_error(conflict, f"{self.name}: PUT {key}", changes=True) from conflict

    async def _is_there(self, key: str) -> bool:
        head = self._store.head_async(self._root + key)
        try:
            await self._run("HEAD", key, head, {FileNotFoundError: KeyMissing})
        except KeyMissing:
            return False
        return True

    async def replace(self, key: str, body: Buffer, etag: str) -> str:
        """Replace the object that has this ETag; return the new ETag.  :raises KeyChanged: it has another.

        Until one form of an ETag has worked, both are tried: ``uringblob.remote.probe`` has it settled with
        an object of its own, before a store relies on it.
        """
        forms = (
            [etag, etag.strip('"')]
            if self._unquoted is None
            else [etag.strip('"') if self._unquoted else etag]
        )
        answers: Answers = {exceptions.PreconditionError: KeyChanged, FileNotFoundError: KeyChanged}
        for form in dict.fromkeys(forms):
            try:
                done = await self._put(key, body, {self._token: form}, answers)
            except KeyChanged as changed:
                refused = changed
            else:
                if self._unquoted is None and len(forms) > 1:
                    self._unquoted = form != etag
                return str(done[self._token] or "")
        raise refused

    async def _put(self, key: str, body: Buffer, mode: Any, answers: Answers) -> Any:
        if self._keeps_body:
            with _flat(body) as view:
                body = bytes(view)
        view = _flat(body)
        try:
            # In one request: parts that are left over cost money until somebody looks for them.
            request = self._store.put_async(self._root + key, view, mode=mode, use_multipart=False)
            return await self._run("PUT", key, request, answers, changes=True)
        finally:
            if not self._keeps_body:
                await _let_go(view)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete the objects; a missing key is no error."""
        paths = [self._root + key for key in keys]
        if not paths:
            return
        what = keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"
        try:
            await self._run("DELETE", what, self._store.delete_async(paths), _MISSING, changes=True)
        except KeyMissing:
            # GCS and Azure say so, and stop at the first one.
            for key in keys:
                await self._delete_one(key)

    async def _delete_one(self, key: str) -> None:
        try:
            request = self._store.delete_async(self._root + key)
            await self._run("DELETE", key, request, _MISSING, changes=True)
        except KeyMissing:
            return

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """Iterate over the objects whose keys begin with ``prefix`` and are greater than ``after``, ascending."""
        # obstore's prefixes are whole directories.
        directory = (self._root + prefix).rpartition("/")[0]
        offset = self._root + after if after else None
        stream = obstore.list(self._store, directory or None, offset=offset, chunk_size=_LIST_CHUNK)
        chunks = stream.__aiter__()
        while chunk := await self._run("LIST", prefix, _next_chunk(chunks), {}):
            for found in chunk:
                key = found["path"].removeprefix(self._root)
                if key.startswith(prefix):
                    yield Listed(key, found["size"], found["last_modified"])

    async def aclose(self) -> None:
        """Let go of the client, whose connections end with the last reference; the caller may have one."""
        self._store = None

    async def _run(
        self, verb: str, key: str, request: Awaitable[T], answers: Answers, *, changes: bool = False
    ) -> T:
        """Await one request, in the time that it has; return or raise what it means."""
        _check_process()
        what = f"{self.name}: {verb} {key}"
        try:
            async with asyncio.timeout(self._timeout):  # type: ignore[attr-defined] # Python 3.11's
                return await request
        except TimeoutError as error:
            raise no_answer(what, self._timeout, changes=changes) from error
        except (exceptions.BaseError, OSError, NotImplementedError) as error:
            # Its frames hold the client, and the client's threads hold it until they next run Python.
            error.__traceback__ = None
            kind = next((kind for known, kind in answers.items() if isinstance(error, known)), None)
            if kind is not None and not no_bucket(error):
                raise kind(key) from error
            raise bucket_error(error, what, changes=changes) from error


_MISSING: Final[Answers] = {FileNotFoundError: KeyMissing}


def _flat(body: Buffer) -> memoryview:
    return memoryview(body.view if isinstance(body, AlignedBlobBuf) else body).cast("B")


async def _next_chunk(chunks: Any) -> Any:
    return await anext(chunks, None)


async def _let_go(view: memoryview) -> None:
    """Wait until no thread of the client reads ``view`` any more: a cancelled request ends a moment later."""
    while True:
        try:
            view.release()
        except BufferError:
            await asyncio.sleep(0.001)
        else:
            return
