"""The store in a bucket, and bare obstore with the same requests, against one server on loopback.

What obstore is given it sends from where it lies, and it returns memory of its own; the store checks what it
sent and received by checksum, and fills the caller's frame.  To get a frame it asks for a range, which is one
answer of obstore's threads where ``get`` and ``bytes`` are two: that pays for the copy.  Both put each frame under a name of its own, and
delete after a turn what it replaced: a server of Python takes memory that it has had more cheaply than new.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from uringblob.remote import AsyncRemoteBlobStore
from uringblob_bench.contenders.base import TaskContender, require
from uringblob_bench.contenders.store import guid_of
from uringblob_bench.drive import TaskCall
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.picker import Picker
from uringblob_bench.workdir import WorkDir, noise


class _InBucket(TaskContender):
    """A contender that keeps its frames in objects of the server at ``endpoint``."""

    durability = "the server's memory: what is compared is the client"

    def __init__(self, params: Params, workdir: WorkDir, endpoint: str) -> None:
        super().__init__(params, workdir)
        self._endpoint = endpoint

    def settings(self) -> dict[str, Any]:
        return {"durability": self.durability, "server": "uringblob_bench.contenders.s3_server"}

    def client(self) -> Any:
        """Return obstore's client."""
        require("obstore")
        from obstore.store import S3Store

        keys = {"access_key_id": "any", "secret_access_key": "any"}
        place = {"endpoint": self._endpoint, "region": "us-east-1", "virtual_hosted_style_request": False}
        return S3Store("bucket", config={**place, **keys}, client_options={"allow_http": True})


class BareObstore(_InBucket):
    """Puts and gets of obstore, as many at once as the load has frames in flight."""

    name = "bare obstore"

    def prepare(self) -> None:
        client, content = self.client(), noise(self.params.page_size)
        self._puts = itertools.count()
        self._names = [self._new_name() for _ in range(self.params.live)]
        for name in self._names:
            client.put(name, content, use_multipart=False)

    def _new_name(self) -> str:
        return f"bare/{next(self._puts)}"

    @contextlib.asynccontextmanager
    async def session(
        self,
        loads: Sequence[Load],  # noqa: ARG002 - every load is served alike
    ) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        client, content = self.client(), noise(self.params.page_size)
        names, replaced = self._names, list[str]()

        def call_for(load: Load, number: int) -> TaskCall:
            picker = Picker(self.params.live, seed=number)

            async def read() -> None:
                await (await client.get_async(names[picker.one()])).bytes_async()

            async def change() -> None:
                made = [(number, self._new_name()) for number in picker.some(load.frames)]
                puts = (client.put_async(name, content, use_multipart=False) for _, name in made)
                await asyncio.gather(*puts)
                replaced.extend(names[number] for number, _ in made)
                for at, name in made:
                    names[at] = name

            return read if load.verb is Verb.READ else change

        yield call_for
        if replaced:
            await client.delete_async(replaced)


class RemoteStore(_InBucket):
    """``AsyncRemoteBlobStore``: a batch is a commit."""

    name = "store in a bucket"

    def _open(self) -> Any:
        # What the last turn replaced is deleted after it, and not half a minute later.
        return AsyncRemoteBlobStore.open(
            self.client(), prefix="store", page_size=self.params.page_size, grace=0
        )

    def prepare(self) -> None:
        async def fill() -> None:
            content = noise(self.params.page_size)
            async with self._open() as store:
                await store.commit([(guid_of(number), content) for number in range(self.params.live)])

        asyncio.run(fill())

    @contextlib.asynccontextmanager
    async def session(
        self,
        loads: Sequence[Load],  # noqa: ARG002 - every load is served alike
    ) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        content = noise(self.params.page_size)
        async with self._open() as store:

            def call_for(load: Load, number: int) -> TaskCall:
                picker = Picker(self.params.live, seed=number)
                room = store.alloc_blob_buf_uninit()

                async def read() -> None:
                    await store.read_blob(guid_of(picker.one()), room)

                async def change() -> None:
                    await store.commit([(guid_of(n), content) for n in picker.some(load.frames)])

                return read if load.verb is Verb.READ else change

            yield call_for
            for _ in range(2):
                await store.compact()
                await store.collect()
