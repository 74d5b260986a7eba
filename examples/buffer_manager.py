"""A buffer manager: pages in memory, clock eviction, and checkpoints in durable batches.

This is what the store's trait was made for.  A storage engine works on pages in memory; a page is
read when it is first wanted, stays while it is used, is written back when room is needed, and at a
checkpoint everything that changed reaches the disk.

* A page that is ``pin``-ned stays where it is, and its ``memoryview`` is the registered frame that
  the device reads into: no copy anywhere.
* Eviction takes the first page that the *clock*'s hand finds unpinned and not used since its last
  round.  A dirty one is written first (``write_blob``: visible at once, durable at the checkpoint).
* ``checkpoint`` writes the dirty pages in batches with ``write_blobs_with_data_sync``, so that the bulk of the
  bytes is on the medium early and in large runs, and makes all of it durable with one ``flush``.

Run it: ``python examples/buffer_manager.py [STORE]``.  It counts words into pages, more pages than
fit into its memory, checkpoints, opens the store again and checks every count.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import os
import random
import struct
import tempfile
from collections.abc import Iterator

from uringblob import AlignedBlobBuf, BlobGuid, BlobNotFound, BlobStore, FileBlobStore

CHECKPOINT_BATCH = 32


class NoFreePage(Exception):
    """Every page in memory is pinned: unpin some, or raise ``pages_max``."""


@dataclasses.dataclass
class Page:
    """A page in memory."""

    guid: BlobGuid
    buffer: AlignedBlobBuf
    pins: int = 0
    used: bool = True
    dirty: bool = False


@dataclasses.dataclass
class Counts:
    """What the manager did."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    write_backs: int = 0
    checkpoint_batches: int = 0


class BufferManager:
    """At most ``pages_max`` pages of ``store`` in memory.  For one thread."""

    def __init__(self, store: BlobStore, pages_max: int) -> None:
        self.counts = Counts()
        self._store = store
        self._pages_max = pages_max
        self._pages: dict[BlobGuid, Page] = {}
        self._clock: collections.deque[Page] = collections.deque()

    @contextlib.contextmanager
    def pin(self, guid: BlobGuid, *, change: bool = False) -> Iterator[memoryview]:
        """Keep a page in memory, zeros if there is none, while the context lasts.

        Keep no view of it afterwards.

        :param change: the page will be written to.
        :raises NoFreePage: all pages are pinned.
        """
        page = self._pages.get(guid)
        if page is None:
            self.counts.misses += 1
            page = self._fetch(guid)
        else:
            self.counts.hits += 1
        page.pins += 1
        page.used = True
        page.dirty = page.dirty or change
        try:
            yield page.buffer.view
        finally:
            page.pins -= 1

    def checkpoint(self) -> None:
        """Make everything that was changed so far durable.

        After an error the pages are still dirty: try again, or close and open the store.
        """
        dirty = [page for page in self._clock if page.dirty]
        # Pages leased one after the other are adjacent, and become one write.
        dirty.sort(key=lambda page: page.buffer.address)
        for start in range(0, len(dirty), CHECKPOINT_BATCH):
            batch = dirty[start : start + CHECKPOINT_BATCH]
            self._store.write_blobs_with_data_sync([(page.guid, page.buffer) for page in batch])
            self.counts.checkpoint_batches += 1
        self._store.flush()
        for page in dirty:
            page.dirty = False

    def close(self) -> None:
        """Checkpoint, and release all frames."""
        self.checkpoint()
        for page in self._clock:
            page.buffer.release()
        self._clock.clear()
        self._pages.clear()

    def _fetch(self, guid: BlobGuid) -> Page:
        buffer = self._evict() if len(self._pages) >= self._pages_max else self._store.alloc_blob_buf_uninit()
        try:
            self._store.read_blob(guid, buffer)
        except BlobNotFound:
            buffer.view[:] = bytes(len(buffer))
        except BaseException:
            buffer.release()
            raise
        page = Page(guid, buffer)
        self._pages[guid] = page
        self._clock.append(page)
        return page

    def _evict(self) -> AlignedBlobBuf:
        """Take the frame of the page at the clock's hand."""
        # After two rounds the hand has cleared every unpinned page's mark and returned to it.
        for _ in range(2 * len(self._clock)):
            page = self._clock[0]
            if page.pins == 0 and not page.used:
                break
            if page.pins == 0:
                page.used = False
            self._clock.rotate(-1)
        else:
            raise NoFreePage(f"all {len(self._clock)} pages are pinned")
        if page.dirty:
            self._store.write_blob(page.guid, page.buffer)  # if this fails, the page stays
            self.counts.write_backs += 1
        self._clock.popleft()
        del self._pages[page.guid]
        self.counts.evictions += 1
        return page.buffer


# --- the demonstration: numbers counted into pages ------------------------------------------------

_NUMBER = struct.Struct("<Q")


def guid_of(number: int) -> BlobGuid:
    """Return the name of a numbered page."""
    return BlobGuid(number.to_bytes(16, "big"))


def count_words(manager: BufferManager, rng: random.Random, pages: int, words: int) -> list[int]:
    """Add one to a random page's counter, again and again; return what each must be."""
    expected = [0] * pages
    for word in range(words):
        # Some pages are used much more often than others.
        number = min(int(rng.expovariate(4 / pages)), pages - 1)
        with manager.pin(guid_of(number), change=True) as view:
            (count,) = _NUMBER.unpack_from(view)
            _NUMBER.pack_into(view, 0, count + 1)
        expected[number] += 1
        if word % (words // 4) == 0:
            manager.checkpoint()
    return expected


def demonstrate(path: str, *, pages: int, pages_max: int, words: int, page_size: int) -> Counts:
    """Count, close, open again, and compare."""
    # A frame for each page in memory and one spare, all registered if the system allows it.
    with FileBlobStore.open(path, page_size=page_size, buffers=pages_max + 1) as store:
        manager = BufferManager(store, pages_max)
        expected = count_words(manager, random.Random(1), pages, words)  # noqa: S311 - repeatable
        manager.close()
        counts = manager.counts
    with FileBlobStore.open(path) as store:
        manager = BufferManager(store, pages_max)
        for number, count in enumerate(expected):
            with manager.pin(guid_of(number)) as view:
                if _NUMBER.unpack_from(view)[0] != count:
                    raise SystemExit(f"page {number} holds {_NUMBER.unpack_from(view)[0]}, not {count}")
        manager.close()
    return counts


def main() -> None:
    """Demonstrate on the store named on the command line, or on a new one."""
    parser = argparse.ArgumentParser(description="A page cache over a store")
    parser.add_argument("store", nargs="?", help="a store file that does not exist yet")
    parser.add_argument("--pages", type=int, default=256)
    parser.add_argument("--pages-max", type=int, default=48, help="pages in memory")
    parser.add_argument("--words", type=int, default=4000)
    parser.add_argument("--page-size", type=int, default=65536)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uringblob-buffers-", dir="/var/tmp") as directory:
        counts = demonstrate(
            options.store or os.path.join(directory, "pages.blobs"),
            pages=options.pages,
            pages_max=options.pages_max,
            words=options.words,
            page_size=options.page_size,
        )
    for field, value in dataclasses.asdict(counts).items():
        print(f"{field:20} {value}")
    print(f"all {options.pages} pages hold what was counted")


if __name__ == "__main__":
    main()
