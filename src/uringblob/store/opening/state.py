"""Reading the newest durable state of a store: alone, or beside its writer (docs/maintainers/format.md).

Alone, the last group is judged; the caller has locked the file, so nothing changes meanwhile.  Beside a
writer, groups count up to the one that it has announced, which are durable.  The log's segments may be reused
under this reader: its blocks say so, because they name their log, place and group.  Then it begins again at
the superblocks; they name another log by then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from uringblob.engines.to_thread import to_thread
from uringblob.errors import StoreCorrupt
from uringblob.store.file import StoreFile, drop_cache, judge_superblocks, newest
from uringblob.store.format import HEADER_SIZE, Superblock
from uringblob.store.io.file_io import FileIO
from uringblob.store.opening.newer_log import check_no_newer_log
from uringblob.store.opening.recover import RecoveredLog, recover


@dataclasses.dataclass
class State:
    """What a store durably says: ``superblock`` is in force, and was read from ``offset``."""

    found: RecoveredLog
    superblock: Superblock
    offset: int
    both: Sequence[Superblock | None]


async def superblocks_now(file: StoreFile, file_io: FileIO) -> list[Superblock | None]:
    """Return both superblocks as the engine reads them."""
    header = await file_io.read(0, HEADER_SIZE, "reading the superblocks")
    return judge_superblocks(header, file.path)


async def read_alone(
    file: StoreFile, file_io: FileIO, superblocks: list[Superblock | None], *, cached: str
) -> State:
    """Return the state of the file, which is locked and flushed; for a writer, too.

    ``cached`` says why the engine's reads may be a cache's, or "".
    """
    if not cached:
        # They were read through the page cache, which may hold one that a failed flush lost.
        superblocks = await superblocks_now(file, file_io)
    current, offset = newest(superblocks, file.path)
    found = await recover(file_io, current, read_only=file.read_only, cached=cached)
    if None in superblocks:
        await check_no_newer_log(file_io, found, current)
    return State(found, current, offset, superblocks)


async def read_alone_again(file: StoreFile, file_io: FileIO, why_cached: Callable[[], str]) -> State:
    """Flush the file and drop its cache, and do :func:`read_alone`."""
    if file.fd >= 0:
        await to_thread(drop_cache, file)
    return await read_alone(file, file_io, await superblocks_now(file, file_io), cached=why_cached())


async def read_beside(file: StoreFile, file_io: FileIO) -> State | None:
    """Return the newest state that the writer has announced; ``None``: there is no writer any more.

    :raises StoreCorrupt: the log is damaged: reading it failed twice, and the superblocks were the same.
    """
    failed_at: int | None = None
    while True:
        revision = -1
        if file.fd >= 0:
            await to_thread(drop_cache, file)
        try:
            superblocks = await superblocks_now(file, file_io)
            current, offset = newest(superblocks, file.path)
            revision = current.revision
            announced = file.locks.ask()  # after the superblocks: the log that they name begins no later
            if announced is None:
                return None
            found = await recover(file_io, current, read_only=True, cached="", up_to=announced)
        except StoreCorrupt:
            if failed_at == revision:
                raise
            failed_at = revision
        else:
            return State(found, current, offset, superblocks)
