"""An HTTP application of any number of workers: each reads the store itself, and writes through the server.

    STORE=frames.blobs SOCKET=frames.socket uvicorn --workers 2 --app-dir examples shared_store.app:app

``PUT /<guid>`` with a frame, ``GET /<guid>``, ``DELETE /<guid>``.  A change that was answered is there for the next
request to any worker: before each read a worker moves to the newest durable state, which is one system call
if it has that already.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from shared_store.server import StoreClient
from uringblob import AsyncFileBlobStore, BlobGuid, BlobNotFound, BlobStoreError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Worker:
    """One worker process: its reader, and its connection to the one who writes."""

    store: AsyncFileBlobStore
    _client: StoreClient | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, or the life of the process (ASGI)."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        status, body = await self._answer(scope["method"], scope["path"][1:], await _body_of(receive))
        headers = [(b"content-length", b"%d" % len(body)), (b"x-worker", b"%d" % os.getpid())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self.store = await AsyncFileBlobStore.open(os.environ["STORE"], read_only=True)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.store.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, method: str, name: str, body: bytes) -> tuple[int, bytes]:
        try:
            guid = BlobGuid(name)
            if method == "PUT":
                await (await self._writer()).put(guid, body)
            elif method == "DELETE":
                await (await self._writer()).delete(guid)
            else:
                await self.store.refresh()
                with self.store.alloc_blob_buf_uninit() as frame:
                    await self.store.read_blob(guid, frame)
                    return 200, bytes(frame.view)
        except BlobNotFound:
            return 404, b""
        except ValueError as error:
            return 400, str(error).encode()
        except BlobStoreError as error:
            return 503, str(error).encode()
        except (OSError, EOFError) as error:
            self._client = None  # the server has ended; whether this change is durable is not known
            return 503, str(error).encode()
        return 204, b""

    async def _writer(self) -> StoreClient:
        if self._client is None or self._client.ended:  # there may be another server by now
            self._client = await StoreClient.connect(os.environ["SOCKET"])
        return self._client


async def _body_of(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


app = Worker()
