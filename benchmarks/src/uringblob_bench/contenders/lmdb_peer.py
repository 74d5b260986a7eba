"""py-lmdb: a B+ tree in a memory map.

``readahead=False`` for random reads of a cold map, ``meminit=False``, no ``writemap``: with frames
of 512 KiB it was measured as half as fast, because its msync walks the whole map.
``buffers=True`` so that a value is not copied before it is wanted; a read is one ``bytes`` copy, as any
other peer's ends in the caller's memory.  One write transaction at a time; a commit syncs.
It reads through the page cache, which is emptied before each turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uringblob_bench.contenders.base import require
from uringblob_bench.contenders.key_value import Database, KeyValue


class _Lmdb(Database):
    def __init__(self, path: str, map_size: int, *, durable: bool) -> None:
        import lmdb

        self._environment = lmdb.open(
            path,
            map_size=map_size,
            readahead=False,
            meminit=False,
            max_readers=256,
            sync=durable,
        )

    def get(self, key: bytes) -> object:
        with self._environment.begin(buffers=True) as transaction:
            value = transaction.get(key)
            assert value is not None
            return bytes(value)

    def put(self, items: Sequence[tuple[bytes, bytes]], *, durable: bool) -> None:  # noqa: ARG002 - decided at opening
        with self._environment.begin(write=True) as transaction:
            for key, value in items:
                transaction.put(key, value)

    def close(self) -> None:
        self._environment.sync(True)
        self._environment.close()


class Lmdb(KeyValue):
    """See the module."""

    name = "py-lmdb"
    durability = "its own: sync=True, each transaction"

    def settings(self) -> dict[str, Any]:
        return self.base_settings(direct_io=False, readahead=False, meminit=False, buffers=True)

    def check(self) -> None:
        require("lmdb")

    def opened(self, path: str, *, durable: bool) -> Database:
        return _Lmdb(path, 4 * self.params.file_bytes + (64 << 20), durable=durable)
