"""Reading a range of the file without its holes: a sparse file may claim to be a million times longer."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from uringblob.errors import check_rc
from uringblob.store.format import BLOCK_SIZE
from uringblob.store.io.file_io import FileIO


def parts_with_data(file_io: FileIO, start: int, end: int, size_max: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length of parts that hold whatever is not blank from ``start`` to ``end``.

    All of these are multiples of the block size.

    :raises BlobStoreIOError: the file system does not answer.
    """
    while start < end:
        answer = file_io.engine.next_data(start)
        if answer == -errno.ENXIO:
            return
        data = check_rc(answer, f"{file_io.path}: asking for data from offset {start} on")
        start = max(start, data // BLOCK_SIZE * BLOCK_SIZE)
        size = min(size_max, end - start)
        if size > 0:
            yield start, size
        start += size_max
