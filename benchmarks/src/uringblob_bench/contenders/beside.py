"""The store with snapshots of it held, and with reader processes beside it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Generator
from typing import Any

from uringblob import AsyncFileBlobStore
from uringblob_bench.contenders import reader_child
from uringblob_bench.contenders.store import AsyncStore, guid_of
from uringblob_bench.load import Params
from uringblob_bench.workdir import WorkDir, noise


class BesideSnapshots(AsyncStore):
    """``count`` snapshots are held for the turn, each of another state."""

    def __init__(self, params: Params, workdir: WorkDir, count: int) -> None:
        super().__init__(params, workdir)
        self.count = count
        self.name = "1 snapshot" if count == 1 else f"{count} snapshots"

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "snapshots": self.count}

    async def accompany(self, store: AsyncFileBlobStore, company: contextlib.AsyncExitStack) -> None:
        content = noise(self.params.page_size)
        for number in range(self.count):
            await store.commit([(guid_of(number % self.params.live), content)])
            await company.enter_async_context(await store.snapshot())


class BesideReaders(AsyncStore):
    """``count`` processes have the store open for reading, and go on to its newest state once a second.

    They read no frames: on two cores that would measure the cores.
    """

    def __init__(self, params: Params, workdir: WorkDir, count: int) -> None:
        super().__init__(params, workdir)
        self.count = count
        self.name = "1 reader process" if count == 1 else f"{count} reader processes"

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "readers": self.count, "refresh_s": reader_child.REFRESH_S}

    async def accompany(self, store: AsyncFileBlobStore, company: contextlib.AsyncExitStack) -> None:
        for _ in range(self.count):
            company.enter_context(_reader(self.filler.path))
        if sum(len(readers.pids) for readers in store.stats().readers) != self.count:
            raise RuntimeError(f"{store.stats().readers} are not {self.count} readers")


@contextlib.contextmanager
def _reader(path: str) -> Generator[None, None, None]:
    command = [sys.executable, "-m", reader_child.__name__, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != reader_child.READY:
                raise RuntimeError(f"a reader process ended with {process.wait()}")
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
    if process.returncode:
        raise RuntimeError(f"a reader process ended with {process.returncode}")
