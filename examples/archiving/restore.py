"""Store to tree: every frame is read once, many at a time, and its ranges are written to their files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

from archiving.catalogue import ArchiveError, Piece, Root, frame_pieces, load_entries, load_root
from archiving.concurrency import for_each, in_thread
from archiving.tree import DIRECTORY, FILE, SYMLINK, Entry
from uringblob import AsyncBlobStore

READS_AT_ONCE = 32


@dataclasses.dataclass(frozen=True)
class Restorer:
    """One archive being read out of ``store`` into ``destination``, an empty directory."""

    store: AsyncBlobStore
    destination: str
    on_bytes: Callable[[int], None]

    async def restore(self) -> None:
        """Make the archived tree under ``destination``.

        :raises ArchiveError: the store holds no archive.
        """
        root = await load_root(self.store)
        if root is None:
            raise ArchiveError("the store holds no archive")
        entries = await load_entries(self.store, root)
        await in_thread(self._make_names, entries)
        await self._restore_data(root, frame_pieces(entries, self.store.page_size))
        await in_thread(self._finish, entries)

    async def _restore_data(self, root: Root, frames: Sequence[list[Piece]]) -> None:
        async def restore_frame(index: int) -> None:
            with self.store.alloc_blob_buf_uninit() as buffer:
                await self.store.read_blob(root.data_guid(index), buffer)
                await in_thread(self._write_pieces, frames[index], buffer.view)
            self.on_bytes(sum(piece.size for piece in frames[index]))

        await for_each(range(len(frames)), restore_frame, at_once=READS_AT_ONCE)

    def _make_names(self, entries: Sequence[Entry]) -> None:
        """Make every directory, and every file empty, with modes that allow writing."""
        for entry in entries:
            path = os.path.join(self.destination, entry.path)
            if entry.kind == DIRECTORY:
                os.mkdir(path, 0o700)
            elif entry.kind == FILE:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def _write_pieces(self, pieces: Sequence[Piece], frame: memoryview) -> None:
        for piece in pieces:
            path = os.path.join(self.destination, piece.entry.path)
            # "r+b": the file exists; frames arrive in any order, each writes its own range.
            with (
                open(path, "r+b", buffering=0) as file,
                frame[piece.frame_offset : piece.frame_offset + piece.size] as stretch,
            ):
                file.seek(piece.file_offset)
                done = 0
                while done < piece.size:
                    done += file.write(stretch[done:])

    def _finish(self, entries: Sequence[Entry]) -> None:
        """Make the links and set the modes, children before parents.

        Links come last, so that nothing was ever written through one; a directory's mode comes
        after its contents, since it may forbid making them.
        """
        for entry in reversed(entries):
            path = os.path.join(self.destination, entry.path)
            if entry.kind == SYMLINK:
                os.symlink(entry.target, path)
            else:
                os.chmod(path, entry.mode)
