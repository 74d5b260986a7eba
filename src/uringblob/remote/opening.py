"""Opening a store in a bucket: find it or make it, read its map, take it over or take a lease."""

from __future__ import annotations

import dataclasses
import errno
import os
from typing import Any

from uringblob.api.observer import StoreObserver
from uringblob.api.open_options import accepting
from uringblob.errors import PageSizeMismatch
from uringblob.remote.bucket import Bucket, BucketError, KeyMissing
from uringblob.remote.core import Core
from uringblob.remote.format import HEAD, Head
from uringblob.remote.history import History
from uringblob.remote.keeper import Keeper
from uringblob.remote.lease import RENEWALS
from uringblob.remote.probe import probe
from uringblob.remote.requests import Requests, io_error
from uringblob.remote.writer import Writer
from uringblob.units import PAGE_SIZE, check_page_size

SESSION_BYTES = 8


@dataclasses.dataclass(frozen=True)
class RemoteOptions:
    """What ``open`` takes; this documentation becomes a part of its own.

    :param url: ``s3://bucket/prefix?endpoint=...`` and the like, an ``obstore`` store, or a ``Bucket``.
        A writer probes it, but for a ``Bucket`` whose attribute ``probed`` is true: its maker has awaited
        ``uringblob.remote.probe.probe(bucket)``.
    :param prefix: added to the URL's own; each store has one for itself.
    :param page_size: the frame size of a new store in bytes (default 524288), a multiple of 4096 up to 64 MiB;
        of an existing one ``PageSizeMismatch`` if it differs.
    :param create: make the store if there is none; false: ``FileNotFoundError``.
    :param read_only: be one of any number of readers; else be the writer, and fence the one before.
    :param lease: seconds that this store may sleep without losing what it reads.
    :param grace: seconds by which the bucket's listings may lag behind; garbage is kept that much longer.
    :param compact_after: groups of the log after which the map is written anew.
    :param observer: is called after every call; see :class:`uringblob.StoreObserver`.
    :raises FileNotFoundError: there is no store, and it is not to be made.
    :raises StoreCorrupt: there is something else, or it is damaged.
    :raises EngineUnavailable: the bucket does not keep its promises, or what is needed to ask it is not
        installed.
    :raises BlobStoreIOError: the bucket refused, or did not answer.
    """

    url: Any
    _: dataclasses.KW_ONLY
    prefix: str = ""
    page_size: int | None = None
    create: bool = True
    read_only: bool = False
    lease: float = 600.0
    grace: float = 30.0
    compact_after: int = 256
    observer: StoreObserver | None = None

    def __post_init__(self) -> None:
        if self.page_size is not None:
            check_page_size(self.page_size)
        if not 0 <= self.grace < self.lease / RENEWALS:
            raise ValueError(
                f"grace {self.grace} must be 0 or more, and below a third of lease, {self.lease}"
            )
        if self.compact_after < 1:
            raise ValueError(f"compact_after must be 1 or more groups, not {self.compact_after}")


remote_options = accepting(RemoteOptions)


async def open_core(options: RemoteOptions) -> Core:
    """Open the store, and the bucket, unless it was given."""
    if isinstance(options.url, Bucket):
        if not getattr(options.url, "probed", False):
            await _probe(options.url, options)
        return await _opened(options.url, options, owns_bucket=False)
    from uringblob.remote.obstore_bucket import open_bucket

    bucket = open_bucket(options.url, options.prefix)
    try:
        await _probe(bucket, options)
        return await _opened(bucket, options, owns_bucket=True)
    except BaseException:
        await bucket.aclose()
        raise


async def _probe(bucket: Bucket, options: RemoteOptions) -> None:
    if not options.read_only:
        try:
            await probe(bucket)
        except BucketError as error:
            raise io_error(error, f"{bucket.name}: probing the bucket") from error


async def _opened(bucket: Bucket, options: RemoteOptions, *, owns_bucket: bool) -> Core:
    try:
        return await _open(bucket, options, owns_bucket=owns_bucket)
    except BucketError as error:
        raise io_error(error, f"{bucket.name}: opening the store") from error


async def _open(bucket: Bucket, options: RemoteOptions, *, owns_bucket: bool) -> Core:
    history = History(Requests(bucket))
    await _find_or_make(history, options)
    page_size = history.head.page_size
    if options.page_size not in (None, page_size):
        raise PageSizeMismatch(
            f"{bucket.name} has frames of {page_size} bytes, not {options.page_size}: open it without page_size"
        )
    await history.load()
    core = Core(history, os.urandom(SESSION_BYTES), options.lease, owns_bucket=owns_bucket)
    if options.read_only:
        await core.take_lease()
    else:
        core.writer = Writer(history, core.session)
        await core.writer.take_over()
        await core.lease.take()
        core.keeper = Keeper(
            core.writer,
            core.lease.key,
            core.oldest,
            compact_after=options.compact_after,
            grace_s=options.grace,
        )
        core.writer.on_group = core.keeper.consider
    core.lease.keep()
    return core


async def _find_or_make(history: History, options: RemoteOptions) -> None:
    name = history.requests.name
    try:
        await history.read_head()
    except KeyMissing:
        if not options.create or options.read_only:
            raise FileNotFoundError(
                errno.ENOENT,
                f"{os.strerror(errno.ENOENT)}: there is no store here; create=True makes one",
                name,
            ) from None
        head = Head(os.urandom(16).hex(), options.page_size or PAGE_SIZE)
        await history.requests.create(HEAD, head.encode())
        await history.read_head()  # ours, or that of another who made it at the same time
