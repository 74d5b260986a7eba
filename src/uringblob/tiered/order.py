"""Changes of one blob take place one after the other, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection


class Order:
    """For each name the end of the last change that was asked for.

    A change registers under all its names at once and then waits for those before it: waiting points only
    backward in time, so it cannot be circular, and none is passed over.
    """

    def __init__(self) -> None:
        self._last: dict[bytes, asyncio.Future[None]] = {}

    def __contains__(self, guid: bytes) -> bool:
        """Whether a change of the blob is under way, or waits."""
        return guid in self._last

    @contextlib.asynccontextmanager
    async def exclusive(self, guids: Collection[bytes]) -> AsyncIterator[None]:
        """Let nothing else change these blobs meanwhile.  For jobs that are not cancelled."""
        before = {self._last[guid] for guid in guids if guid in self._last}
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last.update(dict.fromkeys(guids, end))
        try:
            for earlier in before:
                await earlier
            yield
        finally:
            end.set_result(None)
            for guid in guids:
                if self._last[guid] is end:
                    del self._last[guid]

    async def idle(self) -> None:
        """Wait until no change is under way."""
        while self._last:
            await next(iter(self._last.values()))
