"""Stores that another process changes: how their readers move on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from uringblob.api.base import AnyBlobStore, take_documentation
from uringblob.api.changes import Changes


class AsyncFollowing(AnyBlobStore):
    """The part of an asynchronous store that was opened with ``read_only=True``, beside its writer or without."""

    async def refresh(self) -> bool:
        """Show the newest durable state from now on; return whether it is another one.

        All of it becomes visible in one step.  Snapshots stay as they are.  Of a store that is open for writing
        it returns false: that one always shows the newest.

        :raises StoreCorrupt: the log cannot be read any more; what was shown stays.
        """
        raise NotImplementedError

    def follow(self) -> AsyncIterator[Changes]:
        """Refresh again and again; yield what has changed, when something has.

        It begins with what is shown now, and misses nothing: several changes of a blob between two steps are
        one.  Wait for the next step with a timeout, or cancel it, to stop.

        :raises RuntimeError: the store is open for writing: it makes the changes itself.
        """
        raise NotImplementedError


class Following(AnyBlobStore):
    """The same of a synchronous store."""

    def refresh(self) -> bool:  # noqa: D102 - taken below
        raise NotImplementedError

    def follow(self) -> Iterator[Changes]:  # noqa: D102 - taken below
        raise NotImplementedError


take_documentation(Following, AsyncFollowing)
