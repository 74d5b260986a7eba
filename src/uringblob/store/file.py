"""The store's file: found or made, locked, and the one that its path names.

Checked on Linux 6.18, ext4:

* After ``kill -9`` a write in flight still lands, up to a second after ``waitpid`` returned.  A flock on
  the open file that the ring uses is held until then, a lock file is not; so the store file is locked.
* An engine has a ``dup`` of this descriptor: the lock is held until both are closed.
* With a registered file, closing alone leaves the lock held for up to 40 ms; ``LOCK_UN`` first
  makes an immediate reopen work.
* A forked child's copy keeps the lock, so the child closes it, without ``LOCK_UN``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator

from uringblob import fork, tuning
from uringblob.engines.to_thread import to_thread
from uringblob.errors import (
    BlobStoreError,
    BlobStoreIOError,
    PageSizeMismatch,
    StoreCorrupt,
    StoreLocked,
    errno_name,
    with_remedy,
)
from uringblob.owner import StoreOwner
from uringblob.store.features import unknown_features
from uringblob.store.format import (
    BLOCK_SIZE,
    COUNT_LIMIT,
    SUPERBLOCK_OFFSETS,
    VERSIONS,
    Superblock,
    decode_superblock,
    is_sound,
    superblock_version,
)
from uringblob.store.lock_holder import holders_text
from uringblob.store.range_locks import Locks, RangeLocks
from uringblob.units import check_page_size

#: Attempts of an opener whose path was made to name another file meanwhile.
_ROUNDS_MAX = 32


class StoreFile(StoreOwner):
    """An open, locked store file: the one owner of its descriptor, which a forked child closes."""

    def __init__(self, fd: int, path: str, *, read_only: bool) -> None:
        self.fd = fd
        self.path = path
        fork.remember(self)
        self.read_only = read_only
        self.locks: Locks = RangeLocks(fd)
        #: Whether a flock keeps writers out, or for a writer everybody; a reader beside a writer has none.
        self.locked = False
        self.flushed = False  #: whether a flush has returned 0 since it was locked
        self.why_copied = ""  #: why overwriting it may take new room; see ``engines.copy_on_write``

    def close(self) -> None:
        """Unlock and close; a second call does nothing.

        :raises BlobStoreIOError: a dead file system reported an error; the descriptor is closed all the same.
        """
        fd, self.fd = self.fd, -1
        with naming(self.path, "closing it"):
            try:
                self.locks.close()  # first: the next writer announces when it has the flock
            finally:
                if fd >= 0:
                    try:
                        fcntl.flock(fd, fcntl.LOCK_UN)
                    finally:
                        os.close(fd)

    def try_lock_shared(self) -> bool:
        """Keep writers out, if there is none now, until :meth:`unlock`."""
        self.locked = self._try_flock(fcntl.LOCK_SH)
        return self.locked

    def unlock(self) -> None:
        """Let writers in again."""
        self.locked = False
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def _try_flock(self, operation: int) -> bool:
        try:
            if self.fd >= 0:
                fcntl.flock(self.fd, operation | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            return False
        return True

    def try_lock(self, *, beside: bool) -> bool:
        """Lock it, if that can be done now: shared for a reader, else exclusively.

        ``beside``: a reader that registers instead where a writer has the file; it is registered for any
        state where that is possible, and not :attr:`locked` where there is a writer.
        """
        if not beside or not self.register_for_any():
            self.locked = self._try_flock(fcntl.LOCK_SH if self.read_only else fcntl.LOCK_EX)
            return self.locked
        return self.locks.ask() is not None or self.try_lock_shared()

    def register_for_any(self) -> bool:
        """Register a reader of any state; false where there are no such locks, or somebody has all bytes."""
        try:
            return self.locks.register(0)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            return False  # NFS makes a flock of such a lock

    def abandon(self) -> None:
        """Close without unlocking: a forked child shares the lock, a dying ring may still write."""
        fd, self.fd = self.fd, -1
        self.locks.abandon()
        if fd >= 0:
            with contextlib.suppress(OSError):  # it is closed all the same
                os.close(fd)

    def __del__(self) -> None:
        if hasattr(self, "fd"):  # else __init__ did not finish
            self.abandon()


@contextlib.contextmanager
def naming(path: str, doing: str) -> Iterator[None]:
    """Give every ``OSError`` that does not name its file a text that does."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BlobStoreError) or error.filename is not None:
            raise
        number = error.errno or errno.EIO
        raise BlobStoreIOError(number, f"{path}: {doing}: {errno_name(number)}") from error


async def open_locked(
    path: str,
    *,
    read_only: bool,
    lock_timeout: float,
    create: Callable[[str], None] | None,
    beside: bool = False,
) -> StoreFile:
    """Open and lock the file that ``path`` names; ``create`` makes it where there is none.

    ``beside``: where a writer has it, register a reader instead; see :meth:`StoreFile.try_lock`.

    Each attempt resolves symbolic links again, so that ``create`` makes a link's target.

    :raises FileNotFoundError: there is none, and ``create`` is ``None``.
    :raises StoreLocked: another opener held it for ``lock_timeout`` seconds.
    :raises BlobStoreError: the path named another file in each of many rounds.
    """
    deadline = time.monotonic() + lock_timeout
    for _ in range(_ROUNDS_MAX):
        path = _resolved(path)
        try:
            _check_regular(path)
            fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        except FileNotFoundError:
            if create is None:
                raise
            await to_thread(create, path)
            continue
        file = StoreFile(fd, path, read_only=read_only)
        try:
            with naming(path, "locking it"):
                await lock(file, lock_timeout, deadline, beside=beside)
                if _is_at(path, fd):
                    return file
        except BaseException:
            file.abandon()
            raise
        file.close()  # before it was locked the path came to name another file
    raise BlobStoreError(
        f"{path}: gave up after {_ROUNDS_MAX} attempts, because the path names another file, or none, "
        "each time: stop what replaces or deletes it, then open the store again"
    )


def _resolved(path: str) -> str:
    return os.path.realpath(path)


def _check_regular(path: str) -> None:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise StoreCorrupt(f"{path} is not a regular file, so it is no store: give the path of a file")


def _is_at(path: str, fd: int) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


async def lock(file: StoreFile, lock_timeout: float, deadline: float, *, beside: bool) -> None:
    """Do :meth:`StoreFile.try_lock` until it succeeds, or raise ``StoreLocked``."""
    while not file.try_lock(beside=beside):
        if time.monotonic() >= deadline:
            if fork.left_behind(file.path):
                raise StoreLocked(
                    f"{file.path} is still open in this process, by a store whose event loop is closed: await "
                    "that store's aclose(), on any loop; it frees the file without a flush"
                )
            who = holders_text(file.fd) if file.fd >= 0 else ""
            raise StoreLocked(
                f"{file.path} is locked by another opener{who} (waited {lock_timeout} s). "
                "Close the store there, or give a longer lock_timeout"
            )
        await asyncio.sleep(tuning.LOCK_POLL_S)


# --- superblocks, before there is an engine ----------------------------------------------


def read_superblocks(file: StoreFile) -> list[Superblock | None]:
    """Return both superblocks, ``None`` for a damaged or unreadable one, as the medium durably has them.

    :raises StoreCorrupt: neither is good, or the file is no store.
    :raises BlobStoreIOError: neither is good, and one of them cannot be read.
    """
    drop_cache(file)
    header, failure = b"", None
    for offset in SUPERBLOCK_OFFSETS:
        try:
            header += os.pread(file.fd, BLOCK_SIZE, offset)
        except OSError as error:
            header, failure = header + bytes(BLOCK_SIZE), error
    try:
        return judge_superblocks(header, file.path)
    except StoreCorrupt:
        if failure is None:
            raise
        number = failure.errno or errno.EIO
        raise BlobStoreIOError(
            number,
            f"{file.path}: no superblock is good, and not all can be read: {errno_name(number)}. "
            "Restore the store from a copy",
        ) from failure


def judge_superblocks(header: bytes, path: str) -> list[Superblock | None]:
    """Return both superblocks in a file's first 8192 bytes, ``None`` for a damaged one.

    :raises StoreCorrupt: neither is good, or the file is no store.
    """
    blocks = [header[offset : offset + BLOCK_SIZE] for offset in SUPERBLOCK_OFFSETS]
    found = [decode_superblock(block, at) for block, at in zip(blocks, SUPERBLOCK_OFFSETS, strict=True)]
    sound = {superblock_version(block) for block in blocks if is_sound(block)}
    # Damaged ones count only where none is sound.  A newer one beside an older one, too, is of an upgrade
    # that a crash cut: the release that began it finishes it.
    versions = sound or {superblock_version(block) for block in blocks} - {None}
    if versions - VERSIONS:
        numbers = ", ".join(map(str, sorted(version or 0 for version in versions)))
        raise StoreCorrupt(
            f"{path} has format version {numbers}, this library reads versions "
            f"{' and '.join(map(str, sorted(VERSIONS)))}: use the release that wrote it"
        )
    if not any(found):
        raise _no_superblock(header, path, damaged=bool(versions))
    for superblock in found:
        if superblock is not None and superblock.incompatible:
            raise StoreCorrupt(
                f"{path} needs features of a newer release to be read ({unknown_features(superblock)}): use the "
                "release that wrote it"
            )
    return [superblock if _is_sane(superblock) else None for superblock in found]


def _no_superblock(header: bytes, path: str, *, damaged: bool) -> StoreCorrupt:
    if damaged:
        return StoreCorrupt(
            f"{path}: both superblocks are damaged (offsets 0 and {BLOCK_SIZE}): restore the store from a copy",
            offset=0,
        )
    if not header:
        return StoreCorrupt(
            f"{path} is not a uringblob store but an empty file: remove it, or give another path"
        )
    if not any(header):
        return StoreCorrupt(
            f"{path}: both superblocks are zero (the first {len(header)} bytes): this is no store, or one whose "
            "beginning was wiped: check the path, or restore the store from a copy",
            offset=0,
        )
    return StoreCorrupt(
        f"{path} is not a uringblob store (its first {BLOCK_SIZE} bytes are not one's): check the path, or give "
        "one where there is no file yet to make a store there",
        offset=0,
    )


def drop_cache(file: StoreFile) -> None:
    """Flush the file and drop its cache, which after a failed fsync shows what the disk does not hold.

    Beside a writer there is nothing to flush: what it announces is durable.
    """
    try:
        # A descriptor without the right to write can flush, too.
        if file.locked:
            getattr(os, "fdatasync", os.fsync)(file.fd)
        file.flushed = file.locked
    except OSError as error:
        # A read-only medium may answer so; so does one that failed.
        if not (file.read_only and error.errno in (errno.EROFS, errno.EINVAL, errno.EBADF)):
            number = error.errno or errno.EIO
            text = with_remedy(f"{file.path}: fdatasync before recovery: {errno_name(number)}", number)
            raise BlobStoreIOError(number, text) from error
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _is_sane(superblock: Superblock | None) -> bool:
    if superblock is None:
        return False
    try:
        check_page_size(superblock.page_size)
    except ValueError:
        return False
    # No real store reaches the limit, and every count can still grow beyond it.
    counts = superblock.head.slot, superblock.head.slots, superblock.revision, superblock.floor
    return max(counts) < COUNT_LIMIT and superblock.head.slots >= 1 and superblock.log_id > 0


def newest(superblocks: list[Superblock | None], path: str) -> tuple[Superblock, int]:
    """Return the superblock with the highest revision, and its offset."""
    good = [(s, offset) for s, offset in zip(superblocks, SUPERBLOCK_OFFSETS, strict=True) if s is not None]
    if not good:
        raise StoreCorrupt(
            f"{path}: both superblocks hold impossible values: restore the store from a copy", offset=0
        )
    return max(good, key=lambda pair: pair[0].revision)


def check_page_size_matches(superblock: Superblock, page_size: int | None, path: str) -> None:
    """Raise ``PageSizeMismatch`` if ``page_size`` is given and is not the store's."""
    if page_size is not None and page_size != superblock.page_size:
        raise PageSizeMismatch(
            f"{path} has frames of {superblock.page_size} bytes, not {page_size}: "
            "open it without page_size, or make a new store"
        )
