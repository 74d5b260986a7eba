"""The iterator that ``follow()`` returns: refreshes, and waits while nothing has changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from uringblob import tuning
from uringblob.api.changes import Changes
from uringblob.store.core import Follower


class Refreshing(Protocol):
    """The store that is followed."""

    async def refresh(self) -> bool:
        """Move to the newest state."""


class Following(AsyncIterator[Changes]):
    """One walk through the changes of a store; nothing has to be closed."""

    def __init__(self, store: Refreshing, follower: Follower) -> None:
        self._store, self._follower = store, follower

    def __aiter__(self) -> Following:
        return self

    async def __anext__(self) -> Changes:
        """Return the next changes; cancelled while it waits, it may be called again."""
        delay_s = tuning.FOLLOW_POLL_S_MIN
        while True:
            await self._store.refresh()
            changes = self._follower.take()
            if changes is not None:
                return changes
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, tuning.FOLLOW_POLL_S_MAX)
