"""What asyncio peers on one plain file share: the raw file, opened with O_DIRECT if they can, and their calls.

They get what the store's contract costs them: a batch is durable because the harness awaits
``fdatasync`` after the writes.  Nothing gives them names, checksums or atomic commits.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from uringblob_bench.contenders.base import TaskContender
from uringblob_bench.drive import TaskCall
from uringblob_bench.load import Load, Verb
from uringblob_bench.picker import Picker
from uringblob_bench.workdir import aligned_frames, direct_flag


class Transfer(abc.ABC):
    """One open file's three operations."""

    @abc.abstractmethod
    def read(self, offset: int, view: memoryview) -> Awaitable[object]:
        """Read ``len(view)`` bytes, into ``view`` where the peer can."""

    @abc.abstractmethod
    def write(self, offset: int, source: Any) -> Awaitable[object]:
        """Write ``source``."""

    @abc.abstractmethod
    def sync(self) -> Awaitable[object]:
        """fdatasync."""

    def commit_one(self, offset: int, source: Any) -> Awaitable[object]:
        """Write ``source`` and sync; a peer that can do it in one call does."""

        async def both() -> None:
            await self.write(offset, source)
            await self.sync()

        return both()


class PlainFile(TaskContender):
    """A peer whose only means is positional I/O on a file."""

    durability = "the harness awaits fdatasync after the writes"
    #: Set where the peer cannot use aligned memory, and so not O_DIRECT.
    buffered = False

    def cold(self, loads: Sequence[Load]) -> bool:
        return self.buffered and any(load.verb is Verb.READ for load in loads)

    def path(self) -> str:
        """Return the raw file."""
        return self.workdir.raw_file(self.params.data_bytes)

    def prepare(self) -> None:
        self.check()
        self.path()

    def check(self) -> None:
        """Raise ``CannotRun`` if the peer is not installed."""

    def settings(self) -> dict[str, Any]:
        direct = not self.buffered and bool(direct_flag(self.path()))
        return {
            "direct_io": direct,
            "reads": "from the device" if direct else "through the page cache, emptied before each turn",
            "durability": self.durability,
            "loop": self.params.loop,
        }

    def source(self, view: memoryview) -> Any:
        """Return what is written, in the form that the peer takes; made once, not timed."""
        return view

    @abc.abstractmethod
    def opened(self, descriptor: int, in_flight: int) -> contextlib.AbstractAsyncContextManager[Transfer]:
        """Open the peer on ``descriptor``."""

    @contextlib.asynccontextmanager
    async def session(self, loads: Sequence[Load]) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        path = self.path()
        cold = self.cold(loads)
        descriptor = os.open(path, os.O_RDWR | (0 if self.buffered else direct_flag(path)))
        try:
            if cold:
                drop_cache(descriptor)
            in_flight = sum(load.in_flight for load in loads)
            once = Picker(self.params.frames, once=True) if cold else None
            async with self.opened(descriptor, in_flight) as transfer:
                yield lambda load, number: self._call(transfer, load, number, once)
        finally:
            os.close(descriptor)

    def _call(self, transfer: Transfer, load: Load, number: int, once: Picker | None) -> TaskCall:
        size = self.params.page_size
        views = [frame.view for frame in aligned_frames(size, load.frames)]
        if load.verb is Verb.READ:
            picker = once or Picker(self.params.frames, seed=number)
            return lambda: transfer.read(picker.one() * size, views[0])
        sources = [self.source(view) for view in views]
        picker = Picker(self.params.frames, seed=number)
        if load.verb is not Verb.WRITE and load.frames == 1:
            return lambda: transfer.commit_one(picker.one() * size, sources[0])

        async def change() -> None:
            at = picker.some(load.frames)
            await asyncio.gather(
                *(transfer.write(n * size, source) for n, source in zip(at, sources, strict=True))
            )
            if load.verb is not Verb.WRITE:
                await transfer.sync()

        return change


def drop_cache(descriptor: int) -> None:
    """Take a file's pages out of the page cache."""
    os.fsync(descriptor)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def drop_caches_below(path: str) -> None:
    """Take the pages of every file at or below ``path`` out of the page cache."""
    files = (
        [path]
        if os.path.isfile(path)
        else [os.path.join(at, f) for at, _, names in os.walk(path) for f in names]
    )
    for name in files:
        with contextlib.suppress(OSError):
            descriptor = os.open(name, os.O_RDONLY)
            try:
                drop_cache(descriptor)
            finally:
                os.close(descriptor)
