"""caio on io_uring, with and without a kernel thread that polls (SQPOLL).

``max_requests`` covers what is in flight; without SQPOLL ``deferred=True`` submits once per loop
iteration, as its documentation advises for many requests at once.  It knows only ``bytes``, whose memory is not
aligned: with O_DIRECT the kernel answers EINVAL, so both ways lead through the page cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable
from typing import Any

from uringblob_bench.contenders.plain_file import PlainFile, Transfer
from uringblob_bench.interleave import CannotRun
from uringblob_bench.load import Params
from uringblob_bench.workdir import WorkDir


class _Context(Transfer):
    def __init__(self, context: Any, descriptor: int) -> None:
        self._context = context
        self._fd = descriptor

    def read(self, offset: int, view: memoryview) -> Awaitable[object]:
        return self._context.read(len(view), self._fd, offset)  # type: ignore[no-any-return]

    def write(self, offset: int, source: Any) -> Awaitable[object]:
        return self._context.write(source, self._fd, offset)  # type: ignore[no-any-return]

    def sync(self) -> Awaitable[object]:
        return self._context.fdsync(self._fd)  # type: ignore[no-any-return]


class Caio(PlainFile):
    """See the module."""

    buffered = True

    def __init__(self, params: Params, workdir: WorkDir, *, sqpoll: bool) -> None:
        super().__init__(params, workdir)
        self.name = "caio (SQPOLL)" if sqpoll else "caio"
        self._sqpoll = sqpoll

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "sqpoll": self._sqpoll, "deferred": not self._sqpoll}

    def check(self) -> None:
        try:
            from caio import linux_uring
        except ImportError as error:
            raise CannotRun(f"caio with io_uring is not here: {error}") from None
        if self._sqpoll and not linux_uring.SQPOLL_ALLOWED:
            raise CannotRun("SQPOLL is not allowed here")

    def source(self, view: memoryview) -> Any:
        return bytes(view)

    @contextlib.asynccontextmanager
    async def opened(self, descriptor: int, in_flight: int) -> AsyncGenerator[Transfer, None]:
        from caio.linux_uring_asyncio import AsyncioContext

        context = AsyncioContext(max(in_flight + 1, 32), sqpoll=self._sqpoll, deferred=not self._sqpoll)
        async with context:
            yield _Context(context, descriptor)
