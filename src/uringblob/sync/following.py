"""``follow()`` of a synchronous store: each step runs on the store's loop, while the calling thread waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from uringblob.api.changes import Changes
from uringblob.sync.store_handle import StoreHandle


class FollowingInThread(Iterator[Changes]):
    """One walk through the changes of a store; nothing has to be closed."""

    def __init__(self, handle: StoreHandle[Any], following: AsyncIterator[Changes]) -> None:
        self._handle, self._following = handle, following

    def __next__(self) -> Changes:
        return self._handle.run(self._next)

    async def _next(self) -> Changes:
        return await self._following.__anext__()
