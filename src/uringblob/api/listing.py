"""What both traits do with many names: merge them in order, limit them, put batches together."""

from __future__ import annotations

import heapq
import itertools
import operator
import sys
from collections.abc import Iterator, Mapping

from uringblob.buffers.views import BlobBuffer, Write
from uringblob.guid import BlobGuid


def merged(runs: list[list[BlobGuid]], limit: int | None) -> Iterator[BlobGuid]:
    """Yield up to ``limit`` of the names in sorted lists, in ascending order."""

    def drain(run: list[BlobGuid]) -> Iterator[BlobGuid]:
        """Yield the names and drop them: freeing a million at the end takes 40 ms."""
        run.reverse()
        while run:
            yield run.pop()

    return itertools.islice(heapq.merge(*map(drain, runs)), limit)


def with_metas(writes: Mapping[bytes, BlobBuffer], metas: Mapping[bytes, bytes]) -> list[Write]:
    """Return checked writes as a batch again, each with its metadata if it has some."""
    return [(guid, src, metas[guid]) if guid in metas else (guid, src) for guid, src in writes.items()]


def checked_limit(limit: int | None) -> int | None:
    """Return the ``limit`` of an iteration, no greater than what :mod:`itertools` takes.

    :raises ValueError: it is negative.
    :raises TypeError: it is no int.
    """
    if limit is None:
        return None
    if operator.index(limit) < 0:
        raise ValueError(f"limit must be 0 or more, or None, not {limit}")
    return min(operator.index(limit), sys.maxsize)
