"""What ``AsyncFileBlobStore.open`` returns: await it, or enter it with ``async with``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Generic, NoReturn, TypeVar

from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.open_options import OpenOptions
from uringblob.owner import StoreOwner
from uringblob.store.closing import close_core
from uringblob.store.core import Core
from uringblob.store.io.job import Job, join
from uringblob.store.opening.open import find_file, open_core

Store = TypeVar("Store", bound=AsyncBlobStore)


class OpenRequest(StoreOwner, Generic[Store]):
    """A store to be opened; until it is awaited, nothing is touched.

    Cancelling it while it opens leaves the store closed and unlocked.
    """

    def __init__(
        self, make: Callable[[Core, asyncio.AbstractEventLoop], Store], options: OpenOptions
    ) -> None:
        self._make = make
        self._options = options
        self._store: Store | None = None

    def __repr__(self) -> str:
        return f"<OpenRequest of {self._options.file!r}: await it, or use it with 'async with'>"

    def __getattr__(self, name: str) -> NoReturn:
        """Say that ``await`` was forgotten."""
        raise AttributeError(
            f"this store is not open yet, and has no {name!r}: open it with "
            "'store = await AsyncFileBlobStore.open(...)', or with 'async with'"
        )

    def __enter__(self) -> NoReturn:
        raise TypeError("an AsyncFileBlobStore is opened with 'async with', not with 'with'")

    def __exit__(self, *_: object) -> None:
        """Never called; without it Python raises before ``__enter__`` does."""

    def __await__(self) -> Generator[Any, None, Store]:
        return self._open().__await__()

    async def __aenter__(self) -> Store:
        self._store = await self._open()
        return self._store

    async def __aexit__(self, *_: object) -> None:
        assert self._store is not None
        await self._store.aclose()

    async def _open(self) -> Store:
        loop = asyncio.get_running_loop()
        # Waiting for the lock can be cancelled; once it is held, the opening runs to its end.
        file = await find_file(self._options)
        opening = Job(open_core(self._options, file), loop)
        try:
            core = await join(opening)
        except asyncio.CancelledError:
            # The store that was opened meanwhile is closed again.
            if opening.exception() is None:
                await join(Job(close_core(opening.result(), flush=False), loop))
            raise
        return self._make(core, loop)
