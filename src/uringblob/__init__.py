"""Durable storage of large fixed-size frames, on io_uring with registered buffers.

``AsyncFileBlobStore`` serves an event loop, ``FileBlobStore`` serves threads, and the memory
stores stand in for both.  All of them share one contract, ``AsyncBlobStore`` and ``BlobStore``.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError(
        "uringblob needs a POSIX system (Linux for io_uring, any other for the pread engine): "
        "it does not run on Windows; use WSL 2 there"
    )

from uringblob.api.async_store import AsyncBlobSnapshot, AsyncBlobStore
from uringblob.api.backup import INCOMPLETE, BackupReport
from uringblob.api.base import observe
from uringblob.api.blob_stat import BlobStat
from uringblob.api.changes import Changes
from uringblob.api.observer import StoreObserver
from uringblob.api.stats import ReaderStats, StoreStats
from uringblob.api.sync_store import BlobSnapshot, BlobStore
from uringblob.api.vacuum_stats import VacuumStats
from uringblob.api.verify_report import VerifyReport
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.errors import (
    BlobChanged,
    BlobCorrupt,
    BlobNotFound,
    BlobStoreError,
    BlobStoreIOError,
    ConditionFailed,
    EngineUnavailable,
    PageSizeMismatch,
    StoreClosed,
    StoreCorrupt,
    StoreLocked,
    StorePoisoned,
    StoreReadOnly,
    TierDiverged,
    WriterFenced,
)
from uringblob.guid import BlobGuid
from uringblob.memory_store import AsyncMemoryBlobStore, MemoryBlobStore
from uringblob.store.async_store import AsyncFileBlobStore
from uringblob.sync.file_store import FileBlobStore
from uringblob.units import BUF_ALIGN, PAGE_SIZE

__version__ = "0.2.0"

__all__ = [
    "BUF_ALIGN",
    "INCOMPLETE",
    "PAGE_SIZE",
    "AlignedBlobBuf",
    "AsyncBlobSnapshot",
    "AsyncBlobStore",
    "AsyncFileBlobStore",
    "AsyncMemoryBlobStore",
    "BackupReport",
    "BlobChanged",
    "BlobCorrupt",
    "BlobGuid",
    "BlobNotFound",
    "BlobSnapshot",
    "BlobStat",
    "BlobStore",
    "BlobStoreError",
    "BlobStoreIOError",
    "Changes",
    "ConditionFailed",
    "EngineUnavailable",
    "FileBlobStore",
    "MemoryBlobStore",
    "PageSizeMismatch",
    "ReaderStats",
    "StoreClosed",
    "StoreCorrupt",
    "StoreLocked",
    "StoreObserver",
    "StorePoisoned",
    "StoreReadOnly",
    "StoreStats",
    "TierDiverged",
    "VacuumStats",
    "VerifyReport",
    "WriterFenced",
    "observe",
]


def __dir__() -> list[str]:
    """What ``dir(uringblob)`` shows: the public names, and not the modules they come from."""
    return list(__all__)
