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
        before = dict.fromkeys(self._last[guid] for guid in guids if guid in self._last)
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

    @property
    def busy(self) -> bool:
        """Whether any change is under way."""
        return bool(self._last)

    async def next_end(self) -> None:
        """Wait until one of the changes under way has ended, if there are any."""
        if not self.busy:
            await asyncio.sleep(0)
            return
        await asyncio.wait(set(self._last.values()), return_when=asyncio.FIRST_COMPLETED)

    async def idle(self) -> None:
        """Wait until no change is under way."""
        while self.busy:
            await self.next_end()
