"""The floor: a plain asyncio program over the bare ring, with a store's I/O and checksums, and nothing else.

What a store adds to *bare asyncio* is its own; what that adds to fio and to the ``os`` calls belongs to
asyncio, to the ring and to the checksums.  :mod:`.callbacks` shows what of it is the tasks'.

A commit is the frames' writes side by side with one block for the log, then one fdatasync.  Commits that come
meanwhile share the next block and the next fdatasync.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from uringblob.checksums import frame_checksum
from uringblob.completion import Completion
from uringblob.ring import Ring
from uringblob.slab import IoBuffer
from uringblob_bench.contenders.bare_file import BLOCK, BareFile, whole
from uringblob_bench.contenders.ring import BareRing, RingMemory
from uringblob_bench.drive import TaskCall
from uringblob_bench.load import Load, Verb

#: A task that checksums more than this lets others take a step in between.
_CHECKSUMMED_AT_ONCE = 2 << 20


class Tasks:
    """Each worker is a task; see :class:`BareAsyncio`."""

    def __init__(self, file: BareFile) -> None:
        self._file = file
        self._size = file.params.page_size
        self._verify = file.params.verify
        self._at_once = max(_CHECKSUMMED_AT_ONCE // self._size, 1)
        # Commits that wait for the next group: their writes, and what resolves to whether they are durable.
        self._line: list[tuple[list[Completion[int]], asyncio.Future[bool]]] = []
        self._busy = False
        self._crowd = 0

    def call(self, load: Load, worker: int) -> TaskCall:
        frames = self._file.memory.take(load.frames)
        numbers = self._file.numbers(load, worker)
        if load.verb is Verb.READ and load.frames == 1:
            (frame,) = frames
            return lambda: self._read(numbers()[0], frame)
        do = {
            Verb.READ: self._read_all,
            Verb.WRITE: self._write_all,
            Verb.BATCH: self._batch,
            Verb.COMMIT: self._commit,
        }[load.verb]
        return lambda: do(numbers(), frames)

    async def _read(self, number: int, frame: IoBuffer) -> None:
        whole(await self._file.read(number, frame), self._size)
        if self._verify:
            frame_checksum(frame.view)

    async def _read_all(self, numbers: Sequence[int], frames: Sequence[IoBuffer]) -> None:
        reads = [self._file.read(number, frame) for number, frame in zip(numbers, frames, strict=True)]
        for read, frame in zip(reads, frames, strict=True):
            whole(await read, self._size)
            if self._verify:
                frame_checksum(frame.view)

    async def _begin(self, numbers: Sequence[int], frames: Sequence[IoBuffer]) -> list[Completion[int]]:
        begun = []
        for count, (number, frame) in enumerate(zip(numbers, frames, strict=True), 1):
            begun.append(self._file.write(number, frame))
            if count % self._at_once == 0 and count < len(frames):
                await asyncio.sleep(0)
        return begun

    async def _write_all(self, numbers: Sequence[int], frames: Sequence[IoBuffer]) -> None:
        for write in await self._begin(numbers, frames):
            whole(await write, self._size)

    async def _batch(self, numbers: Sequence[int], frames: Sequence[IoBuffer]) -> None:
        await self._write_all(numbers, frames)
        whole(await self._file.sync(), 0)

    async def _commit(self, numbers: Sequence[int], frames: Sequence[IoBuffer]) -> None:
        writes = await self._begin(numbers, frames)
        durable: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._line.append((writes, durable))
        if self._busy and await durable:
            return
        self._busy = True
        if self._crowd > 1:  # those that were acknowledged together come back in this iteration
            await asyncio.sleep(0)
        members, self._line = self._line, []
        self._crowd = len(members)
        block = self._file.write_block()
        for begun, _ in members:
            for write in begun:
                whole(await write, self._size)
        whole(await block, BLOCK)
        whole(await self._file.sync(), 0)
        self._busy = False
        for _, waiting in members:
            if not waiting.done():
                waiting.set_result(True)
        if self._line:
            self._busy = True
            self._line[0][1].set_result(False)  # the first of them leads the next group


class BareAsyncio(BareRing):
    """A plain asyncio program, a task for each worker, on registered memory: the floor for a library under asyncio."""

    name = "bare asyncio"
    spare_frames = 1

    def settings(self) -> dict[str, Any]:
        """Return the ring's, and that it checksums."""
        return {**super().settings(), "checksums": self.params.verify}

    def calls(self, ring: Ring, memory: RingMemory) -> Callable[[Load, int], Any]:
        """Return what makes a worker's call."""
        return Tasks(BareFile(ring, memory, self.params)).call
