"""``RemoteBlobStore``: the store in a bucket for threads; its asynchronous one runs in a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from uringblob.api.base import observe, take_documentation
from uringblob.api.changes import Changes
from uringblob.remote.async_store import POLL_S, AsyncRemoteBlobStore
from uringblob.remote.opening import RemoteOptions, remote_options
from uringblob.remote.remote_stats import RemoteStats
from uringblob.sync.looped import LoopedBlobStore, open_on_loop
from uringblob.sync.store_handle import StoreHandle


class RemoteBlobStore(LoopedBlobStore):
    """Frames in a bucket, for threads; see :class:`AsyncRemoteBlobStore`.  Made by :meth:`open`."""

    _handle: StoreHandle[AsyncRemoteBlobStore]
    _core: AsyncRemoteBlobStore

    @classmethod
    @remote_options
    def open(cls, options: RemoteOptions) -> RemoteBlobStore:
        """Open the store."""

        async def opener() -> AsyncRemoteBlobStore:
            return await AsyncRemoteBlobStore._open(options)

        store = cls(open_on_loop(opener, "uringblob remote", f"{options.url}"))
        return store if options.observer is None else observe(store, options.observer)

    @property
    def path(self) -> str:
        """Where the store is: the bucket's name and the prefix."""
        return self._core.path

    @property
    def seq(self) -> int:
        """The number of the last group of the log that this store shows."""
        return self._core.seq

    def _signatures(self) -> tuple[bytes, bytes]:
        return self._core._signatures()

    def refresh(self) -> bool:
        return self._handle.run(self._core.refresh)

    def follow(self, poll: float = POLL_S) -> Iterator[Changes]:
        self._check_open()
        self._core._check_follows()
        return self._follow(poll)

    def _follow(self, poll: float) -> Iterator[Changes]:
        queue: deque[Changes] = deque()
        self._core._begin_following(queue)
        try:
            while True:
                yield self._handle.run(self._core._next_changes, queue, poll)
        finally:
            self._core._end_following(queue)

    def remote_stats(self) -> RemoteStats:
        return self._core.remote_stats()

    def compact(self) -> None:
        self._handle.run(self._core.compact)

    def collect(self) -> int:
        return self._handle.run(self._core.collect)

    def __len__(self) -> int:
        return len(self._core)


take_documentation(RemoteBlobStore, AsyncRemoteBlobStore)
