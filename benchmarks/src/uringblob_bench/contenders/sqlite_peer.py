"""sqlite3: a table of blobs, WAL record, ``synchronous=FULL``, so that each commit is durable.

``page_size`` 65536 as is advised for large blobs; a connection per thread; writers one at a time.
It reads through the page cache, which is emptied before each turn; ``mmap_size`` spares a copy.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from typing import Any

from uringblob_bench.contenders.key_value import Database, KeyValue

_PAGE = 65536
_MMAP = 8 << 30


class _Sqlite(Database):
    def __init__(self, path: str, *, durable: bool) -> None:
        self._path = path
        self._synchronous = "FULL" if durable else "OFF"
        self._own = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._connection().execute("CREATE TABLE IF NOT EXISTS frames (key BLOB PRIMARY KEY, value BLOB)")

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=60)
            for pragma in (
                f"page_size={_PAGE}",
                "journal_mode=WAL",
                f"synchronous={self._synchronous}",
                f"mmap_size={_MMAP}",
            ):
                found.execute(f"PRAGMA {pragma}").fetchall()
            self._own.connection = found
            self._all.append(found)
        return found

    def get(self, key: bytes) -> object:
        row = self._connection().execute("SELECT value FROM frames WHERE key = ?", (key,)).fetchone()
        return row[0]

    def put(self, items: Sequence[tuple[bytes, bytes]], *, durable: bool) -> None:  # noqa: ARG002 - decided at opening
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT OR REPLACE INTO frames VALUES (?, ?)", items)
        connection.execute("COMMIT")

    def close(self) -> None:
        for connection in self._all:
            connection.close()


class Sqlite(KeyValue):
    """See the module."""

    name = "sqlite3"
    durability = "its own: WAL with synchronous=FULL, each transaction"

    def settings(self) -> dict[str, Any]:
        return self.base_settings(
            direct_io=False, page_size=_PAGE, journal_mode="WAL", synchronous="FULL", mmap_size=_MMAP
        )

    def check(self) -> None:
        """Python has it."""

    def opened(self, path: str, *, durable: bool) -> Database:
        return _Sqlite(path, durable=durable)
