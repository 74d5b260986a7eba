"""The one who writes: a store server on a Unix socket, for all who have something to write.

    python -m shared_store.server frames.blobs frames.socket

A request is an operation (``P`` put, ``D`` delete), a guid, the length of the frame, and the frame; an answer is
the length of an error's text, 0 if the change is durable, and the text.  Requests of one connection are answered in order;
those of several share their device flushes.  Reading needs no server: open the store with ``read_only=True``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys

from uringblob import AsyncFileBlobStore, BlobStoreError

REQUEST = struct.Struct("<c16sI")
ANSWER = struct.Struct("<I")
PAGE_SIZE = 4096


class StoreServer:
    """Serves one open store."""

    def __init__(self, store: AsyncFileBlobStore) -> None:
        self._store = store

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it ends."""
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                operation, guid, size = REQUEST.unpack(await reader.readexactly(REQUEST.size))
                if size > self._store.page_size:
                    return  # what follows is no request
                error = await self._change(operation, guid, await reader.readexactly(size))
                writer.write(ANSWER.pack(len(error)) + error)
                await writer.drain()

    async def _change(self, operation: bytes, guid: bytes, frame: bytes) -> bytes:
        """Make one change; return its error's text, b"" if it is durable."""
        try:
            if operation == b"P":
                await self._store.commit([(guid, frame)])
            else:
                await self._store.commit(deletes=[guid])
        except (BlobStoreError, ValueError) as error:
            return str(error).encode()
        return b""


class StoreClient:
    """A connection to the server, for the tasks of one loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._turn = asyncio.Lock()

    @classmethod
    async def connect(cls, socket: str) -> StoreClient:
        """Connect to the server at ``socket``."""
        return cls(*await asyncio.open_unix_connection(socket))

    @property
    def ended(self) -> bool:
        """Whether the server has ended the connection, or died."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def put(self, guid: bytes, frame: bytes) -> None:
        """Write one frame; it is durable at the return."""
        await self._call(b"P", guid, frame)

    async def delete(self, guid: bytes) -> None:
        """Delete one blob; durable at the return."""
        await self._call(b"D", guid, b"")

    async def _call(self, operation: bytes, guid: bytes, frame: bytes) -> None:
        async with self._turn:
            self._writer.write(REQUEST.pack(operation, guid, len(frame)) + frame)
            await self._writer.drain()
            (size,) = ANSWER.unpack(await self._reader.readexactly(ANSWER.size))
            error = await self._reader.readexactly(size)
        if error:
            raise BlobStoreError(error.decode())

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


async def run(path: str, socket: str) -> None:
    """Serve the store at ``path`` until SIGTERM."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    async with AsyncFileBlobStore.open(path, page_size=PAGE_SIZE) as store:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket)  # of a server that was killed: this one has the store's lock
        server = await asyncio.start_unix_server(StoreServer(store).serve, socket)
        print(f"serving {path}", flush=True)
        async with server:
            await over.wait()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:3]))
