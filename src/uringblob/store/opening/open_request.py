"""What ``AsyncFileBlobStore.open`` returns: await it, or enter it with ``async with``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar

from uringblob.api.async_store import AsyncBlobStore
from uringblob.owner import StoreOwner
from uringblob.store.closing import close_core
from uringblob.store.core import Core
from uringblob.store.io.job import Job, join
from uringblob.store.opening.open import Options, find_file, open_core

Store = TypeVar("Store", bound=AsyncBlobStore)


class OpenRequest(StoreOwner, Generic[Store]):
    """A store that is about to be opened; nothing has been touched yet.

    Cancelling it while it opens leaves the store closed and unlocked.
    """

    def __init__(self, make: Callable[[Core, asyncio.AbstractEventLoop], Store], options: Options) -> None:
        self._make = make
        self._options = options
        self._store: Store | None = None

    def __repr__(self) -> str:
        return f"<Opening of {self._options.path!r}: await it, or use it with 'async with'>"

    def __getattr__(self, name: str) -> NoReturn:
        """Say that ``await`` was forgotten to whoever uses this as the store."""
        raise AttributeError(
            f"this store is not open yet, and has no {name!r}: open it with "
            "'store = await AsyncFileBlobStore.open(...)', or with 'async with'"
        )

    def __enter__(self) -> NoReturn:
        raise TypeError("an AsyncFileBlobStore is opened with 'async with', not with 'with'")

    def __exit__(self, *_: object) -> None:
        """Not reached; without it Python would say that it is missing."""

    def __await__(self) -> Generator[Any, None, Store]:
        return self._open().__await__()

    async def __aenter__(self) -> Store:
        self._store = await self._open()
        return self._store

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._store is not None
        await self._store.aclose()

    async def _open(self) -> Store:
        loop = asyncio.get_running_loop()
        # Whoever waits for another opener may give up; from the lock on it runs to its end.
        file = await find_file(self._options)
        opening = Job(open_core(self._options, file), loop)
        try:
            core = await join(opening)
        except asyncio.CancelledError:
            # Nobody will get the store that was opened meanwhile.
            if opening.exception() is None:
                await join(Job(close_core(opening.result(), flush=False), loop))
            raise
        return self._make(core, loop)
