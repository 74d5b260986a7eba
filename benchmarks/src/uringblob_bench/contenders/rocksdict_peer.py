"""rocksdict: RocksDB with BlobDB, which keeps large values out of the LSM tree.

Blob files with garbage collection, no compression (the frames are noise), direct reads and direct
flushes and compactions, pipelined writes so that several threads share one sync of the log, and log
files that are used again so that a sync need not write their length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uringblob_bench.contenders.base import require
from uringblob_bench.contenders.key_value import Database, KeyValue

_WRITE_BUFFER = 128 << 20
_BLOB_FILE = 256 << 20


class _Rocks(Database):
    def __init__(self, path: str) -> None:
        import rocksdict

        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_enable_blob_files(True)
        options.set_min_blob_size(1024)
        options.set_blob_file_size(_BLOB_FILE)
        options.set_enable_blob_gc(True)
        options.set_compression_type(rocksdict.DBCompressionType.none())
        options.set_blob_compression_type(rocksdict.DBCompressionType.none())
        options.set_use_direct_reads(True)
        options.set_use_direct_io_for_flush_and_compaction(True)
        options.set_write_buffer_size(_WRITE_BUFFER)
        options.set_max_background_jobs(4)
        options.set_enable_pipelined_write(True)
        options.set_recycle_log_file_num(4)
        self._rocksdict = rocksdict
        self._database = rocksdict.Rdict(path, options)
        self._durable = rocksdict.WriteOptions()
        self._durable.sync = True
        self._lazy = rocksdict.WriteOptions()

    def get(self, key: bytes) -> object:
        value = self._database.get(key)
        assert value is not None
        return value

    def put(self, items: Sequence[tuple[bytes, bytes]], *, durable: bool) -> None:
        batch = self._rocksdict.WriteBatch(raw_mode=True)
        for key, value in items:
            batch.put(key, value)
        self._database.write(batch, self._durable if durable else self._lazy)

    def close(self) -> None:
        self._database.flush()
        self._database.close()


class RocksDict(KeyValue):
    """See the module."""

    name = "rocksdict"
    durability = "its own: WriteOptions.sync, each batch"
    writers = 16

    def settings(self) -> dict[str, Any]:
        return self.base_settings(
            direct_io=True,
            enable_blob_files=True,
            enable_blob_gc=True,
            blob_file_size=_BLOB_FILE,
            compression="none",
            use_direct_reads=True,
            use_direct_io_for_flush_and_compaction=True,
            write_buffer_size=_WRITE_BUFFER,
            max_background_jobs=4,
            enable_pipelined_write=True,
            recycle_log_file_num=4,
        )

    def check(self) -> None:
        require("rocksdict")

    def opened(self, path: str, *, durable: bool) -> Database:  # noqa: ARG002 - decided by each batch
        return _Rocks(path)
