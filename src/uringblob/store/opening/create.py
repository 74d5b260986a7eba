"""Making a store file atomically (docs/maintainers/format.md, rule 11).

The file is written and flushed under a temporary name and then *linked* to its own.  That fails if the
name is taken: an existing file is never replaced, and of two creators one opens the other's file.
File systems without hard links rename without replacing, where the extension has the call.
"""

from __future__ import annotations

import errno
import os
import secrets
import time

from uringblob import _native
from uringblob.engines.copy_on_write import make_no_cow
from uringblob.engines.posix_calls import grow_file
from uringblob.errors import BlobStoreIOError, errno_name, with_remedy
from uringblob.store.format import (
    BLOCK_SIZE,
    SUPERBLOCK_OFFSETS,
    BlockType,
    SlotRun,
    Superblock,
    encode_block,
    first_slot,
    link_record,
)
from uringblob.store.index.log_space import base_granules, granule_slots
from uringblob.store.log.writer import new_log_id

#: What link(2) answers on file systems without hard links.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def create_store(path: str, page_size: int, mode: int, label: bytes = b"") -> None:
    """Make an empty store at ``path``, unless there is a file by now.  Blocks for writes and two flushes.

    :raises BlobStoreIOError: the file system has no room, or an I/O failed; nothing is left behind.
    :raises OSError: the directory is missing, read-only or forbidden.
    """
    directory = os.path.dirname(path)
    # Short: the name of the store may be as long as the file system allows.
    temporary = os.path.join(directory, f".{secrets.token_hex(8)}.uringblob.new")
    try:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        error.filename = path  # the one that the caller gave
        raise
    try:
        try:
            make_no_cow(fd)
            _write_image(fd, page_size, label)
        except OSError as error:
            number = error.errno or errno.EIO
            text = with_remedy(f"creating {path}: {errno_name(number)}", number)
            raise BlobStoreIOError(number, text) from error
        finally:
            os.close(fd)
        _put_in_place(temporary, path)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
    _sync_directory(directory)


def _write_image(fd: int, page_size: int, label: bytes) -> None:
    for offset, data in initial_image(page_size, label):
        done = 0
        while done < len(data):
            done += os.pwrite(fd, memoryview(data)[done:], offset + done)
    grow_file(fd, initial_size(page_size))
    os.fsync(fd)


def _log_extent(page_size: int) -> SlotRun:
    """Return the log space of a new store, which begins behind the superblocks."""
    return SlotRun(first_slot(page_size), base_granules(page_size) * granule_slots(page_size))


def initial_size(page_size: int) -> int:
    """Return the size of an empty store in bytes."""
    return _log_extent(page_size).end * page_size


def initial_image(page_size: int, label: bytes = b"") -> list[tuple[int, bytes]]:
    """Return what is written into an empty store, as (offset, bytes); the rest of it is zero."""
    store_id, log_id = secrets.token_bytes(16), new_log_id()
    slots = granule_slots(page_size)
    extent = _log_extent(page_size)
    head = SlotRun(extent.slot, slots)
    tail = SlotRun(head.end, slots)
    superblock = Superblock(
        page_size,
        store_id,
        1,
        log_id,
        head,
        floor=1,
        log_space=(extent,),
        created_ns=time.time_ns(),
        label=label,
    )
    image = [(offset, superblock.encode(offset)) for offset in SUPERBLOCK_OFFSETS]
    start = head.slot * page_size
    blocks = [
        (BlockType.SEGMENT, 0, [link_record(0, head.slots, tail.slot, tail.slots)]),
        (BlockType.SNAPSHOT, 0, []),
        (BlockType.CARRY, 1, []),
    ]
    common = {"log_id": log_id, "page_size": page_size}
    log = b"".join(
        encode_block(
            store_id, start + index * BLOCK_SIZE, block_type=kind, seq=seq, records=records, **common
        )
        for index, (kind, seq, records) in enumerate(blocks)
    )
    image.append((start, log.ljust(2 * slots * page_size, b"\0")))
    return image


def _put_in_place(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in _NO_LINKS or _native.lib is None:
            raise
        rc = _native.lib.ub_rename_noreplace(os.fsencode(temporary), os.fsencode(path))
        if rc < 0 and -rc != errno.EEXIST:
            raise OSError(-rc, os.strerror(-rc), path) from error


def _sync_directory(directory: str) -> None:
    try:
        fd = os.open(directory or ".", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        os.sync()  # a directory that may be written and not read: flush everything
        return
    try:
        os.fsync(fd)
    except OSError as error:
        # EINVAL: a file system whose directories need no sync.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)
