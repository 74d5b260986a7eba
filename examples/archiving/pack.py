"""Tree to store: frames are filled from files and written in durable batches, many at once."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence

from archiving.catalogue import (
    ROOT_GUID,
    ArchiveError,
    Piece,
    Root,
    encode_entries,
    frame_pieces,
    load_root,
    with_starts,
)
from archiving.concurrency import for_each, in_thread
from archiving.tree import Entry
from uringblob import AlignedBlobBuf, AsyncBlobStore, BlobGuid

#: Frames in one durable batch, and batches in flight: together the default buffer pool.
BATCH_FRAMES = 8
BATCHES_AT_ONCE = 8


@dataclasses.dataclass(frozen=True)
class Packer:
    """One archive being written into ``store``; ``on_bytes`` is called with file bytes made durable."""

    store: AsyncBlobStore
    source: str
    on_bytes: Callable[[int], None]

    async def pack(self, scanned: Sequence[Entry]) -> int:
        """Write an archive of the scanned entries, replacing the one in the store if any.

        Returns the number of durable batches.  Until the last of them the old archive is valid:
        a crash at any moment leaves the old one or the new one, whole.

        :raises ArchiveError: a file shrank meanwhile, or the store's root is not an archive's.
        """
        old_root = await load_root(self.store)
        entries = with_starts(scanned)
        frames = frame_pieces(entries, self.store.page_size)
        catalogue = encode_entries(entries)
        root = Root(
            archive_id=uuid.uuid4(),
            data_frames=len(frames),
            catalogue_frames=-(-len(catalogue) // self.store.page_size),
            catalogue_bytes=len(catalogue),
            digest=hashlib.sha256(catalogue).digest(),
        )
        batches = [
            [(root.data_guid(index), frames[index]) for index in indexes]
            for indexes in _chunks(range(len(frames)), BATCH_FRAMES)
        ]
        await for_each(batches, self._commit_data, at_once=BATCHES_AT_ONCE)
        contents = _slices(catalogue, self.store.page_size)
        writes = [(root.catalogue_guid(index), frame) for index, frame in enumerate(contents)]
        writes.append((ROOT_GUID, root.encode(self.store.page_size)))
        await self.store.commit(writes, deletes=old_root.guids() if old_root else ())
        return len(batches) + 1

    async def _commit_data(self, batch: Sequence[tuple[BlobGuid, list[Piece]]]) -> None:
        with contextlib.ExitStack() as leases:
            buffers = [leases.enter_context(self.store.alloc_blob_buf_uninit()) for _ in batch]
            # Source files are read in a thread, so that the loop serves other batches meanwhile.
            await in_thread(self._fill, buffers, [pieces for _guid, pieces in batch])
            guids = [guid for guid, _pieces in batch]
            await self.store.commit(zip(guids, buffers, strict=True))
        self.on_bytes(sum(piece.size for _guid, pieces in batch for piece in pieces))

    def _fill(self, buffers: Sequence[AlignedBlobBuf], frames: Sequence[list[Piece]]) -> None:
        for buffer, pieces in zip(buffers, frames, strict=True):
            end = 0
            for piece in pieces:
                end = piece.frame_offset + piece.size
                with buffer.view[piece.frame_offset : end] as target:
                    self._read_piece(piece, target)
            # The buffer is not zeroed: bytes that no file fills must not reach the disk.
            buffer.view[end:] = bytes(len(buffer) - end)

    def _read_piece(self, piece: Piece, target: memoryview) -> None:
        path = os.path.join(self.source, piece.entry.path)
        with open(path, "rb", buffering=0) as file:
            file.seek(piece.file_offset)
            done = 0
            while done < piece.size:
                count = file.readinto(target[done:])
                if not count:
                    raise ArchiveError(f"{path} became shorter while it was being packed")
                done += count


def _chunks(indexes: range, size: int) -> Iterator[range]:
    for start in range(0, len(indexes), size):
        yield indexes[start : start + size]


def _slices(content: bytes, page_size: int) -> Iterator[bytes]:
    for start in range(0, len(content), page_size):
        yield content[start : start + page_size].ljust(page_size, b"\0")
