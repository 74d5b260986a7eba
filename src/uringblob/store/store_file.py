"""The store's file: found or made, locked, and known to be the one the path names.

What was learned (Linux 6.18, ext4):

* After ``kill -9`` a write in flight still lands, up to a second after ``waitpid`` returned.  A
  flock on the very descriptor that the ring uses is held until then; a lock file is not.  So the
  store file itself is locked, and there is only one descriptor.
* With a registered file, closing alone leaves the lock held for up to 40 ms; ``LOCK_UN`` first
  makes an immediate reopen work.
* A forked child's copy keeps the lock alive: it closes the copy, without ``LOCK_UN``.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable

from uringblob.errors import BlobStoreIOError, PageSizeMismatch, StoreCorrupt, StoreLocked, errno_name
from uringblob.owner import StoreOwner
from uringblob.store.format import (
    BLOCK_SIZE,
    COUNT_LIMIT,
    HEADER_SIZE,
    SUPERBLOCK_OFFSETS,
    VERSION,
    Superblock,
    decode_superblock,
    superblock_version,
)
from uringblob.units import check_page_size

_LOCK_POLL_S = 0.002


class StoreFile(StoreOwner):
    """An open, locked store file: the one owner of its descriptor."""

    def __init__(self, fd: int, path: str, *, read_only: bool) -> None:
        self.fd = fd
        self.path = path
        self.read_only = read_only

    def __repr__(self) -> str:
        return f"<StoreFile {self.path!r} fd={self.fd}>"

    def close(self) -> None:
        """Unlock and close; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            try:
                fcntl.flock(fd, fcntl.LOCK_UN)
            finally:
                os.close(fd)

    def abandon(self) -> None:
        """Close without unlocking: a forked child shares the lock, a dying ring may still write."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


async def open_locked(
    path: str, *, read_only: bool, lock_timeout: float, create: Callable[[], None] | None
) -> StoreFile:
    """Open and lock the file that ``path`` names; ``create`` makes it where there is none.

    :raises FileNotFoundError: there is none, and ``create`` is ``None``.
    :raises StoreLocked: another opener held it for ``lock_timeout`` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = time.monotonic() + lock_timeout
    while True:
        try:
            _check_regular(path, read_only=read_only)
            fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        except FileNotFoundError:
            if create is None:
                raise
            await loop.run_in_executor(None, create)
            continue
        file = StoreFile(fd, path, read_only=read_only)
        try:
            await _lock(file, lock_timeout, deadline)
            if _is_at(path, fd):
                return file
        except BaseException:
            file.abandon()
            raise
        # Between opening and locking the path came to name another file: begin again.
        file.close()


def _check_regular(path: str, *, read_only: bool) -> None:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode) and read_only:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise StoreCorrupt(f"{path} is not a regular file, so it is no store")


def _is_at(path: str, fd: int) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


async def _lock(file: StoreFile, lock_timeout: float, deadline: float) -> None:
    operation = fcntl.LOCK_SH if file.read_only else fcntl.LOCK_EX
    while True:
        try:
            fcntl.flock(file.fd, operation | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        if time.monotonic() >= deadline:
            raise StoreLocked(
                f"{file.path} is locked by another opener (waited {lock_timeout} s). "
                "Close the store there, or give a longer lock_timeout"
            )
        await asyncio.sleep(_LOCK_POLL_S)


# --- superblocks, before there is an engine ----------------------------------------------


def read_superblocks(file: StoreFile) -> list[Superblock | None]:
    """Return both superblocks, ``None`` for a damaged one, as the medium durably has them.

    :raises StoreCorrupt: neither is good, or the file is no store.
    """
    _drop_cache(file)
    return judge_superblocks(os.pread(file.fd, HEADER_SIZE, 0), file.path)


def judge_superblocks(header: bytes, path: str) -> list[Superblock | None]:
    """Return both superblocks in a file's first 8192 bytes, ``None`` for a damaged one.

    :raises StoreCorrupt: neither is good, or the file is no store.
    """
    blocks = [header[offset : offset + BLOCK_SIZE] for offset in SUPERBLOCK_OFFSETS]
    found = [
        decode_superblock(block, offset) for block, offset in zip(blocks, SUPERBLOCK_OFFSETS, strict=True)
    ]
    if any(found):
        return [superblock if _is_sane(superblock) else None for superblock in found]
    versions = {superblock_version(block) for block in blocks} - {None}
    if versions - {VERSION}:
        raise StoreCorrupt(
            f"{path} has format version {sorted(v for v in versions if v)}, this library "
            f"reads version {VERSION}: use the release that wrote it"
        )
    if versions:
        raise StoreCorrupt(f"{path}: both superblocks are damaged (offsets 0 and {BLOCK_SIZE})")
    raise StoreCorrupt(f"{path} is not a uringblob store (its first {BLOCK_SIZE} bytes are not one's)")


def _drop_cache(file: StoreFile) -> None:
    """See only what is durable: after a failed fsync the cache shows what the disk does not hold."""
    try:
        getattr(os, "fdatasync", os.fsync)(file.fd)
    except OSError as error:
        # A read-only medium has nothing to flush; some say so with these.
        if not (file.read_only and error.errno in (errno.EROFS, errno.EINVAL, errno.EBADF)):
            raise BlobStoreIOError(
                error.errno or errno.EIO,
                f"{file.path}: fdatasync before recovery: {errno_name(error.errno or errno.EIO)}",
            ) from error
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _is_sane(superblock: Superblock | None) -> bool:
    if superblock is None:
        return False
    try:
        check_page_size(superblock.page_size)
    except ValueError:
        return False
    # Nothing counts that far in its life, and everything can be counted up from there.
    counts = superblock.head_slot, superblock.head_slots, superblock.revision, superblock.floor
    return max(counts) < COUNT_LIMIT and superblock.head_slots >= 1 and superblock.log_id > 0


def newest(superblocks: list[Superblock | None], path: str) -> tuple[Superblock, int]:
    """Return the superblock with the highest revision, and its offset."""
    good = [(s, offset) for s, offset in zip(superblocks, SUPERBLOCK_OFFSETS, strict=True) if s is not None]
    if not good:
        raise StoreCorrupt(f"{path}: both superblocks hold impossible values")
    return max(good, key=lambda pair: pair[0].revision)


def check_page_size_matches(superblock: Superblock, page_size: int | None, path: str) -> None:
    """Raise ``PageSizeMismatch`` if ``page_size`` was asked for and is not the store's."""
    if page_size is not None and page_size != superblock.page_size:
        raise PageSizeMismatch(
            f"{path} has frames of {superblock.page_size} bytes, not {page_size}: "
            "open it without page_size, or make a new store"
        )
