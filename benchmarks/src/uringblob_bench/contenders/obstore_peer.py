"""obstore's LocalStore: one file per object, written beside its name and renamed into workdir.

``use_multipart=False`` for objects of a frame's size.  It neither syncs files nor directories:
for durability the harness syncs each written file and then the directory, in threads side by side.
It reads through the page cache, which is emptied before each turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from uringblob_bench.contenders.base import TaskContender, require
from uringblob_bench.contenders.plain_file import drop_caches_below
from uringblob_bench.drive import TaskCall
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.picker import Picker
from uringblob_bench.workdir import WorkDir, noise


class ObStore(TaskContender):
    """See the module."""

    name = "obstore"
    durability = "the harness runs fsync on every file, then on the directory"

    def __init__(self, params: Params, workdir: WorkDir) -> None:
        super().__init__(params, workdir)
        self._name = f"obstore-{params.page_size}-{params.data_bytes}"
        self.directory = workdir.path(self._name)
        self._store: Any = None

    def cold(self, loads: Sequence[Load]) -> bool:
        return any(load.verb is Verb.READ for load in loads)

    def settings(self) -> dict[str, Any]:
        return {"direct_io": False, "use_multipart": False, "durability": self.durability}

    def prepare(self) -> None:
        require("obstore")
        import obstore
        from obstore.store import LocalStore

        def fill(path: str) -> None:
            store = LocalStore(path, mkdir=True)
            content = noise(self.params.page_size)
            for number in range(self.params.live):
                obstore.put(store, str(number), content, use_multipart=False)

        self.workdir.once(self._name, fill)
        self._store = LocalStore(self.directory)

    @contextlib.asynccontextmanager
    async def session(
        self,
        loads: Sequence[Load],  # noqa: ARG002 - every load is served alike
    ) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        drop_caches_below(self.directory)
        once = Picker(self.params.live, once=True)
        yield lambda load, number: self._call(load, number, once)

    def _call(self, load: Load, number: int, once: Picker) -> TaskCall:
        import obstore

        store = self._store
        content = noise(self.params.page_size)

        async def read() -> None:
            result = await obstore.get_async(store, str(once.one()))
            await result.buffer_async()

        picker = Picker(self.params.live, seed=number)

        async def change() -> None:
            names = [str(n) for n in picker.some(load.frames)]
            await asyncio.gather(
                *(obstore.put_async(store, name, content, use_multipart=False) for name in names)
            )
            if load.verb is not Verb.WRITE:
                loop = asyncio.get_running_loop()
                paths = [os.path.join(self.directory, name) for name in names]
                await asyncio.gather(*(loop.run_in_executor(None, _sync, path) for path in paths))
                await loop.run_in_executor(None, _sync, self.directory)

        return read if load.verb is Verb.READ else change


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
